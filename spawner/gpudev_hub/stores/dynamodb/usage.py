"""The usage sums in the DynamoDB table: one item per day, found by month, and a head.

| pk | sk | what |
|---|---|---|
| ``usage`` | ``head`` | number of the last commit in the sums, first and last day, what is open |
| ``usage#2026-11`` | ``2026-11-29`` | the sums of one day, compressed |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any, Final

from gpudev_hub.core.ports import StoreUnavailable
from gpudev_hub.core.usage import SavedUsage, UsageDay, UsageHead, calendar_day, day_number, month_of, months
from gpudev_hub.stores import usage_records

from . import items
from .items import Item, n_of, s_of
from .reads import Reader

HEAD: Final[Item] = {"pk": {"S": "usage"}, "sk": {"S": "head"}}
_DAYS_AT_ONCE: Final = 10
"""Days in one transaction: each item is below 400 KB, and a transaction takes 4 MB."""
MOST_BYTES: Final = 400_000
"""Of the data in one item. DynamoDB takes 409,600 bytes, with keys and names of attributes."""


def transactions(head: UsageHead, days: Sequence[UsageDay], epoch: int) -> list[list[Item]]:
    """Return what to write, in order: the days first, and the head last. All are for this epoch only.

    Raises ``StoreUnavailable`` for a day, or a head, that no item can hold; then nothing is to be written.
    """
    check = {
        "Key": items.HEAD,
        "ConditionExpression": "epoch = :epoch",
        "ExpressionAttributeValues": {":epoch": n_of(epoch)},
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    puts: list[Item] = [
        {
            "pk": s_of(f"usage#{month_of(saved.day)}"),
            "sk": s_of(calendar_day(saved.day).isoformat()),
            "n": n_of(saved.n),
            "rows": {"B": _fitting(_what(saved), usage_records.encode_day(saved))},
        }
        for saved in days
    ]
    open_ones = f"the head of the usage sums, with {len(head.claims)} open claims"
    puts.append({**HEAD, "head": {"B": _fitting(open_ones, usage_records.encode_head(head))}})
    return [
        [
            {"ConditionCheck": check},
            *({"Put": {"Item": item}} for item in puts[start : start + _DAYS_AT_ONCE]),
        ]
        for start in range(0, len(puts), _DAYS_AT_ONCE)
    ]


def _what(saved: UsageDay) -> str:
    return f"the usage of {calendar_day(saved.day).isoformat()}, with {len(saved.rows)} rows"


def _fitting(what: str, data: bytes) -> bytes:
    if len(data) <= MOST_BYTES:
        return data
    raise StoreUnavailable(
        f"{what}, has {len(data)} bytes, and an item in DynamoDB may have {MOST_BYTES}. Usage sums are no "
        "longer saved: each start reads the history since the last save. Nothing is lost"
    )


def load(read: Reader) -> SavedUsage | None:
    """Return everything that was saved: by key, month by month."""
    found = read.get(HEAD)
    if found is None:
        return None
    head = usage_records.decode_head(bytes(found["head"]["B"]))
    return SavedUsage(head, tuple(_days(read, head)))


def _days(read: Reader, head: UsageHead) -> Iterator[UsageDay]:
    for month in months(head.first, head.last):
        for item in read.query("pk = :pk", {":pk": s_of(f"usage#{month}")}):
            yield _day(item)


def _day(item: dict[str, Any]) -> UsageDay:
    day = day_number(date.fromisoformat(items.text(item, "sk")))
    return usage_records.decode_day(day, items.number(item, "n"), bytes(item["rows"]["B"]))
