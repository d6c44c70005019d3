"""Output that is closed, full, left by its reader or in another encoding ends nothing."""

import errno
import io
import sys

import pytest
from toy_tasks import TOY

from thalnet_mtl import cli
from thalnet_mtl.streams import PatientStream, replace_letters


class Broken(io.StringIO):
    """A stream that cannot be written, or flushed, for one reason."""

    def __init__(self, reason: int, only_flush: bool = False):
        super().__init__()
        self.error, self.only_flush = OSError(reason, "no space"), only_flush

    def write(self, text):
        if not self.only_flush:
            raise self.error
        return len(text)

    def flush(self):
        raise self.error


def encoded(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)


def text_of(stream: io.TextIOWrapper) -> str:
    return stream.buffer.getvalue().decode(stream.encoding)


COMMANDS = (
    ["list", "configs"],
    ["list", "tasks", "csv"],
    ["--version"],
    ["data", "ls"],
    ["--help"],
)


def run(words) -> int:
    try:
        return cli.main(words)
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize("only_flush", [True, False])
def test_output_on_a_full_disk_is_one_line_and_status_1(capsys, monkeypatch, words, only_flush):
    monkeypatch.setattr(sys, "stdout", Broken(errno.ENOSPC, only_flush))
    assert run(words) == 1
    assert capsys.readouterr().err == "thalnet: cannot write the output: no space\n"


@pytest.mark.parametrize("words", COMMANDS)
def test_a_closed_output_and_a_reader_that_leaves_are_no_mistake(capsys, monkeypatch, words):
    for stream in (None, Broken(errno.EPIPE)):
        monkeypatch.setattr(sys, "stdout", stream)
        assert run(words) == 0
        assert capsys.readouterr().err == ""


def test_closed_errors_do_not_reach_the_output(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main(["list", "nothing"]) == 2
    assert capsys.readouterr().out == ""


def test_a_training_ends_well_without_its_output(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdout", Broken(errno.ENOSPC))
    assert cli.main(["train", *TOY, "--out", str(tmp_path / "run")]) == 1
    assert (tmp_path / "run" / "result.json").exists() and (tmp_path / "run/report.html").exists()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_every_list_can_be_printed_in_any_encoding(monkeypatch, encoding):
    for kind in ("configs", "tasks", "readings", "losses", "metrics", "strategies"):
        monkeypatch.setattr(sys, "stdout", encoded(encoding))
        assert cli.main(["list", kind]) == 0
        assert text_of(sys.stdout).count("\n") > 3


def test_a_training_and_its_table_can_be_logged_in_ascii_with_forced_color(monkeypatch, tmp_path):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):  # as on GitHub
        monkeypatch.setenv(name, "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", encoded("ascii"))
    assert cli.main(["train", *TOY, "--evaluate.log_every=10", "--out", "é日"]) == 0
    assert cli.main(["compare", "é日"]) == 0
    text = text_of(sys.stdout)
    assert "scoring the untrained network ~" in text and "report: ??/report.html" in text
    assert text.count("step 10/20  loss") == text.count("step 20/20  loss") == 1
    assert "\r" not in text and "\x1b[?25" not in text and "\x1b[2K" not in text


def test_a_file_name_that_is_no_text_can_be_printed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", encoded("utf-8"))
    stream = PatientStream(sys.stdout)
    stream.write("runs/\udcff – é")
    assert text_of(sys.stdout) == "runs/? – é" and stream.problem is None
    assert replace_letters("é – 日 ×", "latin-1") == "é - ? ×"
