"""Draws the rooms of the Python package from its imports, as they stand in CONTRIBUTING.

The tests hold the code against the order of the rooms here.

`python docs/rooms.py` writes the picture into CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "photoflux"
PAGE = ROOT / "CONTRIBUTING.md"

# From the lowest to the highest: a module imports from its own room and from those before it.
ROOMS = (
    "errors",
    "system",
    "data",
    "model",
    "features",
    "engines",
    "runs",
    "thresholds",
    "filtering",
    "serving",
    "reviewing",
    "reporting",
    "verification",
    "comparison",
    "doctor",
    "api",
    "estimator",
    "cli",
    "__main__",
    "__init__",
)


def modules() -> dict[str, Path]:
    """Return every module by its name within the package, such as ``runs.run``; a room's ``__init__`` by the room's."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return found


def imports() -> dict[str, set[str]]:
    """Return for every module those of the package that it imports, within functions too."""
    known = modules()
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            wanted = []
            if isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                assert node.level == 0, f"{path}: imports are absolute"
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                wanted = [n if n.removeprefix("photoflux.") in known else node.module for n in inner]
            for target in wanted:
                if target == "photoflux" or target.startswith("photoflux."):
                    found[name].add(target.partition(".")[2] or "__init__")
        found[name].discard(name)
    return found


def room(module: str) -> str:
    """Return the room of a module."""
    return module.partition(".")[0]


def upward() -> list[str]:
    """Return the imports that go to a higher room."""
    return [
        f"{module} imports {target}"
        for module, targets in imports().items()
        for target in sorted(targets)
        if ROOMS.index(room(target)) > ROOMS.index(room(module))
    ]


def check_circles() -> None:
    """Raise graphlib's `CycleError`, which names the modules, if some import each other in a circle."""
    TopologicalSorter(imports()).prepare()


def picture() -> str:
    """Return the rooms as a Mermaid diagram; an arrow is left out where a longer way says it too."""
    uses: dict[str, set[str]] = {name: set() for name in ROOMS}
    for module, targets in imports().items():
        uses[room(module)] |= {room(target) for target in targets} - {room(module)}
    reached: dict[str, set[str]] = {}
    for name in ROOMS:
        reached[name] = uses[name].union(*(reached[other] for other in uses[name]))
    lines = ["```mermaid", "flowchart BT"]
    for name in ROOMS:
        if name.startswith("__"):
            continue
        path = PACKAGE / name / "__init__.py"
        is_room = path.is_file()
        text = ast.get_docstring(ast.parse((path if is_room else PACKAGE / f"{name}.py").read_text(encoding="utf-8")))
        first = (text or "").splitlines()[0].rstrip(".").replace('"', "'").replace("`", "")
        lines.append(f'    {name}["<b>{name}{"/" if is_room else ".py"}</b><br>{first}"]')
    for name in ROOMS:
        direct = uses[name] - set().union(*(reached[other] for other in uses[name]))
        lines += [f"    {name} --> {other}" for other in sorted(direct, key=ROOMS.index) if not name.startswith("__")]
    return "\n".join([*lines, "```"]) + "\n"


def placed(text: str, script: str, content: str) -> str:
    """Return CONTRIBUTING's text with what a script makes in its place."""
    before, begin, rest = text.partition(f"<!-- made by docs/{script} -->\n")
    _, end, after = rest.partition("<!-- end -->")
    assert begin and end, f"CONTRIBUTING has no place for docs/{script}"
    return before + begin + content + end + after


def write(script: str, content: str) -> None:
    """Put what a script makes into CONTRIBUTING."""
    PAGE.write_text(placed(PAGE.read_text(encoding="utf-8"), script, content), encoding="utf-8")


if __name__ == "__main__":
    write("rooms.py", picture())
