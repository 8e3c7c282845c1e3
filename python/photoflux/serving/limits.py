"""What a service grants a request, and how much may wait; a limit is added or checked here."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from photoflux.data.checks import check_finite, check_whole
from photoflux.errors import ServingError, SettingError


@dataclass(frozen=True)
class Limits:
    """The limits of a service.

    Attributes
    ----------
    max_bytes : int
        Of the body of a request, 1024 or more.
    max_images : int
        That a request may hold, the pages of its files counted, 1 or more.
    queue : int
        Images that may wait for their answer, of all requests together, `max_images` or more.
    timeout : float
        Seconds for a request, from its head to its answer, 0.1 or more. A file may take half of them to decode.

    Raises
    ------
    SettingError
        If one is out of its range.
    """

    max_bytes: int = 64 << 20
    max_images: int = 64
    queue: int = 256
    timeout: float = 30.0

    def __post_init__(self) -> None:
        check_whole("`max_bytes`", self.max_bytes, 1024)
        check_whole("`max_images`", self.max_images, 1)
        check_whole("`queue`", self.queue, 1)
        if self.queue < self.max_images:
            raise SettingError(
                f"`queue` must be {self.max_images} or more, as many as `max_images` lets one request hold; "
                f"received: {self.queue}."
            )
        check_finite("`timeout`", self.timeout, "seconds, 0.1 or more", lambda seconds: seconds >= 0.1)


def need_libraries() -> None:
    """Raise a `ServingError` unless the libraries of the extra ``serve`` are installed."""
    names = {"starlette": "starlette", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
    names |= {"prometheus_client": "prometheus_client"}
    missing = [name for module, name in names.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ServingError(
            f"A service needs {', '.join(missing)}, not installed here. Install with: pip install 'photoflux[serve]'."
        )
