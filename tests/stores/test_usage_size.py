"""How much of a day's usage an item of DynamoDB holds."""

from __future__ import annotations

from random import Random

import pytest

from gpudev_hub.core.ports import StoreUnavailable
from gpudev_hub.core.usage import Sums, UsageDay, UsageHead
from gpudev_hub.stores.dynamodb.table import DynamoTable
from gpudev_hub.stores.usage import transactions

MOST_BYTES = DynamoTable.item_bytes
HEAD = UsageHead(1, 0, 20_000, 20_000, {}, {}, {})


def day(people: int) -> UsageDay:
    """A busy day: everybody has a row, and no figure is like another."""
    random = Random(1)
    rows = {
        (f"github:{random.randrange(10**9)}", "h100", random.choice((1, 2, 4, 8, 16))): Sums(
            requests=random.randint(1, 9),
            reserved=random.randrange(10**9),
            held=random.randrange(10**9),
            waits=random.randint(0, 9),
            waited=random.randrange(10**8),
            longest_wait=random.randrange(10**8),
            starts=random.randint(0, 9),
            early_releases=random.randint(0, 9),
            given_back=random.randrange(10**8),
            outcomes={"released": random.randint(1, 9), "expired": random.randint(1, 9)},
        )
        for _ in range(people)
    }
    return UsageDay(20_000, 1, rows)


def test_a_day_with_eight_thousand_rows_fits_into_an_item() -> None:
    ((_, put, _),) = transactions(HEAD, [day(8_000)], epoch=1, most=MOST_BYTES)
    assert len(put.values["rows"]) < MOST_BYTES


def test_a_day_that_no_item_can_hold_is_refused_with_both_numbers() -> None:
    with pytest.raises(
        StoreUnavailable, match=r"the usage of 2024-10-04, with \d+ rows, has \d+ bytes"
    ) as told:
        transactions(HEAD, [day(15_000)], epoch=1, most=MOST_BYTES)
    assert f"may have {MOST_BYTES}" in str(told.value)
