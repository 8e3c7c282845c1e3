"""Each file is written by the one atomic helper of its language, or beside the code stands why not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "photoflux"
HELPER = PACKAGE / "system" / "atomic.py"
REASON = "# Not atomic: "
# Methods and functions that write, or may: the argument that says where, counted from 0; -1: what is before the dot.
WRITERS = {
    "write_text": -1,
    "write_bytes": -1,
    "touch": -1,
    "symlink_to": -1,
    "hardlink_to": -1,
    "save": 0,
    "savez": 0,
    "savefig": 0,
    "export": 0,
    "save_file": 1,
    "to_csv": 0,
    "to_json": 0,
    "to_parquet": 0,
    "ParquetWriter": 0,
    "NamedTemporaryFile": 0,
    "mkstemp": 0,
    "truncate": 0,
    "copy": 1,
    "copy2": 1,
    "copyfile": 1,
    "copytree": 1,
    "move": 1,
    "link": 1,
    "symlink": 1,
}
# Their `save` and `export` are not those of a library.
OTHERS = {"api", "engine", "finisher"}
MODULES = {"os", "shutil", "tempfile"}
MODE = re.compile("[rwaxbt+]{1,3}")


def place_of(call: ast.Call) -> ast.expr | None:
    """Where a call writes; None if it writes no file."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    owned = ast.unparse(owner) if owner is not None else ""
    if name == "connect" and owned == "sqlite3":
        return None if "mode=ro" in ast.unparse(call) else call.args[0]
    if name in ("open", "memmap", "open_memmap"):
        return _opened(call, owner, owned)
    if name not in WRITERS or (owner is None and name in ("write_text", "copy", "link", "export", "save", "move")):
        return None
    if owned in OTHERS:
        return None
    if name in ("copy", "link", "symlink", "truncate", "move") and owned not in MODULES:
        return None
    at = WRITERS[name]
    if at == -1:
        # `atomic.write_text` is the helper itself.
        return None if owned == "atomic" else owner
    return call.args[at] if len(call.args) > at else call


def _opened(call: ast.Call, owner: ast.expr | None, owned: str) -> ast.expr | None:
    words = [node.value for part in [*call.args, *call.keywords] for node in ast.walk(part) if _is_text(node)]
    writes = any(MODE.fullmatch(word) and set(word) & set("wax+") for word in words)
    if owned == "os":
        flags = ast.unparse(call.args[1])
        writes = any(flag in flags for flag in ("O_WRONLY", "O_RDWR", "O_CREAT"))
    if not writes or "devnull" in ast.unparse(call):
        return None
    return call.args[0] if owner is None or owned in ("os", "np", "io", "gzip", "npy") else owner


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_temporary(place: ast.expr) -> bool:
    return any("temporary" in name for name in re.findall(r"\w+", ast.unparse(place)))


def handles(tree: ast.AST) -> set[str]:
    """The names of what is in memory, or an open file of a temporary name."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.value) in ("io.BytesIO()", "io.StringIO()"):
            found |= {ast.unparse(target) for target in node.targets}
        if isinstance(node, ast.withitem) and node.optional_vars is not None:
            call = node.context_expr
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(".open") and _is_temporary(call.func):
                found.add(ast.unparse(node.optional_vars))
    return found


def direct(text: str) -> Iterator[tuple[int, str]]:
    """Yield the writes in a module that are not to a temporary name, and have no reason beside them."""
    lines = text.splitlines()
    tree = ast.parse(text)
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.Module)]:
        known = handles(function)
        for call in _own_calls(function):
            place = place_of(call)
            if place is None or _is_temporary(place) or ast.unparse(place) in known:
                continue
            above = lines[call.lineno - 2].strip()
            if not above.startswith(REASON) and REASON not in lines[call.lineno - 1]:
                yield call.lineno, ast.unparse(call)


def _own_calls(function: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls of a function, or of a module, and not of functions in it."""
    nodes = list(ast.iter_child_nodes(function))
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef):
            continue
        if isinstance(node, ast.Call):
            yield node
        nodes += ast.iter_child_nodes(node)


def test_every_write_of_python_is_atomic_or_says_why_not():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {call}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != HELPER
        for line, call in direct(path.read_text(encoding="utf-8"))
    ]
    assert found == [], f"write to the temporary name of `atomic.writing_file`, or say above `{REASON}…`"


@pytest.mark.parametrize(
    "line",
    [
        "path.write_text('x')",
        "path.write_bytes(b'x')",
        "(folder / 'a').open('w', newline='')",
        "path.open(mode='ab' if start else 'wb')",
        "open(path, 'r+b')",
        "np.save(folder / 'a.npy', array)",
        "safetensors.numpy.save_file(arrays, path)",
        "save_file(arrays, path)",
        "image.save(path, 'PNG')",
        "drawn.savefig(path)",
        "model.export(path, format='onnx')",
        "np.memmap(path, 'f4', 'w+')",
        "npy.open_memmap(path, mode='w+')",
        "path.touch()",
        "os.open(path, os.O_WRONLY | os.O_CREAT)",
        "os.link(source, target)",
        "shutil.copyfile(source, target)",
        "sqlite3.connect(path)",
        "table.to_parquet(path)",
    ],
)
def test_a_direct_write_is_found(line):
    within = f"def f(path):\n    {line}\n"
    assert len(list(direct(within))) == 1
    assert list(direct(within.replace("    ", f"    {REASON}it is a test.\n    "))) == []
    assert list(direct(re.sub(r"\b(path|folder|target)\b", "temporary", within))) == []


@pytest.mark.parametrize(
    "line",
    [
        "path.open()",
        "open(path, 'rb')",
        "np.memmap(path, 'f4', 'r')",
        "atomic.write_text(path, 'x')",
        "write_text(path, 'x')",
        "x.copy()",
        "sqlite3.connect('file:x?mode=ro', uri=True)",
        "os.open(os.devnull, os.O_RDWR)",
        "file = io.BytesIO()\n    image.save(file)",
        "with temporary.open('wb') as file:\n        save_file({}, file)",
    ],
)
def test_what_writes_no_file_is_not_found(line):
    assert list(direct(f"def f(path):\n    {line}\n")) == []


# In Julia, `replace_file` in weights.jl is the one helper. A call writes if it opens a file so, or is given a path.
OF_JULIA = re.compile(
    r"""\bopen\(.*"[wa]\+?"|\bwrite\((joinpath|path|file)|\b(touch|cp|mv|symlink|hardlink|mktemp)\("""
    r"""|\b(JSON|TOML)\.print\((?!io)"""
)


def test_every_write_of_julia_is_atomic_or_says_why_not():
    found = []
    for path in sorted((ROOT / "julia").rglob("*.jl")):
        text = path.read_text(encoding="utf-8")
        helper = re.search(r"^function replace_file\(.*?^end$", text, re.DOTALL | re.MULTILINE)
        lines = (text.replace(helper[0], "\n" * helper[0].count("\n")) if helper else text).splitlines()
        for number, line in enumerate(lines):
            # An example in a docstring is the user's.
            if line.startswith("julia> "):
                continue
            if OF_JULIA.search(line) and not lines[number - 1].strip().startswith(REASON):
                found.append(f"{path.relative_to(ROOT)}:{number + 1}: {line.strip()}")
    assert found == [], f"write by `replace_file`, or say above `{REASON}…`"
