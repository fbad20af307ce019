"""The gate's decision table (DESIGN section 8), and its 0.8 seconds."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from gpudev_hub.core.gate import Admission, AdmitRequest, NameAsked, Verdict
from gpudev_hub.core.model import Owner, State
from service_world import ALICE, BOB, ServiceWorld


async def admit(
    world: ServiceWorld, server: str, owner: Owner = ALICE, *, form: bool = True, **options: Any
) -> Admission:
    asked = AdmitRequest(owner.subject, owner.hub_user, owner.login, server, form, options or None)
    return await world.service.gate.admit(asked)


async def test_the_form_on_a_minted_id_makes_a_reservation_and_starts_it(world: ServiceWorld) -> None:
    minted = await world.service.mint(ALICE.subject)
    answer = await admit(world, minted, gpus=2, nodes=1, hours=1.0, name="demo", gpu_type=None, image=None)
    assert answer.verdict is Verdict.START
    assert answer.launch is not None
    assert (answer.launch.id, answer.launch.attempt, answer.launch.gpus) == (minted, 1, 2)
    assert world.service.view.minted == {}
    again = await admit(world, minted, gpus=2, nodes=1, hours=1.0, name="demo")
    assert again.launch == answer.launch
    assert len(world.service.view.reservations) == 1


async def test_rest_on_a_minted_id_is_sent_to_the_reservations(world: ServiceWorld) -> None:
    """A token with start:servers gets no server that the queue has not admitted."""
    minted = await world.service.mint(ALICE.subject)
    answer = await admit(world, minted, form=False, gpus=2)
    assert (answer.verdict, answer.location) == (Verdict.REDIRECT, None)
    assert "api/v1/reservations" in answer.hint
    assert world.service.view.reservations == {}


async def test_ids_that_are_of_no_use_lead_to_a_fresh_one(world: ServiceWorld) -> None:
    bobs = await world.service.mint(BOB.subject)
    ended = await world.reserve(gpus=1)
    await world.becomes(ended.id, "ready")
    await world.service.end(ended.id, ALICE.subject)
    await world.becomes(ended.id, "ended")
    held = await world.reserve(BOB, gpus=1)
    for server, words in [
        ("never-minted", "You have no reservation never-minted."),
        (bobs, f"You have no reservation {bobs}."),
        (ended.id, f"Reservation {ended.id} has ended (released)."),
        (held.id, f"Reservation {held.id} belongs to another user."),
    ]:
        answer = await admit(world, server, gpus=2, name="demo")
        assert answer.verdict is Verdict.REDIRECT
        assert words in answer.message
        assert answer.location is not None
        path, _, query = answer.location.partition("?")
        assert path.rpartition("/")[0] == "hub/spawn/alice"
        assert world.service.view.minted[path.rpartition("/")[2]].subject == ALICE.subject
        assert query == "gpus=2&name=demo"
    assert [r.id for r in world.service.view.reservations.values()] == [held.id]


async def test_a_blocked_one_has_no_number_in_the_queue(world: ServiceWorld) -> None:
    for node in ("node-1", "node-2"):
        await world.service.operate_node(node, "drain", "local:root")
    minted = await world.service.mint(ALICE.subject)
    answer = await admit(world, minted, gpus=2, hours=1.0)
    assert answer.verdict is Verdict.QUEUED
    assert answer.message == f"Reservation {minted} is blocked: node-1 is drained and node-2 is drained."


async def test_the_form_may_name_it_with_the_prefix_of_ssh_names(world: ServiceWorld) -> None:
    await world.reserve(BOB, gpus=8, nodes=2)
    minted = await world.service.mint(ALICE.subject)
    for _ in range(2):
        assert (await admit(world, minted, gpus=2, name="gpu-demo")).verdict is Verdict.QUEUED
    assert world.service.view.reservations[minted].request.name == "demo"
    other = await admit(world, minted, gpus=2, name="gpu-other")
    assert "the name demo, not gpu-other" in other.message


async def test_a_queued_one_waits_and_other_options_conflict(world: ServiceWorld) -> None:
    await world.reserve(BOB, gpus=8, nodes=2)
    minted = await world.service.mint(ALICE.subject)
    answer = await admit(world, minted, gpus=2, hours=1.0)
    assert (answer.verdict, answer.location) == (Verdict.QUEUED, f"services/gpudev/reservations/{minted}")
    assert f"Reservation {minted} has place 1 in the queue: waiting for 2 GPUs" in answer.message
    assert (await admit(world, minted, form=False)).verdict is Verdict.QUEUED
    assert (await admit(world, minted, gpus=2, hours=1.0)).verdict is Verdict.QUEUED
    other = await admit(world, minted, gpus=4, hours=1.0)
    assert other.verdict is Verdict.CONFLICT
    assert "2 GPUs, not 4 GPUs" in other.message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gpus": 3}, "3 GPUs cannot be reserved"),
        ({"gpus": "2"}, "The options are not valid"),
        ({"gpus": 2, "mount": "/"}, "Unknown options: mount."),
        ({"gpus": 2, "name": "../x"}, "'../x' is not a valid name."),
    ],
)
async def test_wrong_options_are_invalid(world: ServiceWorld, options: dict[str, Any], words: str) -> None:
    minted = await world.service.mint(ALICE.subject)
    answer = await admit(world, minted, **options)
    assert answer.verdict is Verdict.INVALID
    assert words in answer.message
    assert world.service.view.reservations == {}
    assert minted in world.service.view.minted


async def test_a_ready_one_without_a_server_starts_on_its_slots_again(world: ServiceWorld) -> None:
    record = await world.reserve(gpus=2)
    ready = await world.becomes(record.id, "ready")
    adopted = await admit(world, record.id, form=False)
    assert (adopted.verdict, adopted.launch and adopted.launch.attempt) == (Verdict.START, 1)
    world.hub.stops = False
    await world.hub.stop(record.id, user=True)
    assert (await admit(world, record.id)).verdict is Verdict.CONFLICT
    world.cluster.kill(record.id, 1)
    await world.until(lambda: world.service.view.reservations[record.id].server == "stopped")
    answer = await admit(world, record.id)
    assert answer.launch is not None
    assert (answer.launch.attempt, answer.launch.allocation) == (2, ready.allocation)


async def test_one_that_is_stopping_is_to_be_asked_for_later(world: ServiceWorld) -> None:
    record = await world.reserve(gpus=2)
    await world.becomes(record.id, "ready")
    world.hub.stops = False
    await world.service.end(record.id, ALICE.subject)
    answer = await admit(world, record.id)
    assert answer.verdict is Verdict.CONFLICT
    assert f"The server of reservation {record.id} is stopping." in answer.message


async def test_one_that_ends_while_the_gate_decides_has_ended(world: ServiceWorld) -> None:
    record = await world.reserve(gpus=2)
    await world.becomes(record.id, "ready")
    await world.hub.stop(record.id, user=True)
    await world.until(lambda: world.service.view.reservations[record.id].stopped_at is not None)
    await world.until(lambda: world.service.view.reservations[record.id].server == "stopped")
    _, answer = await asyncio.gather(
        world.service.end(record.id, ALICE.subject), admit(world, record.id, form=False)
    )
    assert answer.verdict is Verdict.REDIRECT
    assert f"Reservation {record.id} has ended (released)." in answer.message


async def test_an_answer_comes_within_its_time(world: ServiceWorld) -> None:
    record = await world.reserve(gpus=2)
    await world.becomes(record.id, "ready")
    world.launches.delay = 30
    begun = time.monotonic()
    answer = await admit(world, record.id, form=False)
    assert time.monotonic() - begun < 5
    assert (answer.verdict, answer.location) == (Verdict.RETRY, f"services/gpudev/reservations/{record.id}")
    assert world.service.view.reservations[record.id].state is State.READY


async def test_the_hub_keeps_servers_of_live_reservations_only(world: ServiceWorld) -> None:
    """And nothing is changed by asking."""
    minted = await world.service.mint(ALICE.subject)
    ended = await world.reserve(gpus=1)
    await world.becomes(ended.id, "ready")
    await world.service.end(ended.id, ALICE.subject)
    await world.becomes(ended.id, "ended")
    held, bobs = await world.reserve(gpus=1), await world.reserve(BOB, gpus=1)
    before = set(world.service.view.minted), set(world.service.view.reservations)
    for server, verdict, words in [
        (held.id, Verdict.START, ""),
        (bobs.id, Verdict.REDIRECT, f"Reservation {bobs.id} belongs to another user."),
        (minted, Verdict.REDIRECT, f"The id {minted} has no reservation yet."),
        (ended.id, Verdict.REDIRECT, f"Reservation {ended.id} has ended (released)."),
        ("never-minted", Verdict.REDIRECT, "You have no reservation never-minted."),
    ]:
        answer = await world.service.gate.name(NameAsked(ALICE.subject, server))
        assert (answer.verdict, answer.message) == (verdict, words)
        assert answer.location is None
    assert (set(world.service.view.minted), set(world.service.view.reservations)) == before
