"""Reading a log store: by key or by a range of keys, never everything."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TypeVar

from gpudev_hub.core.commit import HistoryEntry
from gpudev_hub.core.model import Millis, Reservation
from gpudev_hub.core.ports import Page

from . import checkpoint, items, records
from .backend import Backend
from .checkpoint import Folded, Log, NotWhole, check_owners
from .items import STRIDE, Head

_T = TypeVar("_T")
_AT_ONCE = 100
"""Most commits of one reservation that are read at once."""


def read_whole(backend: Backend, head: Head) -> Folded:
    """Return the state after the last commit of this head. Raises ``NotWhole``.

    A Query of DynamoDB promises consistency of each item, not of all: while a transaction is being applied it
    may show some items from before and some from after it. A table that was restored to a point in time may
    stay so for ever.
    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html#transaction-isolation
    """
    folded, last = checkpoint.read(backend, head), head.checkpoint_n
    for n, size, entries in commits_from(backend, last + 1):
        if n > head.n:
            raise NotWhole(f"commit {n} is in the history, and the head says that {head.n} was the last")
        if n != last + 1:
            break
        folded.apply(n, [entry.change for _, entry in entries], size)
        last = n
    if last != head.n:
        raise NotWhole(f"the head says that commit {head.n} was the last, and the history lacks it")
    owners = dict(owned for item in backend.query("slots") for owned in items.slots_in(item))
    check_owners(folded.state, owners)
    return folded


def ended(
    backend: Backend, folded: Folded, subject: str | None, before: int | None, limit: int
) -> Page[Reservation]:
    """Return ended reservations, latest first, and the cursor of the next page."""
    recent, latest = folded.ended, (1 << 59) if before is None else before
    unsaved = (
        (position, record)
        for position, record in reversed(recent)
        if position < latest and subject in (None, record.owner.subject)
    )
    first = min(latest, recent[0][0]) if recent else latest
    if subject is None:
        stored = backend.query("ended", last=items.ended_key(first - 1)[1], page=limit + 1, latest=True)
    else:
        stored = backend.ended_of(subject, first, limit + 1)
    return _page(chain(unsaved, map(items.ended_in, stored)), limit)


def _page(found: Iterable[tuple[int, _T]], limit: int) -> Page[_T]:
    """Return the first of these, and the position of the last one if there are more."""
    page = list(islice(found, limit + 1))
    return [one for _, one in page[:limit]], page[limit - 1][0] if len(page) > limit else None


def find(backend: Backend, folded: Folded, reservation: str) -> Reservation | None:
    """Return the last record of a reservation, live or ended."""
    live = folded.state.reservations.get(reservation)
    if live is not None:
        return live
    # In this order a reservation that ends meanwhile is found.
    for _, record in folded.ended:
        if record.id == reservation:
            return record
    log = backend.get(items.log_key(reservation))
    position = None if log is None else items.log_in(log).ended
    if position is None:
        return None
    item = backend.get(items.ended_key(position))
    return None if item is None else items.ended_in(item)[1]


def history(
    backend: Backend, folded: Folded, reservation: str | None, after: int, limit: int
) -> Page[HistoryEntry]:
    """Return changes in commit order, and the cursor of the next page."""
    first = max(0, after) // STRIDE
    if reservation is None:
        logged = (entries for _, _, entries in commits_from(backend, first, limit + 2))
        found: Iterator[tuple[int, HistoryEntry]] = chain.from_iterable(logged)
    else:
        # In this order nothing is missed when a checkpoint moves commits from one to the other.
        log = folded.logs.get(reservation, Log())
        saved = backend.get(items.log_key(reservation))
        commits = sorted({*(items.log_in(saved).commits if saved else ()), *log.commits})
        found = _entries_of(backend, reservation, commits[bisect_left(commits, first) :], limit + 2)
    return _page((one for one in found if one[0] > after), limit)


def _entries_of(
    backend: Backend, reservation: str, commits: list[int], most: int
) -> Iterator[tuple[int, HistoryEntry]]:
    """Yield the changes of a reservation in these commits; ``most``: how many are probably read."""
    at_once = min(most, _AT_ONCE)
    for start in range(0, len(commits), at_once):
        found = backend.get_all([items.history_key(n) for n in commits[start : start + at_once]])
        found += backend.get_all([key for item in found for key in items.more_pieces(item)])
        found.sort(key=lambda item: str(item["sk"]))
        for _, _, entries in items.commits_in(found, naming=reservation):
            for position, entry in entries:
                if records.reservation_of(entry.change.record) == reservation:
                    yield position, entry


def commits_from(backend: Backend, n: int, page: int | None = None) -> Iterator[items.Logged]:
    """Yield each commit from ``n`` on; ``page``: how many items to read at once."""
    return items.commits_in(backend.query("history", items.history_key(n)[1], page=page))


def seek(backend: Backend, at: Millis) -> int:
    """Return the cursor before the first commit at ``at`` or later.

    By binary search: numbers of commits have no gaps, and time goes up with them.
    """

    def at_of(n: int) -> Millis:
        key = items.history_key(n)
        return items.values_of(backend.get(key) or {}, key, items.Piece).at

    return (1 + bisect_left(range(1, items.read_head(backend).n + 1), at, key=at_of)) * STRIDE - 1
