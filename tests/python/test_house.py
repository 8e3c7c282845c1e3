"""The rooms of the package: no import goes upwards or in a circle, few modules lie at the top, the picture is right."""

from __future__ import annotations

import importlib.util
import sys
from graphlib import CycleError
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def rooms(monkeypatch):
    spec = importlib.util.spec_from_file_location("rooms", ROOT / "docs" / "rooms.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "rooms", module)
    spec.loader.exec_module(module)
    return module


def test_no_import_goes_upwards_or_in_a_circle(rooms):
    assert len(rooms.imports()) > 100
    assert rooms.upward() == []
    rooms.check_circles()


def test_what_must_not_be_is_found(rooms, tmp_path, monkeypatch):
    package = tmp_path / "python" / "photoflux"
    (package / "data").mkdir(parents=True)
    (package / "errors.py").write_text("def f():\n    from photoflux.data import folder\n")
    (package / "data" / "__init__.py").write_text("")
    (package / "data" / "folder.py").write_text("import photoflux.errors\n")
    monkeypatch.setattr(rooms, "PACKAGE", package)
    assert rooms.upward() == ["errors imports data.folder"]
    with pytest.raises(CycleError):
        rooms.check_circles()


def test_few_modules_lie_at_the_top(rooms):
    top = [name for name in rooms.modules() if "." not in name and not (rooms.PACKAGE / name).is_dir()]
    assert len(top) <= 9
    assert {rooms.room(name) for name in rooms.modules()} == set(rooms.ROOMS)


def test_the_proofs_protocol_is_for_verification_alone(rooms):
    users = {module for module, targets in rooms.imports().items() if "engines.proof" in targets}
    assert {rooms.room(module) for module in users} == {"engines", "verification"}


def test_the_picture_in_contributing_is_of_today(rooms):
    text = rooms.PAGE.read_text(encoding="utf-8")
    assert rooms.placed(text, "rooms.py", rooms.picture()) == text, "`python docs/rooms.py` draws it anew"
