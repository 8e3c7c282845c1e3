from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from photoflux.cli.command import app, command
from photoflux.runs.progress import Display
from photoflux.system import log

# A note and what is being done, in a process of its own, as pytest listens to all loggers.
SAYS = """
import logging
from photoflux.runs.progress import Display
from photoflux.system import log
with Display({visible}) as display:
    log.note("one class has few images\\x07")
    display.say("Starting Julia")
print(len(logging.getLogger().handlers))
"""


def said(before: str, visible: bool) -> tuple[str, str]:
    """What is printed on stdout and stderr."""
    code = before + SAYS.format(visible=visible)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


def test_without_a_configuration_warnings_are_shown_and_progress_is_as_it_says():
    note = "Note: one class has few images\\x07\n"  # its control character escaped
    assert said("", True) == ("0\n", note + "Starting Julia\n")
    assert said("", False) == ("0\n", note)


def test_a_program_that_configures_logging_gets_what_it_asks_for():
    configured = (
        "import logging, sys\nlogging.basicConfig(level={}, stream=sys.stdout, format='%(levelname)s %(name)s')\n"
    )
    warning, info = "WARNING photoflux\n", "INFO photoflux\n"
    assert said(configured.format("logging.INFO"), True) == (warning + info + "1\n", "")
    assert said(configured.format("logging.INFO"), False) == (warning + info + "1\n", "")
    assert said(configured.format("logging.WARNING"), True) == (warning + "1\n", "Starting Julia\n")
    assert said(configured.format("logging.ERROR"), False) == ("1\n", "")


def test_a_command_shows_all_on_stderr_in_its_order_and_leaves_no_configuration(capsys, caplog):
    logger, root = logging.getLogger(log.NAME), logging.getLogger()
    before = (logger.level, logger.propagate, list(logger.handlers), root.level, list(root.handlers))

    def speak() -> int:
        with Display() as display:
            display.say("Starting")
            log.warn("2 files were left out:\n  a\n  b")
            display.say("Done")
        return 0

    registered = list(app.registered_commands)
    try:
        with pytest.raises(Exception, match="0"):  # typer's own, of the exit code
            command("speak")(speak)()
    finally:
        app.registered_commands[:] = registered
    assert capsys.readouterr().err == "Starting\n2 files were left out:\n  a\n  b\nDone\n"
    assert caplog.records == []
    assert before == (logger.level, logger.propagate, list(logger.handlers), root.level, list(root.handlers))
