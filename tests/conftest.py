"""What all tests share: the engines, small data, and the last lines: on which Julias, and what was skipped."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from disks import Disk, small_disks
from faults import name_faults, write_page
from julias import julia_of_engine, line_of_julias
from photoflux.engines.flux.engine import FluxEngine
from photoflux.engines.keras.engine import KerasEngine, why_unavailable
from photoflux.engines.keras.worker import Worker
from photoflux.errors import FluxError

NO_FLUX = "Flux cannot run here"
# Begun first, in this order: the longest test, the Julia suite, for which Julia compiles the package on one core; what
# the other process does meanwhile without Julia; and tests of minutes, so that neither is left alone with them.
FIRST = (
    "test_julia.py",
    *("test_fits.py", "test_traces.py", "test_worker.py", "test_parallel.py"),
    *("test_tour.py", "test_wheel.py"),
)


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


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """Write an empty image for each figure: they are most of a short fit's time, and tests of reports look at them."""

    def empty(figure: Figure, file: Any, format: str | None = None, **_: Any) -> None:
        if format == "svg":
            file.write("<svg></svg>")
        else:
            Path(file).write_bytes(b"")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", empty)
        yield


@pytest.fixture(scope="module")
def one_worker() -> Iterator[None]:
    """Have the Keras engines of a file share a process: to start one takes ten times a short fit.

    Only where the process that it would start has the same environment and path. Each request says all that it needs.
    """
    kept: list[tuple[object, Worker]] = []
    begin = KerasEngine.__init__

    def share(engine: KerasEngine) -> None:
        begin(engine)
        named = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
        here = (named, list(sys.path))
        if kept and kept[0][1]._busy.locked():
            return
        if not kept or kept[0][0] != here:
            end()
            kept.append((here, engine._process))
        engine._process = kept[0][1]

    def end() -> None:
        while kept:
            kept.pop()[1].close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KerasEngine, "__init__", share)
        patch.setattr(KerasEngine, "close", lambda engine: None)
        yield
        end()


@pytest.fixture(scope="session")
def julia_command(flux: FluxEngine) -> tuple[list[str], dict[str, str]]:
    """Command and environment of the Julia that runs in this process, with this checkout's package."""
    julia = julia_of_engine(flux.julia)
    return julia.command, julia.environment


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of `FIRST` first, and have each report name the faults of its test."""
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))
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
