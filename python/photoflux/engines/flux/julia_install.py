"""Runs juliapkg, which finds or downloads Julia and its packages: ``python -m photoflux.engines.flux.julia_install``.

A process of its own, so that what juliapkg and Julia print can be read, shown and searched for the cause of a failure,
whatever has become of the standard streams of the process that asks. ANSWER is a file: one JSON object, ``{}`` or the
kind of the failure and its text.
"""

from __future__ import annotations

import errno
import http.client
import json
import ssl
import subprocess
import sys
import urllib.error
from pathlib import Path

NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def describe(error: BaseException) -> dict[str, str]:
    """Return the kind of a failure of juliapkg and its text.

    The kind is one of `photoflux.errors.FLUX_PROBLEMS`, or ``"julia"``: a Julia that juliapkg started has failed, and
    its output says why; or ``"other"``.
    """
    text = str(error).strip() or type(error).__name__
    if isinstance(error, subprocess.CalledProcessError):
        return {"kind": "julia", "text": f"{Path(error.cmd[0]).name} ended with exit code {error.returncode}"}
    # Before the numbers are looked at: those of an SSLError are its own.
    network = (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError)
    if isinstance(error, network):
        return {"kind": "network", "text": text}
    if isinstance(error, OSError) and error.errno in NOT_WRITABLE:
        return {"kind": "not_writable", "text": text}
    return {"kind": "other", "text": text}


def main() -> None:
    """Resolve, and answer."""
    answer: dict[str, str] = {}
    try:
        import juliapkg

        juliapkg.resolve(julia_args=sys.argv[2:])
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BaseException as error:  # juliapkg reports some failures by SystemExit
        answer = describe(error)
    # Not atomic: into the scratch folder of the process that waits for this one.
    Path(sys.argv[1]).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
