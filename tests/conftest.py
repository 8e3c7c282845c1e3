"""What all tests share: the engines, small data, and the last lines: on which Julias, and what was skipped."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from disks import Disk, small_disks
from faults import name_faults, write_page
from julias import julia_of_engine, line_of_julias
from photoflux.engines.flux.engine import FluxEngine
from photoflux.engines.keras.engine import KerasEngine, why_unavailable
from photoflux.errors import FluxError

NO_FLUX = "Flux cannot run here"
# One test each that takes minutes: begun first, so that neither of the two processes is left alone with them.
LONG = ("test_julia.py", "test_tour.py", "test_wheel.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes the table of faults."""
    parser.addoption(
        "--write-faults", action="store_true", help="Write the faults that the passed tests inject into the page."
    )


def pytest_configure() -> None:
    """Have a Ctrl-C that a test sends arrive: a shell starts what runs in the background without it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHOTOFLUX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def flux() -> FluxEngine:
    """The Flux engine; where no Julia can be had, the test is skipped and counted."""
    engine = FluxEngine(print)
    try:
        _ = engine.julia
    except FluxError as error:
        # A Julia that is there and does not fit, or cannot load our package, is a fault of ours or of the set-up.
        if error.kind != "no_julia":
            raise
        pytest.skip(f"{NO_FLUX}: {error}")
    return engine


@pytest.fixture(scope="session")
def keras() -> Iterator[KerasEngine]:
    """The Keras engine, one worker for all tests."""
    missing = why_unavailable()
    if missing is not None:
        pytest.skip(missing)
    with KerasEngine() as engine:
        yield engine


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Disk]]:
    """What makes a disk of a size, such as ``"4m"``; see `disks.Disk`."""
    with small_disks(tmp_path) as make:
        yield make


@pytest.fixture(scope="session")
def julia_command(flux: FluxEngine) -> tuple[list[str], dict[str, str]]:
    """Command and environment of the Julia that runs in this process, with this checkout's package."""
    julia = julia_of_engine(flux.julia)
    return julia.command, julia.environment


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, and have each report name the faults of its test."""
    items.sort(key=lambda item: item.path.name not in LONG)
    name_faults(items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say on which Julias their suite ran, and how many Flux tests were skipped, and why; write the table of faults."""
    if terminalreporter.config.getoption("--write-faults"):
        terminalreporter.write_line(write_page(terminalreporter.stats))
    line = line_of_julias(terminalreporter.stats)
    if line is not None:
        terminalreporter.write_line(line)
    reasons = [str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", []) if report.longrepr]
    flux_reasons = [reason.removeprefix("Skipped: ") for reason in reasons if NO_FLUX in reason]
    if flux_reasons:
        terminalreporter.write_line(f"{len(flux_reasons)} Flux tests were skipped. {flux_reasons[0]}", yellow=True)
