"""Finds the cause of a failure in Julia's output; a new kind of failure gets its pattern here."""

from __future__ import annotations

import re

CAUSE_LINES = 6

_ERROR = re.compile(r"^(?:ERROR|caused by|error): ", re.MULTILINE)
_WRAPPERS = re.compile(r"^(?:(?:ERROR|caused by|error|LoadError|InitError|TaskFailedException|nested task error): ?)+")
# These only say that what stands elsewhere has failed.
_CONSEQUENCE = re.compile(r"Failed to precompile|The following .* failed to precompile|failed process: ")
_END = re.compile(r"^\s*(?:Stacktrace:|Stacktrace|in expression starting at|\[\d+\] )")
_WHERE = re.compile(r"^in expression starting at (.+)$", re.MULTILINE)

_NO_NETWORK = re.compile(
    "|".join((
        r"could ?n[o']t resolve (?:host|proxy)",
        r"RequestError",
        r"failed to (?:connect|resolve|clone|fetch|download)",
        r"network is unreachable|no route to host",
        r"connection (?:refused|reset|timed out)|operation timed out|timeout was reached",
        r"(?:unable to|could not) download",
        r"no (?:General )?registries (?:have|has) been",
        r"SSL (?:certificate|connect)",
        r"HTTP/\d\S* (?:403|404|407|5\d\d)",
    )),
    re.IGNORECASE,
)  # fmt: skip
_NOT_WRITABLE = re.compile(
    r"\b(?:EACCES|EROFS|EPERM|ENOSPC|EDQUOT)\b|permission denied|read-only file system|no space left|quota exceeded|"
    r"IOError: mk(?:dir|path)",
    re.IGNORECASE,
)


def root_cause(text: str) -> str:
    """Return the lines of Julia's output that say what went wrong first, without stack traces.

    An error in a file names the file and line. Of several errors the first that is not merely the consequence of
    another is taken; without any line that begins with ``ERROR:``, the text's own beginning.

    Examples
    --------
    >>> print(root_cause('''ERROR: LoadError: UndefVarError: `x` not defined
    ... Stacktrace:
    ...  [1] top-level scope
    ... in expression starting at /p/src/P.jl:3
    ... ERROR: Failed to precompile P
    ... Stacktrace: …'''))
    UndefVarError: `x` not defined (/p/src/P.jl:3)
    """
    starts = [match.start() for match in _ERROR.finditer(text)] or [0]
    blocks = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    own = [block for block in blocks if not _CONSEQUENCE.match(_WRAPPERS.sub("", block))]
    block = (own or blocks)[0]
    lines: list[str] = []
    for line in block.strip().splitlines():
        if _END.match(line):
            break
        if line.strip():
            lines.append(line.rstrip())
    if not lines:
        return "it gave no reason"
    lines[0] = _WRAPPERS.sub("", lines[0])
    cause = "\n".join(lines[:CAUSE_LINES]) + ("\n…" if len(lines) > CAUSE_LINES else "")
    where = _WHERE.search(block)
    return f"{cause} ({where[1]})" if where else cause


def kind_of(text: str) -> str:
    """Return which of `photoflux.errors.FLUX_PROBLEMS` Julia's output speaks of."""
    if _NOT_WRITABLE.search(text):
        return "not_writable"
    return "network" if _NO_NETWORK.search(text) else "package"
