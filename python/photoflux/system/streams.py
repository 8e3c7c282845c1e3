"""Standard streams that are closed, missing or replaced are made safe for libraries that need them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress


def open_closed_descriptors() -> None:
    """Open the null device on each of the descriptors 0, 1 and 2 that is closed, for good.

    The next file that the process opens would be given the number otherwise, and what Julia prints would go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened == number:
                os.set_inheritable(number, True)
            else:  # another thread has taken or freed a number meanwhile
                os.dup2(opened, number)
                os.close(opened)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Keep stdout for results: send what is printed to it, by this process and its children, to stderr meanwhile.

    A descriptor that was closed when Python started may belong to any file by now. It is the null device meanwhile,
    and for good to a Julia that starts meanwhile, which makes copies of the three.
    """
    open_closed_descriptors()
    if sys.stdout is not None:
        # A notebook's or a test's own object has no descriptor, and may have no `flush` either.
        with suppress(AttributeError, OSError, ValueError):
            sys.stdout.flush()
    absent = [number for number, stream in enumerate((sys.__stdin__, sys.__stdout__, sys.__stderr__)) if stream is None]
    kept = {number: os.dup(number) for number in {1, *absent}}
    null = os.open(os.devnull, os.O_RDWR)
    for number in absent:
        os.dup2(null, number)
    os.close(null)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)
