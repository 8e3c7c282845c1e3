"""Variants of a file of the user's own: read, refused, trained, proved and compared like those of the table."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

import photoflux
from photoflux import SettingError, Variant, summary, variant, variants
from photoflux.cli import app
from photoflux.model.variants import several_variants

pytestmark = pytest.mark.usefixtures("one_worker")
WIDE = """
[wide]
architecture = "dense"
hidden = [24]
penalty.hidden = { l1 = 0.001, l2 = 0.002 }
dropout = { hidden = 0.25 }
early_stopping = { patience = 3 }
epochs = 2
image_size = 16
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my.toml"
    path.write_text(WIDE)
    return path


def test_a_row_says_what_differs_from_a_variants_defaults(file: Path):
    expected = Variant(
        "wide", "dense", (24,), epochs=2, image_size=16, patience=3, dropout={"hidden": 0.25},
        penalty={"hidden": {"l1": 0.001, "l2": 0.002}},
    )  # fmt: skip
    assert variant(file) == variant(str(file)) == variant(f"{file}:wide") == variant(expected) == expected
    assert variants(file) == {"wide": expected}


def test_one_of_several_is_named_and_a_file_alone_stands_for_all(file: Path):
    file.write_text(WIDE + '[narrow]\narchitecture = "dense"\nhidden = [4]\n')
    assert variant(f"{file}:narrow").hidden == (4,)
    with pytest.raises(SettingError, match=r"my\.toml has wide, narrow: say which, as in .*my\.toml:wide\."):
        variant(file)
    with pytest.raises(SettingError, match=r"`variant` of .*my\.toml must be one of .* Did you mean narrow\?"):
        variant(f"{file}:narow")
    assert [v.name for v in several_variants(f"l2, {file},mlp")] == ["l2", "wide", "narrow", "mlp"]
    assert [v.name for v in several_variants([file, variant("l1"), f"{file}:wide"])] == ["wide", "narrow", "l1", "wide"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"has no variant\. Begin one with \[its-name\]"),
        ("[a", "is not TOML: "),
        ("\xff", "is not TOML: "),
        ("a = " + "[" * 5000, "is not TOML: "),
        ("#" * 2_000_000, "has more than 1048576 bytes"),
        ("a = 1", r"\[a\]: `a` must be a table \[name\] of architecture, "),
        ("[a]\nhidden = [1]", "must say its architecture; received: hidden"),
        ("[a]\narchitecture = 'dense'", "must say its hidden; received: architecture"),
        ("[a]\narchitecture = 'dense'\nhidden = []\ndropuot = {}", r"`field` of a variant.*Did you mean dropout\?"),
        ("[a]\narchitecture = 'dense'\nhidden = []\nname = 'b'", "`field` of a variant must be one of"),
        ("[a]\narchitecture = 'cnn'\nhidden = []", "Did you mean photo_cnn"),
        ("[a]\narchitecture = 'dense'\nhidden = [0]", "Each of `hidden`"),
        (
            "[a]\narchitecture = 'dense'\nhidden = []\nearly_stopping = 3",
            "`early_stopping` must be a table of `patience`",
        ),
        ("[a]\narchitecture = 'dense'\nhidden = []\nearly_stopping = {best = 3}", "`early_stopping` must be a table"),
        ("[a]\narchitecture = 'dense'\nhidden = []\nlearning_rate = nan", "`learning_rate` must be"),
        ("['a b']\narchitecture = 'dense'\nhidden = []", r"\[a b\]: `name` must be letters, digits"),
        ("[l2]\narchitecture = 'dense'\nhidden = []", "The name l2 is that of another variant of the table"),
    ],
)
def test_what_a_file_must_not_be(file: Path, text: str, message: str):
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingError, match=message):
        variants(file)


def test_a_file_that_is_not_there(tmp_path: Path):
    for path in (tmp_path / "no.toml", tmp_path):
        with pytest.raises(SettingError, match=r"cannot be read: .*Name a TOML file with variants"):
            variants(path)
    with pytest.raises(SettingError, match=r"no\.toml cannot be read: No such file"):
        photoflux.train(tmp_path / "no.toml")


def test_the_command_line_lists_sums_up_and_says_what_is_wrong(file: Path):
    def run(*words: str) -> Result:
        return CliRunner().invoke(app, words)

    listed = run("variants", str(file))
    assert listed.stdout.endswith("at most 2 epochs\n")  # it does not say for which data
    assert (listed.exit_code, listed.stdout.split(";")[0].split()) == (
        0,
        ["wide", "dense", "penalty", "hidden", "l1:", "0.001,", "l2:", "0.002"],
    )
    assert str(summary(file, classes=3)) in run("summary", str(file), "--classes", "3").stdout
    file.write_text("[a]\narchitecture = 'dens'\nhidden = []")
    refused = run("train", str(file))
    assert refused.exit_code == 2 and "Did you mean dense?" in refused.stderr


@pytest.mark.parametrize("engine", ["keras", "flux"])
def test_it_is_trained_reported_and_compared(file: Path, tmp_path: Path, engine: str, request: pytest.FixtureRequest):
    request.getfixturevalue(engine)
    run = photoflux.train(f"{file}:wide", "demo", engine=engine, out=tmp_path / "run", progress=False)
    assert (photoflux.load_run(run.path).variant, len(run.history)) == (variant(file), 2)
    assert "its variant is not of the table" in photoflux.report(run).read_text()
    found = photoflux.compare(
        "demo", ["mlp", file], seeds=1, epochs=1, image_size=16, engine=engine, out=tmp_path / "c", progress=False
    )
    assert [row.variant.name for row in found.results] == ["mlp", "wide"]
    assert f"--variants mlp,{file} --seeds 1" in found.command


def test_it_is_proved(file: Path, flux: object, keras: object):
    assert photoflux.verify(file, steps=2, image_size=16, progress=False).passed
