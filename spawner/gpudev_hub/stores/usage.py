"""The usage sums, as compressed JSON: one item per day, found by month, and a head.

| pk | sk | what |
|---|---|---|
| ``usage`` | ``head`` | number of the last commit in the sums, first and last day, what is open |
| ``usage#2026-11`` | ``2026-11-29`` | the sums of one day, compressed |
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import fields
from datetime import date
from operator import attrgetter
from typing import Any, Final

import msgspec

from gpudev_hub.core.ports import StoreUnavailable
from gpudev_hub.core.usage import (
    Day,
    SavedUsage,
    Sums,
    UsageDay,
    UsageHead,
    calendar_day,
    day_number,
    month_of,
    months,
)

from .backend import Action, Backend, Item, Key, Write, reading
from .items import HEAD, compressed, key_in, values_of
from .writes import batches

_KEY: Final[Key] = ("usage", "head")
_Row = tuple[str, str, int, int, int, int, int, int, int, int, int, int, dict[str, int]]
"""The key of a row, and its sums in the order of the fields of ``Sums``."""
_ROWS: Final = msgspec.json.Decoder(list[_Row])
_SUMS: Final = attrgetter(*(field.name for field in fields(Sums)))


class _HeadItem(msgspec.Struct):
    head: bytes


class _DayItem(msgspec.Struct):
    n: int
    rows: bytes


def encode_day(saved: UsageDay) -> bytes:
    """Return the rows of a day as compressed JSON."""
    return compressed([(*key, *_SUMS(sums)) for key, sums in saved.rows.items()])


def decode_day(day: Day, n: int, data: bytes) -> UsageDay:
    """Return the day that ``encode_day`` was given."""
    rows = {(row[0], row[1], row[2]): Sums(*row[3:]) for row in _ROWS.decode(zlib.decompress(data))}
    return UsageDay(day, n, rows)


def encode_head(head: UsageHead) -> bytes:
    """Return the head as compressed JSON, which has no tuples as keys: claims become a list."""
    values = {field.name: getattr(head, field.name) for field in fields(head)}
    return compressed({**values, "claims": [(*key, claim) for key, claim in head.claims.items()]})


def decode_head(data: bytes) -> UsageHead:
    """Return the head that ``encode_head`` was given."""
    values = msgspec.json.decode(zlib.decompress(data), type=dict[str, Any])
    claims = msgspec.convert(values.get("claims"), list[tuple[str, int, Any]])
    values["claims"] = {(reservation, attempt): claim for reservation, attempt, claim in claims}
    return msgspec.convert(values, UsageHead)


def transactions(head: UsageHead, days: Sequence[UsageDay], epoch: int, most: int) -> list[list[Write]]:
    """Return what to write, in order: the days first, and the head last. All are for this epoch only.

    ``most``: bytes of data in one item. Raises ``StoreUnavailable`` for a day, or a head, that has more; then
    nothing is to be written.
    """
    writes = []
    for saved in days:
        what = f"the usage of {calendar_day(saved.day).isoformat()}, with {len(saved.rows)} rows"
        writes.append(put_day(saved.day, saved.n, _fitting(what, encode_day(saved), most)))
    what = f"the head of the usage sums, with {len(head.claims)} open claims"
    writes.append(put_head(_fitting(what, encode_head(head), most)))
    check = Write(Action.CHECK, HEAD, where={"epoch": epoch})
    return [[check, *some] for some in batches(writes)]


def put_day(day: Day, n: int, rows: bytes) -> Write:
    """Return the write of an encoded day."""
    key = f"usage#{month_of(day)}", calendar_day(day).isoformat()
    return Write(Action.PUT, key, {"n": n, "rows": rows})


def put_head(data: bytes) -> Write:
    """Return the write of the encoded head."""
    return Write(Action.PUT, _KEY, {"head": data})


def _fitting(what: str, data: bytes, most: int) -> bytes:
    if len(data) <= most:
        return data
    raise StoreUnavailable(
        f"{what}, has {len(data)} bytes, and an item in DynamoDB may have {most}. Usage sums are no "
        "longer saved: each start reads the history since the last save. Nothing is lost"
    )


def load(backend: Backend) -> SavedUsage | None:
    """Return everything that was saved: by key, month by month. Raises ``Unreadable``."""
    found = backend.get(_KEY)
    if found is None:
        return None
    data = values_of(found, _KEY, _HeadItem).head
    with reading(_KEY):
        head = decode_head(data)
    days = (item for month in months(head.first, head.last) for item in backend.query(f"usage#{month}"))
    return SavedUsage(head, tuple(map(_day_in, days)))


def _day_in(item: Item) -> UsageDay:
    found = values_of(item, key_in(item), _DayItem)
    with reading(key_in(item)):
        return decode_day(day_number(date.fromisoformat(item["sk"])), found.n, found.rows)
