"""A filter job's folder from somebody else: nothing outside it is removed, and what is no ledger of ours is refused."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hostile import ODD, changed, places
from photoflux.data.labelled import read_labels
from photoflux.errors import DataError, PhotoFluxError
from photoflux.filtering.ledger import LEDGER, Ledger
from photoflux.filtering.status import status_of
from photoflux.reviewing.items import Sitting, of_job
from piles import LIGHT, make_run, picture, run_job

# Where a picture may be said to be that is not in the folder; on another system too.
OUTSIDE = ["../precious.png", "photos/../../precious.png", "/precious.png", "..\\precious.png", "C:precious.png", ""]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of three pictures, its pile and its run."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "pile").mkdir()
    for number in range(3):
        (folder / "pile" / f"{number}.png").write_bytes(picture(LIGHT, number))
    run_job(make_run(folder / "run"), folder / "pile", folder / "out", workers=1)
    with closing(Ledger(folder / "out", writes=True)) as ledger:
        assert ledger.label(1, 0, "light")
    return folder


@pytest.fixture
def folder(done: Path, tmp_path: Path) -> Path:
    shutil.copytree(done / "out", tmp_path / "out")
    (tmp_path / "precious.png").write_bytes(b"precious")
    return tmp_path / "out"


def change(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / LEDGER)) as base:
        base.execute(statement, values)
        base.commit()


def use(folder: Path) -> bool:
    """Do with a job's folder what needs no run; whether it was refused."""
    try:
        assert str(status_of(folder))
        with closing(Ledger(folder)) as ledger:
            list(ledger.results())
            sitting = Sitting(folder, ledger, of_job(ledger, "light", True))
            json.dumps([sitting.items(), sitting.counts(), sitting.labels()])
            for item in sitting.items():
                sitting.origin(item["source"], item["page"])
        read_labels([folder])
    except PhotoFluxError as error:
        assert len(str(error)) < 2000
        return True
    return False


@pytest.mark.parametrize("place", OUTSIDE)
def test_a_picture_that_is_said_to_be_outside_is_not_touched(done: Path, folder: Path, place: str):
    assert not use(folder)
    change(folder, "UPDATE items SET place = ?1, folded = ?1 WHERE source = 1", place)
    assert use(folder)
    # By another threshold the pictures are taken away.
    with pytest.raises(DataError, match=r"the picture '.*' is not in its folder. Use one that you know"):
        run_job(make_run(folder.parent / "run"), done / "pile", folder, workers=1, threshold=1.0)
    assert (folder.parent / "precious.png").read_bytes() == b"precious"


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER UPDATE ON sources BEGIN UPDATE items SET place = '../precious.png'; END",
        "CREATE VIEW v AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c",
    ],
)
def test_a_ledger_that_does_something_itself_is_refused(folder: Path, statement: str):
    change(folder, statement)
    with pytest.raises(DataError, match=r"is not as PhotoFlux writes it: it has [tv]\."):
        Ledger(folder)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE sources SET path = 7 WHERE id = 1",
        "UPDATE sources SET member = 'text'",
        "UPDATE items SET decision = x'ff'",
        "UPDATE items SET error = x'ff'",
        "UPDATE items SET width = 'wide'",
        "UPDATE items SET score = 'high'",
        "UPDATE items SET place = x'ff' WHERE source = 1",
        "UPDATE labels SET label = x'00'",
        "UPDATE labels SET sha256 = x'ff'",
        "UPDATE meta SET value = '{' WHERE key = 'job'",
        "UPDATE meta SET value = x'ff' WHERE key = 'format'",
        "UPDATE meta SET value = '[1]' WHERE key = 'shifts'",
        "DELETE FROM meta WHERE key = 'job'",
        "DROP TABLE labels",
    ],
)
def test_a_value_of_another_type(folder: Path, statement: str):
    change(folder, statement)
    assert use(folder)


@pytest.mark.parametrize("key", ["job", "progress"])
def test_whatever_is_kept_of_the_job(folder: Path, key: str):
    with closing(sqlite3.connect(folder / LEDGER)) as base:
        ((text,),) = base.execute("SELECT value FROM meta WHERE key = ?", (key,))
        refused = 0
        base.execute("PRAGMA synchronous=OFF")
        for place in places(json.loads(text)):
            for new in ODD:
                value = json.dumps(changed(json.loads(text), place, new))
                base.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))
                base.commit()
                refused += use(folder)
    assert refused > 100


def test_bytes_that_are_no_ledger(folder: Path):
    data = (folder / LEDGER).read_bytes()
    for found in (b"", b"x" * 5000, data[:100], data[:5000], data[:16] + b"\xff" * 84 + data[100:]):
        (folder / LEDGER).write_bytes(found)
        assert use(folder)
    (folder / LEDGER).write_bytes(data)
    assert not use(folder)


def test_a_name_of_a_table_that_is_no_text(folder: Path):
    data = (folder / LEDGER).read_bytes()
    (folder / LEDGER).write_bytes(data.replace(b"CREATE TABLE labels", b"CREATE TABLE l\xb3bels"))
    for read in (Ledger, status_of, lambda folder: read_labels([folder])):
        with pytest.raises(DataError):
            read(folder)
