"""Runs a review: opens what is labelled, serves the page until a signal ends it, and says what there is then."""

from __future__ import annotations

import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

from photoflux.errors import DataError, ServingError, SettingError, unknown_name
from photoflux.filtering.decision import UNCERTAIN
from photoflux.filtering.ledger import NAME, Ledger
from photoflux.reviewing.app import app_of
from photoflux.reviewing.items import Sitting, Wanted, decision_of_job, of_job, of_run
from photoflux.reviewing.likely_errors import open_labels
from photoflux.reviewing.pictures import Pictures
from photoflux.reviewing.reviewed import Reviewed
from photoflux.runs.progress import Display
from photoflux.runs.run import load_run
from photoflux.serving.server import ServerThread, address_of, bind, deaf
from photoflux.system.names import printable

_LOOK = 0.2  # seconds between two looks whether the server has ended
_SECONDS = 5.0  # that requests under way have at the end


def review(
    folder: Path, decision: str | None, everything: bool, port: int, on_ready: Callable[[str], None], display: Display
) -> Reviewed:
    """Serve the page of a folder until SIGINT, SIGTERM or SIGHUP; see `photoflux.api.review`."""
    if threading.current_thread() is not threading.main_thread():
        raise SettingError("A review runs in the main thread of its process, where signals come. Call `review` there.")
    ledger, wanted = _opened(folder, decision, everything, display)
    with closing(ledger):
        sitting = Sitting(folder, ledger, wanted)
        found, _ = sitting.counts()
        if found:
            with bind("127.0.0.1", port) as listener:
                token, pictures = secrets.token_urlsafe(24), Pictures()
                app = app_of(sitting, pictures, token, listener.getsockname()[1])
                server = ServerThread(app, listener, _SECONDS)
                try:
                    _serve(server, lambda: on_ready(f"{address_of(listener)}/{token}/"))
                    pictures.end()  # nobody waits for them
                    _wait_for_the_end(server)
                finally:
                    pictures.end()
                    server.end()
        return Reviewed(folder, *sitting.counts(), sitting.labels())


def _opened(folder: Path, decision: str | None, everything: bool, display: Display) -> tuple[Ledger, Wanted]:
    if decision is not None and everything:
        raise SettingError("Give one of `decision` and `everything`; received both.")
    if (folder / NAME).is_file():
        Ledger(folder).close()  # of a format that is read
        ledger = Ledger(folder, writes=True)
        try:
            decided = decision_of_job(ledger)
            names = [decided["positive"], decided["negative"], UNCERTAIN]
            if decision is not None and decision not in names:
                raise unknown_name("decision", decision, names)
            return ledger, of_job(ledger, decision or UNCERTAIN, everything)
        except BaseException:
            ledger.close()
            raise
    if (folder / "run.json").is_file():
        if decision is not None:
            raise SettingError(
                f"`decision` is of filter jobs; {printable(folder)} is a run, of which likely label errors are shown. "
                "Leave it out."
            )
        run = load_run(folder)
        ledger = open_labels(run, display)
        return ledger, of_run(run.classes, everything)
    state = f"it has neither {NAME} nor run.json" if folder.is_dir() else "there is no such folder"
    raise DataError(
        f"{printable(folder)} cannot be reviewed: {state}. Give the folder of a `photoflux filter`, or of a run."
    )


def _serve(server: ServerThread, on_ready: Callable[[], None]) -> None:
    with _ending_on_signals(server) as ended:
        with deaf():
            server.start()
        on_ready()
        while not ended.wait(_LOOK):
            if not server.running:
                raise ServingError("The server of the page has failed, and the review has ended. The labels are kept.")


def _wait_for_the_end(server: ServerThread) -> None:
    late = time.monotonic() + _SECONDS
    while server.running and time.monotonic() < late:
        time.sleep(0.02)


@contextmanager
def _ending_on_signals(server: ServerThread) -> Iterator[threading.Event]:
    """Have a signal end the review when its requests are answered."""
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        server.stop()
        ended.set()

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, end) for number in numbers if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
