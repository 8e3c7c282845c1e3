"""A filter job: scores what of the pile is not done, puts pictures into their folders, and keeps the ledger."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from photoflux.data.images.formats import RefusedError
from photoflux.data.images.helpers import MEMORY_LARGE, Source
from photoflux.data.images.members import Member
from photoflux.data.images.parallel import SECONDS
from photoflux.data.images.protected import Protected
from photoflux.data.walking import is_folder
from photoflux.errors import DataError
from photoflux.filtering.decision import Decision
from photoflux.filtering.ledger import DONE, FAILED, Item, Ledger, SourceKey
from photoflux.filtering.naming import place_of, root_labels
from photoflux.filtering.pile import Entry, Pile
from photoflux.filtering.placing import LIST, WritePage, put, take_away, write_page
from photoflux.filtering.results import write_results
from photoflux.filtering.scoring import Scored, Scorer
from photoflux.runs.progress import Display
from photoflux.runs.run import Run
from photoflux.system import atomic
from photoflux.system.names import as_json, printable

DESCRIPTION = "filter.json"
# What the ledger keeps of a job.
JOB = {
    "run": str | None, "model": str | None, "decision": dict[str, Any] | None, "how": str | None,
    "pile": list[str] | None, "roots": dict[str, str] | None, "started": str | None,
}  # fmt: skip
# A failure of these kinds may pass: such an item is tried again when the job is started again, so often in all.
_PASSING = (
    "cannot be read:",
    "its archive cannot be read:",
    "the archive cannot be read:",
    "the folder cannot be read:",
    "the file has gone",
    "the decoder ",
    "takes longer than",
    "needs more memory",
    "its picture could not be written:",
)
_ATTEMPTS = 3
_BEAT = 2.0  # seconds between two notes of how far the job is
_SETTLED = 2.0  # seconds for which a file that arrives must not have changed
_RECENT = 60.0  # seconds that the rate is of
_POLL = 2.0  # seconds between two looks at a pile that is watched


def fingerprint_of_model(run: Run, weights: str) -> str:
    """Return what a run's scores depend on, weights, backbone and size of its images, as 16 hexadecimal digits."""
    backbone = "" if run.backbone is None else f"{run.backbone['fingerprint']} {run.backbone['precision']}"
    return hashlib.sha256(f"{weights} {backbone} {run.shape} {run.classes}".encode()).hexdigest()[:16]


class _Begun(NamedTuple):
    """A source of which not all items are recorded: its number in the ledger, the pages that are, earlier pictures."""

    source: int
    new: bool
    pages: set[int]
    places: dict[int, str]


class Job:
    """A job in its folder, which this process has claimed.

    Parameters
    ----------
    folder : Path
        The job's folder.
    run : Run
        The run.
    model : str
        Its `fingerprint_of_model`.
    decision : Decision
        What a score means.
    pile : Pile
        What is filtered.
    how : str
        What becomes of the pictures, see `photoflux.filtering.placing.HOW`.
    display : Display
        Shows progress.
    """

    def __init__(
        self, folder: Path, run: Run, model: str, decision: Decision, pile: Pile, how: str, display: Display
    ) -> None:
        self.folder, self.run, self.model, self.decision = folder, run, model, decision
        self.pile, self.how, self._display = pile, how, display
        self.ledger = Ledger(folder, writes=True)
        self._reader = Ledger(folder)
        self._staging = folder / ".placing"
        # The page of a bad file must not end the job. A daemonic process can have none of its own.
        self._protected = Protected(write_page, seconds=SECONDS, memory=MEMORY_LARGE)
        self._write_page: WritePage = write_page if multiprocessing.current_process().daemon else self._protected
        self.copied = 0  # pictures that could not be linked
        self._changed = True  # since the results were written
        self._begun: dict[int, _Begun] = {}
        self._given: dict[int, Entry] = {}
        self._next = 0
        self._unread: deque[tuple[int, Entry]] = deque()
        self._met = 0
        self._folders: set[str] = set()  # of the pictures, that are there
        self._items, self._beaten = 0, time.monotonic()
        self._recent = deque([(self._beaten, 0, 0)])
        self.total: int | None = None

    def begin(self) -> None:
        """Write what the job is, and mark what is stale: of another model, threshold or way to place."""
        before = self.ledger.table("job", JOB) or {}
        labels = root_labels(list(dict.fromkeys([*(before.get("roots") or {}), *self.pile.roots])))
        # Those of an earlier start stay as they are: pictures lie there.
        labels |= before.get("roots") or {}
        job = {
            "run": str(self.run.path.resolve()),
            "model": self.model,
            "decision": self.decision.as_dict(),
            "how": self.how,
            "pile": [printable(path) for path in self.pile.paths],
            "roots": labels,
            "started": before.get("started") or _now(),
        }
        self._labels = labels
        atomic.remove(self._staging)
        self._staging.mkdir()
        with self.ledger.transaction():
            self.ledger.keep(job=job)
            self._mark_stale(before)
            if before.get("model") != self.model:
                self.ledger.keep(shifts=None)
        atomic.write_text(self.folder / DESCRIPTION, as_json({"format": 1, **job, "complete": False}, indent=1) + "\n")

    def _mark_stale(self, before: dict[str, Any]) -> None:
        ledger, decision = self.ledger, self.decision
        ledger.mark_stale("state = 'done' AND model <> ?", (self.model,))
        if before.get("how") not in (None, self.how):
            ledger.mark_stale("state = 'done' AND decision <> ?", (decision.negative,))
        if before.get("decision") not in (None, decision.as_dict()):
            self._decide_again()
        for begins in _PASSING:
            ledger.mark_stale(
                "state = 'failed' AND substr(error, 1, ?) = ? AND attempts < ?", (len(begins), begins, _ATTEMPTS)
            )
        ledger.open_stale()

    def _decide_again(self) -> None:
        """Decide by the new threshold what is scored; what needs a picture that is not there becomes stale."""
        for source, page, decision, place in self.ledger.decided_otherwise(self.decision.of):
            if self.how != LIST and self.decision.folder(decision) is not None:
                self.ledger.mark_stale("source = ? AND page = ?", (source, page))
                continue
            if place is not None:
                self._take_away(place)
            self.ledger.move(source, page, decision)

    def work(self, scorer: Scorer, *, watch: bool = False) -> None:
        """Go through the pile until all is done, or with `watch` until it is interrupted."""
        with atomic.scratch("members") as scratch, self._counting():
            self.beat(0)
            while True:
                with closing(scorer.scored(self._sources(scratch, watch))) as found:
                    for items in found:
                        self._record(items)
                self._record([])
                self.beat(0, last=not watch)
                if not watch:
                    return
                if self._changed:
                    self.finish(complete=False)
                time.sleep(_POLL)

    def _sources(self, scratch: Path, watch: bool) -> Iterator[Source]:
        """Yield what is to be decoded; called in the thread that decodes."""
        newest = time.time_ns() - int(_SETTLED * 1e9)

        def passed_over(key: SourceKey, size: int, mtime_ns: int) -> bool:
            # What has just changed may be being written; the next look takes it.
            return (watch and mtime_ns > newest) or self._reader.is_done(key, size, mtime_ns)

        for entry in self.pile.entries(passed_over, scratch):
            self._met = self.pile.files
            if entry.source is None:
                self._unread.append((self._next, entry))
                continue
            self._given[self._next] = entry
            self._next += 1
            yield entry.source

    def _record(self, items: list[Scored]) -> None:
        """Place the pictures of items, and write them, and what could not be opened before them, into the ledger."""
        with self.ledger.transaction():
            for item in items:
                self._one(item)
                if item.last:
                    self._flush(item.number + 1)
            if not items:
                self._flush(self._next)
        self.beat(len(items))

    def _flush(self, finished: int) -> None:
        """Record what was met that is not opened, as far as all sources before it are recorded."""
        while self._unread and self._unread[0][0] <= finished:
            _, entry = self._unread.popleft()
            source, new = self.ledger.source(entry.key, entry.size, entry.mtime_ns)
            failed = [Item(0, FAILED, "", None, None, None, "", entry.reason, None)] if entry.reason else []
            self._keep(source, failed)
            self._complete(source, new, {item.page for item in failed})

    def _one(self, scored: Scored) -> None:
        entry = self._given[scored.number]
        whole = scored.last and scored.number not in self._begun
        if scored.number not in self._begun:
            source, new = self.ledger.source(entry.key, entry.size, entry.mtime_ns, whole=whole)
            self._begun[scored.number] = _Begun(source, new, set(), {} if new else self.ledger.places_of(source))
        source, new, pages, places = self._begun[scored.number]
        pages.add(scored.page)
        item = self._item(entry, scored, places.get(scored.page))
        self._keep(source, [item])
        if scored.last:
            if not (new and whole):
                self._complete(source, new, pages)
            del self._begun[scored.number], self._given[scored.number]
            self._delete_copy(entry)

    def _item(self, entry: Entry, scored: Scored, before: str | None) -> Item:
        """Decide about an item, and put its picture where it belongs."""
        known = scored.sha256, scored.width, scored.height, scored.score
        if scored.score is None:
            if before is not None:
                self._take_away(before)
            return Item(scored.page, FAILED, *known, "", scored.error, None)
        decision = self.decision.of(scored.score)
        folder = None if self.how == LIST else self.decision.folder(decision)
        place, error = None, ""
        if folder is not None:
            place = self._free_place(folder, entry, scored.page, before)
            assert entry.source is not None
            try:
                self.copied += put(
                    entry.source, scored.page, self.folder / place, self.how, self._staging, self._write_page
                )
            except RefusedError as refused:
                place, error = None, f"its picture could not be written: {refused}"
            except OSError as failure:
                raise DataError(
                    f"{printable(self.folder / place)} could not be written: {failure.strerror or failure}. Free "
                    "space, or see to the permissions, and start the job again: it goes on where it stopped."
                ) from failure
        if before is not None and before != place:
            self._take_away(before)
        return Item(scored.page, FAILED if error else DONE, *known, "" if error else decision, error, place)

    def _free_place(self, folder: str, entry: Entry, page: int, before: str | None) -> str:
        places = place_of(self._labels.get(entry.root, ""), entry.below, entry.key, page, ".png")
        plain, marked = (f"{folder}/{place}" for place in places)
        # Where an archive has a member and a folder of the same name, not even the marked name can be had.
        known = (plain, marked, f"{folder}/conflicts/{marked.rpartition('/')[2]}")
        if before in known and self._can_be(before):
            return before
        return next(place for place in known if self._can_be(place) and not self.ledger.is_taken(place))

    def _can_be(self, place: str) -> bool:
        """Make the folder of a place; False where there is a file of its name, or a folder of the place's."""
        folder = place.rpartition("/")[0]
        if folder not in self._folders:
            try:
                (self.folder / folder).mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                return False
            self._folders.add(folder)
        return not is_folder(self.folder / place)

    def _take_away(self, place: str) -> None:
        take_away(self.ledger.inside(place), self.folder)
        self._folders.clear()  # it may have been the last in its folder

    def _keep(self, source: int, items: list[Item]) -> None:
        self.ledger.record(source, items, self.model)
        self._changed = True

    def _complete(self, source: int, new: bool, pages: set[int]) -> None:
        if not new:
            for place in self.ledger.forget_others(source, pages):
                self._take_away(place)
        self.ledger.complete(source)

    def _delete_copy(self, entry: Entry) -> None:
        if isinstance(entry.source, Member) and entry.source.file != entry.source.archive:
            entry.source.file.unlink(missing_ok=True)

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """Count the files of the pile meanwhile, so that it is known how many are left."""
        over = threading.Event()

        def count() -> None:
            # Decoding begins first.
            if not over.wait(3.0):
                self.total = self.pile.count(lambda: over.wait(0.005))

        thread = threading.Thread(target=count, daemon=True, name="photoflux-counting")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def keep_shifts(self, shifts: list[dict[str, Any]]) -> None:
        """Keep in which respects the pile is unlike what the run was trained on."""
        self.ledger.keep(shifts=shifts)

    def finish(self, *, complete: bool) -> dict[str, Any]:
        """Write the results as they are now, and return what ``filter.json`` says."""
        written = write_results(self.folder, self.ledger)
        self._changed = False
        values = {
            "format": 1,
            **self.ledger.meta("job"),
            "complete": complete,
            "written": _now(),
            "counts": self.ledger.counts(),
            "failures": self.ledger.failures(),
            "ignored": self.pile.ignored.as_dict(),
            "copied": self.copied,
            "shifts": self.ledger.shifts(),
            "results": written,
        }
        atomic.write_text(self.folder / DESCRIPTION, as_json(values, indent=1) + "\n")
        return values

    def beat(self, items: int, *, last: bool = False) -> None:
        """Note how far the job is, at most every two seconds."""
        self._items += items
        now = time.monotonic()
        if now - self._beaten < _BEAT and self._items and not last:
            return
        self._beaten = now
        files = max(0, self._met - len(self._given))
        self._recent.append((now, self._items, files))
        while len(self._recent) > 2 and now - self._recent[0][0] > _RECENT:
            self._recent.popleft()
        (began, items_before, files_before), *_ = self._recent
        passed = max(now - began, 1e-9)
        left = None
        if self.total is not None and files > files_before:
            left = max(0, self.total - files) * passed / (files - files_before)
        self.ledger.keep(
            progress={
                "machine": atomic.machine(),
                "pid": os.getpid(),
                "process": atomic.started(os.getpid()),
                "updated": _now(),
                "rate": (self._items - items_before) / passed,
                "files": files,
                "total": files if last else self.total,
                "seconds_left": left,
                "ended": last,
            }
        )
        if self.total is not None and not last:
            rate = (self._items - items_before) / passed
            self._display.step(min(files, self.total), max(self.total, 1), "Filtering", f"{rate:.0f} images/s")

    def close(self) -> None:
        """Close the ledger, and remove what was only for the time of the work."""
        self._protected.end()
        atomic.remove(self._staging)
        self._reader.close()
        self.ledger.close()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
