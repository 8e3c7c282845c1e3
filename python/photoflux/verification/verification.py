"""The result of a verification: its text, its table in a notebook, JSON and HTML page."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from photoflux.data.shape import Shape
from photoflux.errors import RunError
from photoflux.reporting.page import Table, environment, notebook_html, write_page
from photoflux.system.names import user_path
from photoflux.verification.checks import Part
from photoflux.verification.proof import BATCH, Proof

WIDTH = 118
PAGE = "verify.html"
NUMBERS = ("largest", "relative", "tolerance")


@dataclass(frozen=True)
class Verification:
    """The proofs of some variants on one dataset; prints as tables, and shows as tables in a notebook.

    Attributes
    ----------
    data : str
        The dataset's name.
    shape : Shape
        Channels, height and width of its images.
    classes : int
        How many classes it has.
    steps : int
        Length of the loss curves.
    versions : dict
        For ``flux`` and ``keras``, what computed.
    proofs : list of Proof
        One a variant.
    """

    data: str
    shape: Shape
    classes: int
    steps: int
    versions: dict[str, dict[str, str]]
    proofs: list[Proof]

    @property
    def passed(self) -> bool:
        """Whether every check of every variant did."""
        return all(proof.passed for proof in self.proofs)

    @property
    def verdict(self) -> str:
        """One sentence."""
        checks = [(proof.variant.name, check) for proof in self.proofs for check in proof.checks]
        failed = [f"{variant}: {check.name}" for variant, check in checks if not check.passed]
        if not failed:
            return f"All {len(checks)} checks hold: Flux and Keras compute the same numbers."
        return f"{len(failed)} of {len(checks)} checks FAIL ({', '.join(failed)})."

    @property
    def setting(self) -> str:
        """What was run on what, in words."""
        flux, keras = self.versions["flux"], self.versions["keras"]
        features = self.shape[1:] == (1, 1)
        inputs = f"{self.shape.channels} features an image" if features else f"images of {self.shape}"
        return (
            f"{self.data}: {inputs}, {self.classes} classes, "
            f"{self.steps} steps of {BATCH} images; "
            f"Flux {flux['flux']} on Julia {flux['julia']} ({flux['threads']} threads) "
            f"against Keras {keras['keras']} on TensorFlow {keras['tensorflow']}"
        )

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        console = Console(file=text, width=WIDTH, highlight=False, markup=False, color_system=None)
        console.print(self.setting, soft_wrap=True)
        for proof in self.proofs:
            console.print(_text_table(proof))
            console.print(_note(proof), soft_wrap=True)
        console.print(self.verdict, soft_wrap=True)
        return text.getvalue().rstrip()

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "passed": self.passed,
            "data": self.data,
            "image": list(self.shape),
            "classes": self.classes,
            "steps": self.steps,
            "batch": BATCH,
            "versions": self.versions,
            "variants": {
                proof.variant.name: {
                    "passed": proof.passed,
                    "seconds": round(proof.seconds, 1),
                    "left_out_of_gradient": proof.left_out,
                    "checks": [check.as_dict() for check in proof.checks],
                    "curves": {name: values.tolist() for name, values in vars(proof.curves).items()},
                }
                for proof in self.proofs
            },
        }

    def write(self, folder: str | Path) -> Path:
        """Write ``verify.html`` into a folder, made if need be, and return its path.

        Parameters
        ----------
        folder : str or Path
            The folder.

        Raises
        ------
        RunError
            If it cannot be written.
        """
        from photoflux.reporting.plots import plot_agreement

        page = made(folder) / PAGE
        proofs = [
            (proof, plot_agreement(**vars(proof.curves)), checks_table(proof), parts_table(proof))
            for proof in self.proofs
        ]
        template = environment("photoflux.verification", "").get_template(f"{PAGE}.jinja")
        write_page(page, template.render(verification=self, proofs=proofs))
        return page

    def _repr_html_(self) -> str:
        from markupsafe import Markup

        verdict = Markup("<strong>{}</strong>").format(self.verdict)
        return notebook_html(self.setting, [checks_table(proof) for proof in self.proofs], conclusion=verdict)


def made(folder: str | Path) -> Path:
    """Return a folder for the page, made if need be.

    Raises
    ------
    RunError
        If it cannot be made.
    """
    folder = user_path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made: {error}. Choose another folder with `out`.") from error
    return folder


def checks_table(proof: Proof) -> Table:
    """Return a row for each check of a proof, with the comparison that is nearest to its tolerance."""
    rows = [
        [f"{number}. {check.name}", *_numbers(check.shown), check.why, _answer(check.passed)]
        for number, check in enumerate(proof.checks, 1)
    ]
    caption = f"{proof.variant.name}: {'every check holds' if proof.passed else 'a check fails'}"
    head = ["check", "where it differs most", *NUMBERS, "why this tolerance", ""]
    return Table(head, rows, (2, 3, 4), caption, _note(proof))


def parts_table(proof: Proof) -> Table:
    """Return a row for each comparison of a proof."""
    rows = [
        [check.name if part is check.parts[0] else "", part.name, *_numbers(part)[1:], _answer(part.passed)]
        for check in proof.checks
        for part in check.parts
    ]
    return Table(["check", "compared", *NUMBERS, ""], rows, (2, 3, 4))


def _numbers(part: Part) -> tuple[str, str, str, str]:
    """Return where the difference is, and the largest, the relative one and the tolerance, as texts."""
    return (
        part.name if part.absolute else "nowhere",
        f"{part.absolute:.2g}",
        f"{part.relative:.1g}",
        f"{part.tolerance:.2g}",
    )


def _answer(passed: bool) -> str:
    from markupsafe import Markup

    return "holds" if passed else Markup("<strong>fails</strong>")


def _text_table(proof: Proof) -> Any:
    from rich import box
    from rich.table import Table as TextTable

    table = TextTable(
        title=f"{proof.variant.name} ({proof.seconds:.0f} s)", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("check", ratio=2)
    table.add_column("where it differs most", ratio=1)
    for name in NUMBERS:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why this tolerance", ratio=2)
    table.add_column("", no_wrap=True)
    for check, row in zip(proof.checks, checks_table(proof).rows, strict=True):
        table.add_row(*row[:-1], "holds" if check.passed else "FAILS")
    return table


def _note(proof: Proof) -> str:
    if not proof.left_out:
        return f"Gradient and step: all {BATCH} images of the first batch."
    return (
        f"Gradient and step: {BATCH - proof.left_out} of {BATCH} images of the first batch; in the others "
        "an activation is within rounding of a kink of ReLU or max-pooling, where two correct results differ."
    )
