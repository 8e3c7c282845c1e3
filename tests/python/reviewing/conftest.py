"""What the tests of a review share: a job with uncertain images of all kinds, and its page."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from photoflux.filtering import filter as filter_module
from photoflux.filtering.decision import Decision
from photoflux.filtering.ledger import Ledger
from photoflux.reviewing.items import Sitting, of_job
from photoflux.reviewing.pictures import Pictures
from piles import make_run, run_job
from reviews import PORT, TOKEN, Page, make_scans


def _work(folder: Path, **options: Any) -> Path:
    """Make a job whose images from a score of 0.2 to 0.8 are uncertain; returns its folder."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(filter_module, "decision_of", lambda *_: Decision(0.5, 0.2, 0.8, "dark", "light", "given"))
        run_job(make_run(folder / "run"), make_scans(folder / "scans"), folder / "out", workers=1, **options)
    return folder / "out"


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job's folder, which no test may change."""
    return _work(tmp_path_factory.mktemp("done"))


@pytest.fixture
def job(done: Path, tmp_path: Path) -> Path:
    """A copy of it; the originals are those of all."""
    return Path(shutil.copytree(done, tmp_path / "out"))


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Path]:
    """Make a job with originals of its own."""
    return lambda **options: _work(tmp_path, **options)


@pytest.fixture
def open_page() -> Iterator[Callable[..., Page]]:
    """Open the page of a job's folder."""
    testclient = pytest.importorskip("starlette.testclient", reason="needs starlette and httpx")
    from photoflux.reviewing.app import app_of

    opened: list[Page] = []

    def open_it(folder: Path, decision: str = "uncertain", everything: bool = False) -> Page:
        ledger, pictures = Ledger(folder, writes=True), Pictures(1)
        sitting = Sitting(folder, ledger, of_job(ledger, decision, everything))
        app = app_of(sitting, pictures, TOKEN, PORT)
        client = testclient.TestClient(app, base_url=f"http://127.0.0.1:{PORT}")
        opened.append(Page(client, sitting, pictures, ledger))
        return opened[-1]

    yield open_it
    for page in opened:
        with closing(page.ledger):
            page.client.close()
            page.pictures.end()
