"""stdout and stderr closed, missing, full or without a reader; signals that end a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from photoflux.data.sources.demo import write_demo_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX shells and signals")
PHOTOFLUX = f"{sys.executable} -m photoflux"


def shell(command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command, "bash", *map(str, arguments)], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    return write_demo_folder(folder / "s", images_per_class=6)


CLOSED = {
    "stdout": (f"{PHOTOFLUX} variants >&-", 0),
    "stderr": (f"{PHOTOFLUX} variants 2>&- >/dev/null", 0),
    "all": (f"{PHOTOFLUX} variants <&- >&- 2>&-", 0),
    "json": (f"{PHOTOFLUX} variants --json >&-", 0),
    "an error": (f"{PHOTOFLUX} evaluate no/such/run 2>&- >&-", 1),
    "usage": (f"{PHOTOFLUX} train --frobnicate 2>&- >&-", 2),
    "help": (f"{PHOTOFLUX} train --help >&-", 0),
    "version": (f"{PHOTOFLUX} --version >&-", 0),
    "no reader": (f"{PHOTOFLUX} variants | true", 0),
    "head": (f"{PHOTOFLUX} variants --json | head -c 1 >/dev/null", 0),
    "stderr without a reader": (f"{{ {PHOTOFLUX} evaluate no/such/run 2>&1 >&3 | true; }} 3>/dev/null", 1),
    "stderr full": (f"{PHOTOFLUX} evaluate no/such/run 2>/dev/full", 1),
}


@pytest.mark.parametrize("kind", CLOSED)
def test_a_stream_that_is_closed_is_a_quiet_end(kind):
    command, code = CLOSED[kind]
    done = shell(command)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@pytest.mark.parametrize("command", ["variants", "--version", "--help", "train --help"])
def test_a_full_disk_behind_stdout_is_one_message(command):
    done = shell(f"{PHOTOFLUX} {command} >/dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert "No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1


LIBRARY = """
import sys
{before}
import photoflux
from photoflux.runs import progress
progress.PATIENCE = 0.0
p = photoflux.prepare({source!r}, {dest!r}, image_size=8)
{after}
"""


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("how", ["sys.{0} = None", "sys.{0}.close()", "import os; os.close(sys.{0}.fileno())"])
def test_a_library_without_a_stream(scans, tmp_path, stream, how):
    (scans / "Photo" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    code = LIBRARY.format(
        before=how.format(stream),
        source=str(scans),
        dest=str(tmp_path / "d"),
        after=f"assert len(p) == 30\nopen({str(tmp_path / 'done')!r}, 'w')",
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (tmp_path / "done").exists(), done.stderr
    assert "Traceback" not in done.stderr
    # What goes to stderr must not go to stdout for want of it.
    assert done.stdout == ""
    assert ("broken.jpg" in done.stderr) == (stream == "stdout")


def test_a_bar_whose_terminal_goes_does_not_end_the_work(monkeypatch):
    from photoflux.runs.progress import Display, _Console

    class Terminal:
        encoding = "utf-8"
        gone = False

        def isatty(self):
            return True

        def write(self, text):
            if self.gone:
                raise BrokenPipeError(32, "Broken pipe")
            return len(text)

        def flush(self):
            pass

    terminal = Terminal()
    monkeypatch.setattr("photoflux.runs.progress.console", lambda: _Console(file=terminal, force_terminal=True))
    monkeypatch.setattr("photoflux.runs.progress.PATIENCE", 0.0)
    with Display() as display:
        display.step(1, 10, "Decoding")
        assert display._bar is not None
        terminal.gone = True
        display.say("a line")
        for done in range(2, 11):
            display.step(done, 10, "Decoding")


SLOW = """
import sys, time
import photoflux.cli
from photoflux.runs.progress import Display
def slow(*args, **options):
    print("decodes", flush=True)
    time.sleep(0.3)
Display.step = slow
sys.argv[1:] = ["prepare", *sys.argv[1:], "--image-size", "8"]
photoflux.cli.main()
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)], ids=lambda v: str(v)
)
def test_a_preparation_that_is_ended_leaves_nothing(scans, tmp_path, number, code):
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, str(scans), str(tmp_path / "d")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.readline()
        assert sorted(path.suffix for path in tmp_path.iterdir()) == [".lock", ".tmp"]
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert (len(said.splitlines()) == 1 and "nterrupted." in said) or f"Ended by {number.name}." in said
    assert list(tmp_path.iterdir()) == []


def test_a_command_ends_though_its_parent_blocks_signals(scans, tmp_path):
    """As one does that has Julia, a notebook for instance."""
    blocked = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [15]); os.execv(sys.argv[1], sys.argv[1:])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", blocked, sys.executable, "-c", SLOW, str(scans), str(tmp_path / "d")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 143


def test_a_killed_preparation_is_swept_by_the_next_command(scans, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, str(scans), str(tmp_path / "d")], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.kill()
        process.communicate()
    assert len(list(tmp_path.iterdir())) == 2
    done = shell(f'{PHOTOFLUX} prepare "$1" "$2" --image-size 8', scans, tmp_path / "other")
    assert done.returncode in (0, 3), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_an_ignored_hang_up_stays_ignored(scans, tmp_path):
    """As nohup arranges it."""
    with subprocess.Popen(
        ["bash", "-c", 'trap "" HUP; exec "$@"', "bash", sys.executable, "-c", SLOW, str(scans), str(tmp_path / "d")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    ) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        process.communicate(timeout=120)
    assert process.returncode in (0, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
