import io

from rich import console as rich_console

from thalnet_mtl.console import Console


def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines():
    for terminal in (True, False):
        console = rich_console.Console(file=io.StringIO(), force_terminal=terminal, width=80)
        output = Console(console)
        with output.progress("net on task", 10, 100):
            output.advance(50)
            output.log_losses(50, {"digits": 1.25})
        text = console.file.getvalue()
        assert ("\x1b" in text) == terminal
        assert ("step 50/100  loss 1.2500" in text) != terminal
        assert "50/100" in text and "1.25" in text


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    console = rich_console.Console(file=io.StringIO(), force_terminal=True, width=80)
    with Console(console).progress("net on task", 0, 100) as progress:
        progress.log_losses(50, {"digits": 1.25})
    with Console(console).downloads() as report:
        report("mnist.tgz", 10, 100)
    text = console.file.getvalue()
    assert "step 50/100  loss 1.2500" in text and "mnist.tgz …\n" in text and "\x1b" not in text


def test_a_console_without_a_bar_has_nothing_to_move_and_says_nothing():
    console = rich_console.Console(file=io.StringIO(), width=80)
    Console(console).advance(1)
    Console(console).log_losses(1, {"digits": 1.25})
    assert console.file.getvalue() == ""


def test_several_losses_have_the_names_of_their_tasks():
    console = rich_console.Console(file=io.StringIO(), width=120)
    with Console(console).progress("net on 2 tasks", 0, 10) as progress:
        progress.log_losses(5, {"a": 1.25, "b": 0.5})
    assert "step 5/10  loss a 1.2500 b 0.5000" in console.file.getvalue()


def test_a_download_shows_its_bytes():
    for terminal, word in ((True, "100/100 bytes"), (False, "mnist.tgz …\n")):
        console = rich_console.Console(file=io.StringIO(), force_terminal=terminal, width=80)
        with Console(console).downloads() as report:
            report("mnist.tgz", 10, 100)
            report("mnist.tgz", 100, 100)
        assert word in console.file.getvalue()


def test_names_move_no_cursor_and_are_no_markup(capsys):
    name = "a\x1b[2J\x07\x9b31m [/red][bold]"
    console = Console()
    console.print(f"{name}\nline 2")
    with console.progress(name, 0, 10):
        console.log_losses(5, {name: 1.0, "b": 2.0})
    printed = capsys.readouterr().out
    assert printed.splitlines()[:2] == [r"a\x1b[2J\x07\x9b31m [/red][bold]", "line 2"]
    assert printed.count(r"a\x1b[2J\x07\x9b31m [/red][bold]") == 3
    assert all(letter.isprintable() or letter == "\n" for letter in printed)


def test_a_progress_bar_shows_names_as_they_are():
    terminal = rich_console.Console(file=io.StringIO(), force_terminal=True, width=100)
    with Console(terminal).progress("a [/red] \x1b[2J", 0, 10):
        pass
    assert "\x1b[2J" not in terminal.file.getvalue() and "[/red]" in terminal.file.getvalue()
