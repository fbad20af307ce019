"""Records and causes as JSON: also as earlier versions wrote them."""

from __future__ import annotations

import pytest

from gpudev_hub.core.causes import Cause
from gpudev_hub.core.commit import Change
from gpudev_hub.core.model import MintedId
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
