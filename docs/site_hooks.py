"""What the site needs beside its pages: the changelog as one, and links that leave docs/ made links to the repository.

On GitHub a page of docs/ links to tests and sources by relative paths. The site has no such files, so a link to a file
that is there in the repository is rewritten; one to a file that is nowhere stays, and fails the strict build.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")
FENCE = re.compile(r"^ *(```|~~~)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add CHANGELOG.md as changes.md, its links as seen from docs/."""
    text = ROOT.joinpath("CHANGELOG.md").read_text(encoding="utf-8")
    text = LINK.sub(lambda found: f"](../{found[2]}{found[3] or ''})", text).replace("](../docs/", "](")
    files.append(File.generated(config, "changes.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page that leave the site, outside blocks of code."""
    folder = Path("docs", page.file.src_uri).parent

    def rewritten(found: re.Match[str]) -> str:
        target = os.path.normpath(folder / found[2])
        file = files.get_file_from_path(os.path.relpath(target, "docs"))
        in_site = file is not None and not file.inclusion.is_excluded()
        if in_site or not (ROOT / target).exists():
            return found[0]
        kind = "tree" if (ROOT / target).is_dir() else "blob"
        return f"]({config.repo_url.rstrip('/')}/{kind}/main/{target}{found[3] or ''})"

    lines, code = [], False
    for line in markdown.split("\n"):
        code ^= FENCE.match(line) is not None
        lines.append(line if code else LINK.sub(rewritten, line))
    return "\n".join(lines)


def on_config(config: MkDocsConfig) -> Any:
    """Serve and build anew when the changelog changes."""
    config.watch.append(str(ROOT / "CHANGELOG.md"))
    return config
