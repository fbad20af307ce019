"""Records and causes as JSON: also as earlier versions wrote them."""

from __future__ import annotations

import pytest

from gpudev_hub.core.causes import Cause
from gpudev_hub.core.commit import Change
from gpudev_hub.core.model import MINUTE, MintedId, Owner, Request, Reservation, Shape
from gpudev_hub.core.sentences import Text, because, joined, say
from gpudev_hub.stores import records

MINTED = MintedId("m1", "local:bob", 5)


@pytest.mark.parametrize(
    ("before", "cause", "detail"),
    [
        ("minted", Cause.MINTED, ""),
        ("start_failed: sshd: exit 1", Cause.START_FAILED, "sshd: exit 1"),
        ("operator: ended_by_operator", Cause.OPERATOR, "ended_by_operator"),
    ],
)
def test_a_cause_is_read_as_it_is_and_as_it_was_written_before(
    before: str, cause: Cause, detail: str
) -> None:
    change = Change(MINTED, cause, "a", True, detail)
    for written in (before, records.encode_cause(change)):
        assert records.decode_change("minted", records.encode(MINTED), written, "a", gone=True) == change


@pytest.mark.parametrize(
    "text",
    [
        "planned start is now 2026-11-23T14:10:00Z: node-1 is drained",
        say("node_ends", node="node-1", until=5),
        because(
            "not ready", joined([say("stop_overran", reservation="r1", at=7), "10:15:30 no route"], "all")
        ),
    ],
)
def test_texts_of_records_and_causes_come_back_as_they_were(text: Text) -> None:
    """Those of earlier versions are words."""
    request = Request(Shape(1), "h100", MINUTE, "base")
    owner = Owner("local:bob", "bob", "bob")
    record = Reservation("r1", 1, owner, request, None, 0, 1, 1, 8, blocked=text, detail=text, trouble=text)
    assert records.decode_reservation(records.encode(record)) == record
    change = Change(record, Cause.NODE_CHANGED, "service", detail=text)
    cause = records.encode_cause(change)
    assert (
        records.decode_change("reservation", records.encode(record), cause, "service", gone=False) == change
    )
