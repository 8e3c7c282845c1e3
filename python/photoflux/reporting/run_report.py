"""`photoflux.report` for a run: checks the arguments and writes the page."""

from __future__ import annotations

from pathlib import Path

from photoflux.reporting.i18n import translator
from photoflux.reporting.page import destination, write_page
from photoflux.runs.run import Run, load_run


def report(run: str | Path | Run, path: str | Path | None = None, *, lang: str = "en") -> Path:
    """Write a run's report and return the file, as `photoflux.report` says.

    What cannot be made, because the dataset is gone or the run has no scores, is named on the page with the reason.
    """
    from photoflux.reporting.run_page import page_of

    tr = translator(lang)
    run = run if isinstance(run, Run) else load_run(run)
    path = destination(run.path, path)
    write_page(path, page_of(run, tr))
    return path
