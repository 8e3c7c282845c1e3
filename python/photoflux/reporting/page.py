"""What every report shares: tables, figures, templates and writing the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photoflux.errors import RunError, SettingError
from photoflux.reporting.i18n import ENGLISH, Translator
from photoflux.system.atomic import write_text
from photoflux.system.names import user_path
from photoflux.system.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure


NAME = "report.html"


@dataclass(frozen=True)
class Table:
    """A table of text; the first cell of a row names it.

    Attributes
    ----------
    head : sequence of str
        The titles of the columns.
    rows : sequence of sequence of str
        The cells, as many in each row as there are titles.
    numbers : collection of int
        Which columns hold numbers, and go to the right.
    caption, note : str
        Above and below it.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()
    caption: str = ""
    note: str = ""


@dataclass(frozen=True)
class Drawing:
    """A figure in a page.

    Attributes
    ----------
    svg : str
        An SVG element, as `photoflux.reporting.styling.svg_of` returns it.
    alt : str
        What it shows, for who cannot see it.
    title, caption : str
        Above and below it.
    """

    svg: str = field(repr=False)
    alt: str
    title: str = ""
    caption: str = ""


def drawing(figure: Figure, alt: str, title: str = "", caption: str = "") -> Drawing:
    """Return a matplotlib figure as one of a page."""
    from photoflux.reporting.styling import svg_of

    return Drawing(svg_of(figure), alt, title, caption)


def environment(package: str = "photoflux.reporting", folder: str = "templates") -> Environment:
    """Return the templates of a package, with the base page and the macros of this one; everything is escaped.

    ``tr`` is English unless given.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    ours = PackageLoader("photoflux.reporting", "templates")
    made = Environment(
        loader=ChoiceLoader([PackageLoader(package, folder), ours]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.globals.update(tr=ENGLISH, version=__version__)
    return made


def rendered(template: str, tr: Translator, **values: Any) -> str:
    """Return a template of this package with its values put in."""
    return environment().get_template(f"{template}.jinja").render(tr=tr, **values)


def notebook_html(
    heading: str,
    tables: Sequence[Table],
    *,
    facts: Sequence[tuple[str, str]] = (),
    conclusion: str = "",
    drawings: Sequence[Drawing] = (),
) -> str:
    """Return what a notebook shows of an object: a heading, tables, names with values, a sentence and figures."""
    values = {"heading": heading, "tables": tables, "facts": facts, "conclusion": conclusion, "drawings": drawings}
    return rendered("notebook.html", ENGLISH, **values)


def destination(folder: Path, path: str | Path | None) -> Path:
    """Return the file of a report: ``report.html`` in the folder unless another is given.

    Raises
    ------
    SettingError
        If a folder is given.
    """
    file = folder / NAME if path is None else user_path(path)
    if file.is_dir():
        raise SettingError(f"`path` must be a file to write, such as {file / NAME}; received a folder: {path}.")
    return file


def write_page(path: Path, html: str) -> None:
    """Write a page under a temporary name and rename it.

    Raises
    ------
    RunError
        If it cannot be written.
    """
    try:
        # A file name need not be UTF-8; what is not is shown by its code.
        write_text(path, html)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}. Choose another file.") from error
