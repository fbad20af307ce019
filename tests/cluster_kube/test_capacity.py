"""EC2's answers on capacity reservations, read as ends of capacity blocks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from gpudev_hub.cluster.capacity import BlockSight, sights_of, trouble_of

END = datetime(2030, 1, 1, 11, 30, tzinfo=UTC)
MILLIS = 1_893_497_400_000


def reservation(state: str = "active", **fields: Any) -> dict[str, Any]:
    return {"CapacityReservationId": "cr-1", "State": state, "EndDate": END, **fields}


def sight(found: dict[str, Any]) -> BlockSight:
    return sights_of([found], ["cr-1"], "us-east-2")["cr-1"]


@pytest.mark.parametrize(
    "state", ["active", "scheduled", "pending", "payment-pending", "assessing", "delayed"]
)
def test_a_block_that_is_there_or_to_come_has_an_end(state: str) -> None:
    assert sight(reservation(state)) == BlockSight(MILLIS)


@pytest.mark.parametrize(
    "state",
    ["expired", "cancelled", "cancelling", "failed", "payment-failed", "unsupported", "unavailable", "new"],
)
def test_a_block_that_is_over_is_not_used_whatever_its_end(state: str) -> None:
    assert sight(reservation(state)) == BlockSight(MILLIS, over=f"capacity block cr-1 is {state}")


def test_a_reservation_without_an_end_is_no_block() -> None:
    found = sight({"CapacityReservationId": "cr-1", "State": "active", "EndDateType": "unlimited"})
    assert found.ends_at is None
    assert "Remove the label gpudev/capacity-reservation" in found.trouble


def test_a_block_that_is_missing_in_the_answer_is_not_known() -> None:
    found = sights_of([reservation()], ["cr-1", "cr-2"], "us-east-2")
    assert found["cr-1"] == BlockSight(MILLIS)
    assert found["cr-2"].trouble.startswith("EC2 does not know it in us-east-2.")
    assert sights_of([reservation()], [], "us-east-2") == {}, "nothing is told that was not asked for"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "UnauthorizedOperation",
            "give the role of the service the right ec2:DescribeCapacityReservations",
        ),
        (
            "InvalidCapacityReservationId.NotFound",
            (
                "EC2 does not know it in us-east-2. Correct the label gpudev/capacity-reservation of its "
                "nodes, or ec2.region in the settings"
            ),
        ),
        (
            "NoCredentialsError",
            (
                "the service has no valid AWS credentials (NoCredentialsError). "
                "Check the role of its service account"
            ),
        ),
        ("RequestLimitExceeded", "EC2 does not answer (RequestLimitExceeded)"),
        ("ReadTimeoutError", "EC2 does not answer (ReadTimeoutError)"),
    ],
)
def test_trouble_says_what_to_do(code: str, words: str) -> None:
    assert trouble_of(code, "us-east-2") == words
