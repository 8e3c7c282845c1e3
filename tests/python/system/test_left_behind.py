"""What a killed process was writing is removed by the next one that writes there, and nothing of one that is alive."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks processes that kill themselves")

# One process imports everything once, and its children are killed in the middle of one kind of writing each.
SCRIPT = """
import os, signal, sys
from types import SimpleNamespace
from pathlib import Path
import numpy as np
import photoflux
from photoflux.features.dataset import _make
from photoflux.filtering.ledger import Ledger
from photoflux.model.weights import write_arrays
from photoflux.reporting.page import write_page
from photoflux.runs.folder import amend, write_description, writing
from photoflux.system import atomic, claims

root = Path(sys.argv[1])
run = photoflux.load_run(sys.argv[2])
arrays = np.random.default_rng(0).integers(0, 255, (40, 8, 8, 1), np.uint8), np.arange(40) % 2

def place(name):
    (root / name).mkdir(exist_ok=True)
    return root / name

def replaced_run(folder):
    with writing(folder / "r") as temporary:
        write_description(temporary, run)

class Pictures(SimpleNamespace):
    def __len__(self):
        return len(self.origin)

def features(folder):
    pictures = Pictures(prepared=prepared, origin=np.arange(40))
    store = SimpleNamespace(read=lambda rows: np.zeros((len(rows), 3), "<f4"))
    with claims.claim(folder / "features"):
        _make(folder / "features", pictures, SimpleNamespace(features=3), {}, [(store, np.arange(40))])

KINDS = {
    "prepared dataset": lambda folder: photoflux.prepare(arrays, folder / "d", progress=False),
    "features": features,
    "run": replaced_run,
    "amended run": lambda folder: amend(photoflux.load_run(folder / "r"), notes=["x"]),
    "weights": lambda folder: write_arrays(folder / "w", {"a": np.zeros(3, np.float32)}),
    "page": lambda folder: write_page(folder / "page.html", "<p>"),
    "ledger": lambda folder: Ledger(folder, writes=True).close(),
}

def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

prepared = photoflux.prepare(arrays, root / "prepared", progress=False)
replaced_run(place("amended run"))
for name, write in KINDS.items():
    folder = place(name)
    child = os.fork()
    if child == 0:
        atomic.sync_file = Path.replace = killed
        write(folder)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL, name
    left = list(folder.rglob(".*.tmp*"))
    assert left, name
    mine = atomic.sibling(left[0])
    mine.touch()
    write(folder)
    if name == "ledger":  # a job writes its description next
        atomic.write_text(folder / "job.json", "{}")
    assert list(folder.rglob(".*")) == [mine], (name, list(folder.rglob("*")))
print("all")
"""


@pytest.mark.fault(
    "SIGKILL while a dataset, features, a run, weights or a page are written",
    costs="that one: what was there stays, and what was half written is removed by the next command there",
)
def test_every_kind_of_writing(run, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(run.path)], capture_output=True, text=True, timeout=240
    )
    assert done.stdout == "all\n", done.stderr
