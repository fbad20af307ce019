"""Extensions: granted whenever the places behind can be given in queue order within everybody's guarantee."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coreworld import HOUR, MINUTE, Driver, nodes, policy
from gpudev_hub.core.causes import Cause
from gpudev_hub.core.errors import Refused
from gpudev_hub.core.model import Millis, Place
from gpudev_hub.core.policy import Allowances
from gpudev_hub.core.words import plain

MANY = Allowances(running_gpus=10**6, queued_requests=10**6)


def waiting_line(hours: tuple[float, ...], slack: Millis) -> Driver:
    """One node taken for an hour, requests of 8 GPUs planned one behind the other, with so much slack."""
    d = Driver(policy(allowances=MANY), nodes(1))
    d.ready(d.submit("a", 8, 1).id)
    for n, length in enumerate(hours):
        d.submit(f"w{n}", 8, length)
    d.settle()
    for record in d.world.queued():
        assert record.place is not None
        d.world.reservations[record.id] = replace(record, promise=record.place.start + slack)
    return d


def place_of(d: Driver, ref: str) -> Place:
    place = d.get(ref).place
    assert place is not None
    return place


def test_one_minute_is_granted_where_all_behind_have_half_a_day_of_slack() -> None:
    """`b` (1 h) and `c` (24 h) right behind: no room elsewhere, but both can start a minute later."""
    d = waiting_line((1, 24), slack=12 * HOUR)
    before = [place_of(d, ref) for ref in ("r2", "r3")]
    d.extend("r1", 1 / 60)
    after = [place_of(d, ref) for ref in ("r2", "r3")]
    assert [new.start - old.start for old, new in zip(before, after, strict=True)] == [MINUTE, MINUTE]
    assert "a extended a reservation; still guaranteed by" in plain(d.get("r3").detail, d.now)


def test_a_short_one_behind_does_not_overtake() -> None:
    """`c` is short enough for the gap that `b` would leave."""
    d = waiting_line((1, 0.5), slack=12 * HOUR)
    d.extend("r1", 1 / 60)
    d.settle()
    assert place_of(d, "r2").start < place_of(d, "r3").start


@pytest.mark.parametrize("queued", [40, 150])
def test_however_many_places_have_to_move(queued: int) -> None:
    d = waiting_line((1,) * queued, slack=2 * HOUR)
    before = {r.id: place_of(d, r.id).start for r in d.world.queued()}
    d.extend("r1", 1)
    assert {r.id: place_of(d, r.id).start for r in d.world.queued()} == {
        ref: start + HOUR for ref, start in before.items()
    }
    causes = [c.cause for c in d.changes.records]
    assert causes.index(Cause.EXTENDED) == len(causes) - 2, "room is made before it is used"


def test_a_refusal_names_who_would_be_late_and_offers_what_is_granted() -> None:
    """The last has five minutes of slack, and the others, who have hours, can't let it go first."""
    d = waiting_line((1, 2, 1), slack=90 * MINUTE)
    last = d.get("r4")
    promise = place_of(d, "r4").start + 5 * MINUTE
    d.world.reservations["r4"] = replace(last, promise=promise, request=replace(last.request, name="demo"))
    with pytest.raises(Refused) as refused:
        d.extend("r1", 1)
    message = refused.value.message
    assert "w2's queued request demo is guaranteed to start by 16:" in message
    assert message.endswith("The longest extension now is 5 min.")
    d.extend("r1", 5 / 60)
    assert place_of(d, "r4").start == promise


def test_who_is_guaranteed_a_place_keeps_it_and_others_go_around_it() -> None:
    """Better than a refusal: the older one still starts by its guarantee."""
    d = waiting_line((2, 1), slack=12 * HOUR)
    d.world.reservations["r3"] = replace(d.get("r3"), promise=place_of(d, "r3").start)
    before = place_of(d, "r3").start
    d.extend("r1", 1)
    d.settle()
    assert place_of(d, "r3").start <= before
    assert place_of(d, "r2").start == place_of(d, "r3").end


def test_an_older_one_elsewhere_is_not_what_an_extension_is_refused_for() -> None:
    """The places of others are in nobody's way on another node, and stay."""
    d = Driver(policy(allowances=MANY), nodes(2))
    d.ready(d.submit("a", 8, 1).id)
    d.ready(d.submit("b", 8, 8).id)
    d.submit("c", 8, 1)
    d.submit("d", 8, 1)
    d.settle()
    for ref in ("r3", "r4"):
        record = d.get(ref)
        d.world.reservations[ref] = replace(record, promise=place_of(d, ref).start + 3 * HOUR)
    d.extend("r1", 3)
    assert place_of(d, "r3").start < place_of(d, "r4").start


def test_a_service_that_dies_while_many_are_moved_breaks_no_guarantee() -> None:
    d = waiting_line((1,) * 100, slack=2 * HOUR)
    d.restart()
    promises = {r.id: place_of(d, r.id).start + 2 * HOUR for r in d.world.queued()}
    for ref, promise in promises.items():
        record = replace(d.get(ref), promise=promise)
        d.world.reservations[ref] = record
        d.folded.snapshot.reservations[ref] = record
    safe = d.folded.copy()
    d.extend("r1", 1)
    changes = d.changes
    for made in (False, True):
        d.folded = safe.copy()
        if made:
            d.folded.commit(changes, d.now)
        d.restart()
        d.settle()
        assert {r.id: r.promise for r in d.world.queued()} == promises
        ends = d.get("r1").ends_at
        assert ends is not None
        assert (ends < d.now + 2 * HOUR) == (not made), "what was not made durable was not granted"
