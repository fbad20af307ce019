"""Reading the DynamoDB table: by key or by a range of keys, page by page, never by a scan."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from typing import Any, Final

from gpudev_hub.core.commit import HistoryEntry, Slot
from gpudev_hub.core.live_state import ClaimKey
from gpudev_hub.core.model import Millis, Reservation
from gpudev_hub.stores import records

from . import items
from .calls import Calls
from .folded import Folded
from .items import STRIDE, Item

_READ_AT_ONCE: Final = 100
"""Items of a BatchGetItem, by DynamoDB's limit."""


class Reader:
    """Reads of one table; good for several threads. Everything raises ``StoreUnavailable``."""

    def __init__(self, table: str, client: Any, calls: Calls) -> None:
        self._table = table
        self._client = client
        self._calls = calls

    def head(self) -> Item | None:
        """The head's item; none in a table that was never opened."""
        return self.get(items.HEAD)

    def get(self, key: Item) -> Item | None:
        """The item of this key, read consistently."""
        answer = self._calls.read(
            lambda: self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True)
        )
        found: Item | None = answer.get("Item")
        return found

    def get_all(self, keys: list[Item]) -> list[Item]:
        """The items that there are of these, in no order."""
        found: list[Item] = []
        while keys:
            some, keys = keys[:_READ_AT_ONCE], keys[_READ_AT_ONCE:]
            asked = {self._table: {"Keys": some, "ConsistentRead": True}}
            answer = self._calls.read(partial(self._client.batch_get_item, RequestItems=asked))
            found += answer["Responses"].get(self._table, [])
            keys += answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", [])
        return found

    def query(self, condition: str, values: Item, *, limit: int | None = None, **more: Any) -> Iterator[Item]:
        """Items in the order of their keys, page by page; ``limit``: items of a page.

        Read consistently, unless it is from an index.
        """
        arguments: Item = {
            "TableName": self._table,
            "KeyConditionExpression": condition,
            "ExpressionAttributeValues": values,
            "ConsistentRead": "IndexName" not in more,
            **more,
        }
        if limit is not None:
            arguments["Limit"] = limit
        while True:
            answer = self._calls.read(lambda: self._client.query(**arguments))
            yield from answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            arguments["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def ended(
        self, folded: Folded, subject: str | None, before: int | None, limit: int
    ) -> tuple[list[Reservation], int | None]:
        """Ended reservations, latest first, and the cursor of the next page."""
        recent, latest = folded.recent, (1 << 59) if before is None else before
        found = chain(
            (
                (position, record)
                for position, record in reversed(recent.ended)
                if position < latest and subject in (None, record.owner.subject)
            ),
            self._ended_before(subject, min(latest, (recent.n + 1) * STRIDE), limit + 1),
        )
        page = list(islice(found, limit + 1))
        more = len(page) > limit
        page = page[:limit]
        return [record for _, record in page], page[-1][0] if more else None

    def _ended_before(
        self, subject: str | None, before: int, limit: int
    ) -> Iterator[tuple[int, Reservation]]:
        """Those that have items of their own."""
        if subject is None:
            end = items.ended_key(before)
            found = self.query(
                "pk = :pk AND sk < :end",
                {":pk": end["pk"], ":end": end["sk"]},
                limit=limit,
                ScanIndexForward=False,
            )
        else:
            found = self.query(
                "subject = :subject AND #position < :end",
                {":subject": {"S": subject}, ":end": {"N": str(before)}},
                limit=limit,
                ScanIndexForward=False,
                IndexName=items.BY_SUBJECT,
                ExpressionAttributeNames={"#position": "position"},
            )
        for item in found:
            yield items.number(item, "position"), items.reservation_in(item)

    def find(self, folded: Folded, reservation: str) -> Reservation | None:
        """The last record of a reservation, live or ended."""
        live = folded.state.reservations.get(reservation)
        if live is not None:
            return live
        # In this order it is found while it goes from one to the next.
        for _, record in folded.recent.ended:
            if record.id == reservation:
                return record
        log = self.get(items.log_key(reservation))
        if log is None or "ended" not in log:
            return None
        ended = self.get(items.ended_key(items.number(log, "ended")))
        return None if ended is None else items.reservation_in(ended)

    def history(
        self, folded: Folded, reservation: str | None, after: int, limit: int
    ) -> tuple[list[HistoryEntry], int | None]:
        """Changes in commit order, and the cursor of the next page."""
        first = max(0, after) // STRIDE
        if reservation is None:
            found = (entries for _, _, entries in self.commits_from(first, limit + 2))
            return _page(chain.from_iterable(found), after, limit)
        log = folded.logs.get(reservation)
        commits = list(log.commits) if log is not None else self._commits_of(reservation)
        return _page(self._entries_of(reservation, commits[bisect_left(commits, first) :]), after, limit)

    def _commits_of(self, reservation: str) -> list[int]:
        item = self.get(items.log_key(reservation))
        return [] if item is None else items.commits_in(item)

    def _entries_of(self, reservation: str, commits: list[int]) -> Iterator[tuple[int, HistoryEntry]]:
        for start in range(0, len(commits), _READ_AT_ONCE):
            found = self.get_all([items.history_key(n) for n in commits[start : start + _READ_AT_ONCE]])
            found += self.get_all([key for item in found for key in items.more_pieces(item)])
            found.sort(key=lambda item: items.text(item, "sk"))
            for _, _, entries in items.entries_in(found):
                for position, entry in entries:
                    if records.reservation_of(entry.change.record) == reservation:
                        yield position, entry

    def commits_from(
        self, n: int, limit: int | None = None
    ) -> Iterator[tuple[int, int, list[tuple[int, HistoryEntry]]]]:
        """Number, bytes and changes of each commit from ``n`` on; ``limit``: items of a page."""
        key = items.history_key(n)
        return items.entries_in(
            self.query("pk = :pk AND sk >= :first", {":pk": key["pk"], ":first": key["sk"]}, limit=limit)
        )

    def owners(self) -> dict[Slot, ClaimKey]:
        """The owners of all slots."""
        return dict(
            owned
            for item in self.query("pk = :pk", {":pk": {"S": "slots"}})
            for owned in items.slots_in(item)
        )

    def seek(self, at: Millis) -> int:
        """The cursor before the first commit at ``at`` or later.

        By halving: numbers of commits have no gaps, and time goes up with them.
        """
        head = self.head()
        last = 0 if head is None else items.number(head, "n")

        def at_of(n: int) -> Millis:
            item = self.get(items.history_key(n))
            assert item is not None, f"commit {n} of {last} has no history"
            return items.number(item, "at")

        return (1 + bisect_left(range(1, last + 1), at, key=at_of)) * STRIDE - 1


def _page(
    entries: Iterator[tuple[int, HistoryEntry]], after: int, limit: int
) -> tuple[list[HistoryEntry], int | None]:
    """The first entries later than a position, and the position of the last one if there are more."""
    page: list[tuple[int, HistoryEntry]] = []
    for position, entry in entries:
        if position > after:
            if len(page) == limit:
                return [entry for _, entry in page], page[-1][0]
            page.append((position, entry))
    return [entry for _, entry in page], None
