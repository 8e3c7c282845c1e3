"""The root cause in Julia's output."""

from __future__ import annotations

import pytest

from photoflux.engines.flux.causes import CAUSE_LINES, kind_of, root_cause

# What Julia 1.10 prints when a package's own file raises, and what `using` then raises.
PRECOMPILE = """ERROR: LoadError: LoadError: UndefVarError: `splitt` not defined
Stacktrace:
 [1] top-level scope
   @ /p/julia/precompile.jl:12
 [2] include(mod::Module, _path::String)
   @ Base ./Base.jl:495
in expression starting at /p/julia/precompile.jl:12
in expression starting at /p/src/PhotoFlux.jl:1
in expression starting at stdin:3
ERROR: Failed to precompile PhotoFlux [7f7d33f0-5f0a-4a5c-9a56-1c0d6f8f2b9e] to "/d/jl_x".
"""
# The same of Julia 1.12.
PRECOMPILE_12 = """ERROR: The following 1 direct dependency failed to precompile:

PhotoFlux

Failed to precompile PhotoFlux [7f7d33f0-5f0a-4a5c-9a56-1c0d6f8f2b9e] to "/d/jl_x" (ProcessExited(1)).
ERROR: LoadError: cannot assign a value to imported variable Base.split from module PhotoFlux
Stacktrace:
 [1] top-level scope
in expression starting at /p/julia/precompile.jl:19
"""
CASES = [
    (PRECOMPILE, "UndefVarError: `splitt` not defined (/p/julia/precompile.jl:12)"),
    (
        PRECOMPILE_12,
        "cannot assign a value to imported variable Base.split from module PhotoFlux (/p/julia/precompile.jl:19)",
    ),
    (
        "┌ Warning: old\n└ @ A\nERROR: ArgumentError: Package Flux not found in current path.\n- Run `import Pkg`\n",
        "ArgumentError: Package Flux not found in current path.\n- Run `import Pkg`",
    ),
    ("ERROR: InitError: could not load library\nStacktrace:\n [1] x", "could not load library"),
    ("no error at all\nmore", "no error at all\nmore"),
    ("", "it gave no reason"),
    ("ERROR: Failed to precompile P [1]\nStacktrace:\n [1] x", "Failed to precompile P [1]"),
]


@pytest.mark.parametrize(("output", "cause"), CASES, ids=range(len(CASES)))
def test_the_first_error_that_is_no_consequence(output, cause):
    assert root_cause(output) == cause


def test_a_long_message_is_cut():
    cause = root_cause("ERROR: Unsatisfiable\n" + "".join(f" ├─{number}\n" for number in range(50)))
    assert len(cause.splitlines()) == CAUSE_LINES + 1
    assert cause.endswith("\n…")


KINDS = [
    ("ERROR: RequestError: Could not resolve host: pkg.julialang.org", "network"),
    ("ERROR: failed to clone from https://github.com/x, error: GitError(Code:ERROR, Class:Net)", "network"),
    ('SystemError: opening file "/r/.julia/logs/manifest_usage.toml": Permission denied', "not_writable"),
    ("IOError: open: read-only file system (EROFS)", "not_writable"),
    ('IOError: mkdir("/x"; mode=0o777): no such file or directory (ENOENT)', "not_writable"),
    ("write: no space left on device (ENOSPC)", "not_writable"),
    ("UndefVarError: `x` not defined", "package"),
]


@pytest.mark.parametrize(("output", "kind"), KINDS)
def test_what_the_output_speaks_of(output, kind):
    assert kind_of(output) == kind
