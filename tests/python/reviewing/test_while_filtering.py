"""Labels are given while the job runs in another process: both go on, and neither loses anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import piles
from photoflux.filtering.ledger import Ledger
from photoflux.filtering.results import COLUMNS
from piles import DARK, make_run, picture, run_job
from reviews import Page


def test_a_job_and_a_review_write_one_ledger(tmp_path: Path, open_page: Callable[..., Page]):
    pile, out, run = tmp_path / "pile", tmp_path / "out", make_run(tmp_path / "run")
    pile.mkdir()
    for number in range(400):
        (pile / f"{number:03}.png").write_bytes(picture(DARK, number))
    # Each batch of images waits, so that the job is not over before labels are given.
    environment = os.environ | {"PILES_SLOW": "0.2", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(piles.__file__), str(run.path), str(pile), str(out), json.dumps({"workers": 1})]
    job = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        while job.poll() is None and not _found(out):
            time.sleep(0.02)
        page = open_page(out, everything=True)
        given = {}
        while job.poll() is None or not given:
            for name, item in list(page.items().items())[:20]:
                label = "light" if len(given) % 2 else "dark"
                assert page.label(item, label).status_code == 200
                given[name] = label
        output, _ = job.communicate(timeout=120)
    finally:
        job.kill()
        job.wait()
    assert (job.returncode, output) == (0, "{'dark': 400}\n")
    assert page.labels() == given
    run_job(run, pile, tmp_path / "alone", workers=1)
    assert (out / "results.csv").read_bytes() == (tmp_path / "alone" / "results.csv").read_bytes()
    assert (out / "results.csv").read_text().startswith(",".join(COLUMNS))


def _found(out: Path) -> bool:
    """Say whether the job has recorded anything."""
    if not (out / "filter.json").is_file():
        return False
    ledger = Ledger(out)
    try:
        return bool(ledger.counts())
    finally:
        ledger.close()
