"""Receives the files of a multipart request on the disk, within the limits; what a request may hold is said here."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from photoflux.serving.jobs import Upload
from photoflux.serving.limits import Limits
from photoflux.system import atomic

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

# Parts of a form beside its files: such as a token, a file name, a button.
FIELDS = 16
_NAME = 255  # characters of a file's name that are answered
_numbers = itertools.count()


class Refusal(Exception):
    """A request is refused: the HTTP status and the reason in words."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


async def receive(request: Request, folder: Path, limits: Limits, take: Callable[[int], None]) -> list[Upload]:
    """Write the files of a request into a folder.

    Parameters
    ----------
    request : Request
        The request, ``multipart/form-data``; its parts without a file name are skipped.
    folder : Path
        Where; the caller removes what is returned, and on an error nothing is left.
    limits : Limits
        Of the body and the number of files.
    take : callable
        Is given the number of bytes that came, and may raise.

    Raises
    ------
    Refusal
        400 if it is no multipart form or has no file, 413 if it is too large, 415 if it is of another type, 503 if the
        disk takes no more.
    starlette.requests.ClientDisconnect
        If the client has gone.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise Refusal(415, "The body must be multipart/form-data with one or several files, as `curl -F image=@a.jpg`.")
    boundary = options.get(b"boundary")
    if not boundary:
        raise Refusal(400, "The Content-Type has no boundary.")
    too_large = Refusal(413, f"The body is larger than {limits.max_bytes} bytes.")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limits.max_bytes:
        raise too_large
    form = _Form(folder, limits.max_images)
    received = 0
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in request.stream():
            received += len(chunk)
            if received > limits.max_bytes:
                raise too_large
            take(len(chunk))
            parser.write(chunk)
        parser.finalize()
        return form.finished()
    except BaseException as error:
        form.close()
        discard(form.uploads)
        if isinstance(error, FormParserError):
            raise Refusal(400, f"The body is no multipart form: {error}") from error
        if isinstance(error, OSError) and not isinstance(error, TimeoutError):
            raise Refusal(503, f"The upload cannot be stored: {error.strerror}.") from error
        raise


def discard(uploads: list[Upload]) -> None:
    """Remove uploaded files."""
    for upload in uploads:
        atomic.remove(upload.path)


class _Form:
    """Takes what the parser finds: files go to the disk, other parts nowhere."""

    def __init__(self, folder: Path, most: int) -> None:
        self.uploads: list[Upload] = []
        self._folder, self._most, self._parts, self._complete = folder, most, 0, False
        self._file: BinaryIO | None = None
        self._header, self._value, self._disposition = b"", b"", b""

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._open,
            "on_part_data": self._data,
            "on_part_end": self.close,
            "on_end": self._end,
        }

    def finished(self) -> list[Upload]:
        if not self._complete:
            raise Refusal(400, "The body ends before its last part does.")
        # A browser sends a form in which no file was chosen as an empty one without a name.
        blank = [upload for upload in self.uploads if not upload.name and not upload.path.stat().st_size]
        discard(blank)
        self.uploads = [upload for upload in self.uploads if upload not in blank]
        if not self.uploads:
            raise Refusal(400, "The form has no file: a part needs a file name, as `curl -F image=@a.jpg` gives it.")
        return self.uploads

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > self._most + FIELDS:
            raise Refusal(413, f"The form has more than {self._most + FIELDS} parts.")
        self._disposition = b""

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _open(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"filename" not in options:
            return
        if len(self.uploads) == self._most:
            raise Refusal(413, f"The request has more than {self._most} files.")
        name = options[b"filename"]
        try:
            text = name.decode()
        except UnicodeDecodeError:
            text = name.decode("latin-1")
        path = self._folder / str(next(_numbers))
        # Not atomic: into the scratch folder of a request.
        self._file = path.open("xb")
        self.uploads.append(Upload(text[:_NAME], path))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])

    def _end(self) -> None:
        self._complete = True
