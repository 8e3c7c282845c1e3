"""The site's pages: the references are as the code is today, and every page and link is there.

The strict build itself is a step of CI, as it needs the extra ``docs``.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess

import photoflux
from julias import ROOT

DOCS = ROOT / "docs"
HOME = "https://github.com/photoflux/photoflux"


def test_the_reference_of_the_command_line_is_current():
    spec = importlib.util.spec_from_file_location("commands", DOCS / "commands.py")
    assert spec is not None and spec.loader is not None
    commands = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(commands)
    assert commands.page() == commands.PAGE.read_text(encoding="utf-8"), "`python docs/commands.py` writes it anew"


def test_the_reference_of_julia_is_current(julia_command: tuple[list[str], dict[str, str]]):
    command, environment = julia_command
    script = DOCS / "julia_reference.jl"
    done = subprocess.run(
        [*command, str(script), "--print"], env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    page = DOCS.joinpath("reference", "julia.md").read_text(encoding="utf-8")
    assert done.stdout == page, "`julia docs/julia_reference.jl` writes it anew"


def test_the_reference_of_python_has_every_public_name_once():
    text = DOCS.joinpath("reference", "python.md").read_text(encoding="utf-8")
    listed = re.findall(r"^::: photoflux\.(?:\w+\.)?(\w+)$", text, re.MULTILINE)
    assert sorted([*listed, "__version__", "adopt"]) == sorted(photoflux.__all__)
    assert "`adopt`" in text


def test_every_page_is_in_the_navigation():
    settings = ROOT.joinpath("mkdocs.yml").read_text(encoding="utf-8")
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    listed = re.findall(r"[\w/]+\.md\b", settings.partition("\nnav:\n")[2])
    assert len(listed) == len(set(listed)) and set(listed) == pages | {"changes.md"}  # made from CHANGELOG.md


def test_links_between_files_lead_somewhere():
    broken = []
    for page in [*DOCS.rglob("*.md"), *ROOT.glob("*.md")]:
        text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\(([^)\s#:]+)(?:#[^)\s]*)?\)", text):
            if not (page.parent / link).exists():
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert broken == []


def test_one_address_is_named_everywhere():
    for name in ("pyproject.toml", "mkdocs.yml", "CITATION.cff", "README.md", "docs/index.md"):
        found = re.findall(r"https://github\.com/[\w-]+/[\w-]+", ROOT.joinpath(name).read_text(encoding="utf-8"))
        assert found and set(found) == {HOME}, name
    version = re.search(r"^version: (.+)$", ROOT.joinpath("CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None and version[1] == photoflux.__version__
