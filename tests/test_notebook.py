"""What notebooks show while something runs; the outputs are those of IPython's own display."""

import io
from itertools import groupby

import nbformat
import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from rich import console as rich_console

from thalnet_mtl.console import Console
from thalnet_mtl.notebook import LATEST, MOST, NotebookBar, in_notebook

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def kernel(monkeypatch):
    """A shell as in a kernel; returns the outputs that it has published."""
    shell = InteractiveShell()
    shell.kernel = object()
    shell.display_pub = CapturingDisplayPublisher()
    monkeypatch.setattr(InteractiveShell, "_instance", shell)
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    return shell.display_pub.outputs


def states(outputs):
    """Return the states of the displays by their identity."""
    shown = {}
    for output in outputs:
        shown.setdefault(output["transient"]["display_id"], []).append(output["data"])
    return shown


def test_a_shell_without_a_kernel_is_no_notebook(monkeypatch):
    assert not in_notebook()
    monkeypatch.setattr("IPython.get_ipython", lambda: InteractiveShell)
    assert not in_notebook()


def test_a_notebook_gets_one_output_however_many_steps_there_are(kernel, capsys):
    console = Console()
    console.print("before")
    with console.progress("net on digits", 0, 5000):
        for step in range(1, 5001):
            console.advance(step)
            if step % 10 == 0:
                console.log_losses(step, {"digits": 1.25})
    console.print("after")
    (display,) = states(kernel).values()
    assert len(display) < 50  # at most five a second
    assert "5,000/5,000" in display[-1]["text/html"] and "loss 1.250" in display[-1]["text/plain"]
    assert 'max="5000" value="5000"' in display[-1]["text/html"]
    assert capsys.readouterr().out == "before\nafter\n"


def test_a_resumed_job_begins_where_it_stopped(kernel):
    with Console().progress("net", 40, 100):
        pass
    (display,) = states(kernel).values()
    assert 'value="40"' in display[0]["text/html"] and "left" not in display[0]["text/html"]


def test_lines_stand_below_the_bar_and_all_of_them_unfold_at_its_end(kernel, capsys):
    with Console().progress("net", 0, 10) as progress:
        for step in range(100):
            progress.bar.print(f"step {step};")
    (display,) = states(kernel).values()
    assert "<details" not in display[0]["text/html"]
    last = display[-1]["text/html"]
    hidden, shown = last.split("</details>")
    assert all(f"step {step};" in hidden for step in range(100)) and "all 100 lines" in hidden
    assert sum(f"step {step};" in shown for step in range(100)) == LATEST and "step 99;" in shown
    assert capsys.readouterr().out == ""


def test_a_training_of_days_says_which_lines_it_leaves_out(kernel):
    with Console().progress("net", 0, 10) as progress:
        for step in range(MOST + 200):
            progress.bar.print(f"step {step};")
    last = kernel[-1]["data"]["text/html"]
    assert f"all {MOST + 200} lines" in last and "(200 earlier lines are left out)" in last
    assert "step 199;" not in last and "step 200;" in last and len(last) < 30_000


def test_an_error_leaves_the_last_state(kernel):
    with pytest.raises(KeyError), Console().progress("net", 0, 10) as progress:
        progress.advance(1)
        progress.advance(4)
        raise KeyError
    assert 'value="4"' in kernel[-1]["data"]["text/html"]


def test_names_stay_text(kernel):
    console = Console()
    with console.progress(SCRIPT, 0, 10) as progress:
        console.print(f"note: {SCRIPT}\x1b[2J")
        progress.update(5, SCRIPT)
    with console.downloads() as report:
        report(SCRIPT, 1, 2)
    for output in kernel:
        html = output["data"]["text/html"]
        assert "<script" not in html and "&lt;script&gt;" in html and "\x1b" not in html


def test_every_download_has_a_bar_of_its_bytes(kernel, capsys):
    with Console().downloads() as report:
        for done in range(0, 50_000_001, 1_000_000):
            report("mnist.tgz", done, 50_000_000)
        report("of unknown size", 3_000_000, 0)
    mnist, other = states(kernel).values()
    assert "50.0 of 50.0 MB" in mnist[-1]["text/html"] and "3.0 MB" in other[-1]["text/html"]
    assert len(mnist) < 10 and capsys.readouterr().out == ""


def test_a_console_of_the_user_gets_lines_in_a_notebook(kernel):
    file = io.StringIO()
    console = Console(rich_console.Console(file=file, width=80, force_jupyter=False))
    with console.progress("net", 0, 10):
        console.log_losses(5, {"a": 1.0})
    assert "step 5/10" in file.getvalue() and not kernel


def test_the_time_that_is_left_follows_from_the_rate(kernel):
    with Console().progress("net", 0, 100) as progress:
        progress.start -= 60
        progress.advance(25)
        progress.bar.updated = 0.0
        progress.advance(25)
    assert "25/100  1:00  3:00 left" in kernel[-1]["data"]["text/html"]


def test_a_bar_of_nothing_is_no_error(kernel):
    with NotebookBar("nothing", 0, str):
        pass
    assert 'max="1" value="0"' in kernel[-1]["data"]["text/html"]


CELLS = (
    """
from thalnet_mtl import load_config, load_run, table, train
config = load_config("digits", {"train.steps": 20, "evaluate.every": 2, "evaluate.batches": 1})
result = train(config, FOLDER)
""",
    "result",
    "run = load_run(FOLDER)\nrun",
    "run.network",
    "run.plot.curves()",
    "run.metrics.tail(2)",
    "table(FOLDER)",
    """
assert (run.metrics.metric == "accuracy").sum() >= 10 and run.history == () == run.topology.history
assert run.result == result and run.accuracy_matrix.shape == (2, 1)
run.report()
""",
    "run.plot.matrix()",
    "from matplotlib import pyplot as plt\nrun.plot.graph(ax=plt.figure().add_subplot());",
)


def test_a_real_kernel_shows_a_training_and_its_run(tmp_path):
    cells = [nbformat.v4.new_code_cell(f"FOLDER = {str(tmp_path / 'a')!r}")]
    cells += [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=120, allow_errors=True, kernel_name="python3").execute()
    first, *others = [cell.outputs for cell in notebook.cells[1:]]
    kinds = [kind for kind, _ in groupby(output.output_type for output in first)]
    assert kinds == ["stream", "display_data", "stream"]  # lines, in pieces, the bar, lines
    (bar,) = [output.data for output in first if output.output_type == "display_data"]
    assert 'value="20"' in bar["text/html"] and "all 10 lines" in bar["text/html"]
    *shown, refused, drawn = others
    outputs = [output for (output,) in shown]  # each cell has one, the table as well
    assert [output.output_type for output in outputs] == ["execute_result"] * 7
    for place, words in ((0, "Result"), (1, "digits_rows"), (2, "<svg"), (4, "accuracy"),
                         (5, "parameters"), (6, "<iframe")):  # fmt: skip
        assert words in outputs[place].data["text/html"]
    assert "image/png" in outputs[3].data
    assert [output.output_type for output in drawn] == ["display_data"]  # a figure of pyplot
    assert refused[0].evalue.endswith("it has trained no stream.")
    body, _ = HTMLExporter().from_notebook_node(notebook)
    assert body.count("<iframe") == 1 and body.count("<progress") == 1
