"""`photoflux.report`: a run as one page."""

from __future__ import annotations

from pathlib import Path

from photoflux.reporting.page import destination, write_page
from photoflux.runs import Run, load_run
from photoflux.words import translator


def report(run: str | Path | Run, path: str | Path | None = None, *, lang: str = "en") -> Path:
    """Write a run's report: one page that needs nothing else, readable on a phone, on paper, in light and dark.

    It says in words how good the run is and where it overfits, and shows learning curves, errors with the images,
    the architecture, settings, data, versions and the command that repeats it. What cannot be made, because the
    dataset is gone or the run has no scores, is named with the reason.

    Parameters
    ----------
    run : str, Path or Run
        The run.
    path : str or Path, optional
        The file to write; None: ``report.html`` in the run's folder.
    lang : str
        ``"en"`` or ``"fr"``.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    RunError
        If the run cannot be read or the file cannot be written.
    SettingError
        If there is no such language, or `path` is a folder.
    """
    from photoflux.reporting.run_page import page_of

    words = translator(lang)
    run = run if isinstance(run, Run) else load_run(run)
    path = destination(run.path, path)
    write_page(path, page_of(run, words))
    return path
