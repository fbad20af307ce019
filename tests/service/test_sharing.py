"""The Hub's list of guests is what the reservations say: after changes, outages, restarts and new servers."""

from __future__ import annotations

import pytest

from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.events import AccessLost, PersonSeen
from gpudev_hub.core.model import Owner, Reservation
from service_world import ALICE, BOB, ServiceWorld

CAROL = Owner("local:carol", "carol", "carol")


async def ready(world: ServiceWorld) -> Reservation:
    record = await world.reserve()
    return await world.becomes(record.id, "ready")


def guests(world: ServiceWorld, id: str) -> set[str]:
    return world.hub.shares.get(id, set())


async def test_the_hub_follows_the_guests(world: ServiceWorld) -> None:
    record = await ready(world)
    await world.service.share(record.id, ALICE.subject, BOB)
    await world.until(lambda: guests(world, record.id) == {"bob"})
    start = world.service.cuts.after(0).latest
    await world.service.unshare(record.id, ALICE.subject, BOB.subject)
    await world.until(lambda: guests(world, record.id) == set())
    # The second one is for JupyterLab, once the Hub no longer lets him in.
    await world.until(lambda: len(world.service.cuts.after(start).cuts) == 2)
    cuts = world.service.cuts.after(start).cuts
    assert [cut.subject for cut in cuts] == [BOB.subject, "hub:bob"]
    assert {cut.reservation for cut in cuts} == {record.id}
    news = await world.service.news(record.id, 0, start, 20)
    assert news.cuts.cuts == cuts
    await world.service.end(record.id, ALICE.subject)
    await world.becomes(record.id, "ended")
    with pytest.raises(Refused) as refused:
        await world.service.share(record.id, ALICE.subject, BOB)
    assert refused.value.code is Code.WRONG_STATE


async def test_a_request_that_waits_can_be_shared(world: ServiceWorld) -> None:
    """The Hub has no server yet; it gets the guest with the start."""
    first = [await world.reserve(gpus=8) for _ in range(2)]
    waiting = await world.reserve(BOB, gpus=8)
    assert waiting.state == "queued"
    await world.service.share(waiting.id, BOB.subject, ALICE)
    await world.service.end(first[0].id, ALICE.subject)
    await world.becomes(waiting.id, "ready")
    await world.until(lambda: guests(world, waiting.id) == {"alice"})


async def test_a_hub_that_is_away_follows_later(world: ServiceWorld) -> None:
    record = await ready(world)
    world.hub.failure = (503, "busy")
    await world.service.share(record.id, ALICE.subject, BOB)
    with pytest.raises(Refused) as refused:
        await world.service.known_to_hub("bob")
    assert refused.value.code is Code.UNAVAILABLE
    world.hub.failure = None
    await world.until(lambda: guests(world, record.id) == {"bob"})
    assert await world.service.known_to_hub("bob")
    assert not await world.service.known_to_hub("carol")


async def test_what_the_hub_lost_or_kept_is_put_right(world: ServiceWorld) -> None:
    """By the pass of each minute, and by a service that starts."""
    record = await ready(world)
    await world.service.share(record.id, ALICE.subject, BOB)
    await world.until(lambda: guests(world, record.id) == {"bob"})
    world.hub.shares.clear()
    await world.service.reconcile()
    await world.until(lambda: guests(world, record.id) == {"bob"})
    # Decided, and the service died before the Hub heard of it.
    world.hub.failure = (503, "busy")
    await world.service.unshare(record.id, ALICE.subject, BOB.subject)
    await world.stop()
    world.hub.failure = None
    assert guests(world, record.id) == {"bob"}
    await world.start()
    await world.until(lambda: guests(world, record.id) == set())


async def test_a_server_that_starts_again_has_its_guests(world: ServiceWorld) -> None:
    record = await ready(world)
    await world.service.share(record.id, ALICE.subject, BOB)
    await world.until(lambda: guests(world, record.id) == {"bob"})
    world.hub.shares.clear()
    world.hub.rows.pop(record.id)
    world.cluster.kill(record.id, 1)
    await world.until(lambda: world.service.view.reservations[record.id].attempt == 2)
    await world.until(lambda: guests(world, record.id) == {"bob"})


async def test_a_guest_whom_the_hub_does_not_know_holds_nobody_up(world: ServiceWorld) -> None:
    record = await ready(world)
    await world.service.share(record.id, ALICE.subject, CAROL)
    await world.service.share(record.id, ALICE.subject, BOB)
    await world.until(lambda: guests(world, record.id) == {"bob"})
    world.hub.users.add("carol")
    await world.service.reconcile()
    await world.until(lambda: guests(world, record.id) == {"bob", "carol"})


async def test_a_guest_whose_access_was_revoked_is_out_until_it_comes_back(world: ServiceWorld) -> None:
    """The share stays: it is the owner who ends it."""

    def seen() -> PersonSeen:
        at = world.clock.now()
        return PersonSeen(BOB.subject, "bob", "bob", (), operator=False, confirmed_at=at)

    ask = world.service._writer.ask
    await ask(seen())
    record = await ready(world)
    await world.service.share(record.id, ALICE.subject, BOB)
    await world.until(lambda: guests(world, record.id) == {"bob"})
    start = world.service.cuts.after(0).latest
    await ask(AccessLost(BOB.subject, "left the team", "service"))
    await world.until(lambda: guests(world, record.id) == set())
    # Once for the share, once for the tokens: until both are gone, the Hub lets bob in.
    cuts = [BOB.subject, "hub:bob", "hub:bob"]
    await world.until(
        lambda: sorted(cut.subject for cut in world.service.cuts.after(start, record.id).cuts) == sorted(cuts)
    )
    with pytest.raises(Refused) as refused:
        await world.service.share(record.id, BOB.subject, CAROL)
    assert refused.value.code is Code.ACCESS_REVOKED
    other = await ready(world)
    with pytest.raises(Refused) as refused:
        await world.service.share(other.id, ALICE.subject, BOB)
    assert refused.value.code is Code.FORBIDDEN
    await ask(seen())
    await world.until(lambda: guests(world, record.id) == {"bob"})


async def test_without_an_origin_for_each_user_only_the_owner_opens_jupyterlab(
    idle_world: ServiceWorld,
) -> None:
    world = idle_world
    await world.start()
    record = await ready(world)
    await world.service.share(record.id, ALICE.subject, BOB)
    await world.until(lambda: guests(world, record.id) == {"bob"})
    await world.stop()
    world.lab_shared = False
    await world.start()
    await world.until(lambda: guests(world, record.id) == set())
    assert world.service.view.reservations[record.id].guest(BOB.subject) is not None, "SSH stays"
    await world.service.share(record.id, ALICE.subject, CAROL)
    await world.service.reconcile()
    assert guests(world, record.id) == set()
