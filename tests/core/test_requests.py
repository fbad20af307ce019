"""What may be asked for, and the words of every refusal."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from coreworld import HOUR, Driver, nodes, owner, policy, pool
from gpudev_hub.core.decisions.default_names import CHOICES, default_names
from gpudev_hub.core.errors import STATUS, Code, IllegalMove, Refused
from gpudev_hub.core.events import Mint, Submit
from gpudev_hub.core.ids import ENTROPY, check_name, is_word, mint
from gpudev_hub.core.lifecycle import MOVES, move
from gpudev_hub.core.model import Request, Reservation, Shape, State
from gpudev_hub.core.policy import Allowances
from gpudev_hub.core.request import Ask, joinable, resolve

H100 = policy(pools=(pool("h100", 8), pool("t4", 4)))
KNOWN = {"h100": 2, "t4": 2}


def refusal(ask: Ask, known: dict[str, int] | None = None) -> Refused:
    with pytest.raises(Refused) as caught:
        resolve(H100, ask, KNOWN if known is None else known)
    return caught.value


@pytest.mark.parametrize(
    ("ask", "shape"),
    [
        (Ask(), Shape(1)),
        (Ask(nodes=1), Shape(8)),
        (Ask(gpus=4), Shape(4)),
        (Ask(gpus=8, nodes=2), Shape(8, 2)),
        (Ask(nodes=2), Shape(8, 2)),
        (Ask(nodes=2, gpu_type="t4"), Shape(4, 2)),
    ],
)
def test_shapes(ask: Ask, shape: Shape) -> None:
    assert resolve(H100, ask, KNOWN).shape == shape


def test_settings_may_still_say_pretended() -> None:
    simulated = policy(pools=(pool("h100", 8), replace(pool("simulated", 8), simulated=True)))
    assert resolve(simulated, Ask(gpu_type="pretended"), {"simulated": 1}).pool == "simulated"
    assert refusal(Ask(gpu_type="pretended")).code == Code.UNKNOWN_GPU_TYPE


def test_defaults_are_resolved() -> None:
    assert resolve(H100, Ask(gpus=1), KNOWN) == Request(Shape(1), "h100", 4 * HOUR, "base", None)
    asked = Ask(gpus=2, hours=0.5, gpu_type="t4", name="my-run-2", image="nightly")
    assert resolve(H100, asked, KNOWN) == Request(Shape(2), "t4", HOUR // 2, "nightly", "my-run-2")


@pytest.mark.parametrize(
    ("ask", "code", "words"),
    [
        (
            Ask(gpus=0),
            Code.INVALID_SHAPE,
            "0 GPUs cannot be reserved: a reservation in pool h100 has 1, 2, 4 or 8 GPUs per node.",
        ),
        (Ask(gpus=-1), Code.INVALID_SHAPE, "-1 GPUs cannot be reserved"),
        (
            Ask(gpus=3),
            Code.INVALID_SHAPE,
            "3 GPUs cannot be reserved: a reservation in pool h100 has 1, 2, 4 or 8 GPUs per node.",
        ),
        (Ask(gpus=9), Code.INVALID_SHAPE, "9 GPUs do not fit on one node: a node of pool h100 has 8."),
        (Ask(gpus=16), Code.INVALID_SHAPE, "Use --gpus 8 --nodes 2 (gpus=8, nodes=2)"),
        (Ask(gpus=8, gpu_type="t4"), Code.INVALID_SHAPE, "Use --gpus 4 --nodes 2 (gpus=4, nodes=2)"),
        (Ask(gpus=24), Code.INVALID_SHAPE, "the limit for one reservation is 16."),
        (
            Ask(nodes=3),
            Code.INVALID_SHAPE,
            "3 nodes cannot be reserved: the limit in pool h100 is 2",
        ),
        (Ask(nodes=3), Code.INVALID_SHAPE, "and it has 2 nodes that can be used together."),
        (Ask(nodes=0), Code.INVALID_SHAPE, "You asked for 0 nodes; the minimum is 1."),
        (Ask(gpus=4, nodes=2), Code.INVALID_SHAPE, "4 GPUs on each of 2 nodes cannot be reserved"),
        (Ask(hours=0), Code.INVALID_HOURS, "You asked for 0 hours; the hold time must be longer than zero."),
        (
            Ask(hours=-1),
            Code.INVALID_HOURS,
            "You asked for -1 hours; the hold time must be longer than zero.",
        ),
        (Ask(hours=math.nan), Code.INVALID_HOURS, "nan is not a number of hours."),
        (Ask(hours=math.inf), Code.INVALID_HOURS, "inf is not a number of hours."),
        (Ask(hours=1e308), Code.INVALID_HOURS, "1e+308 is not a number of hours."),
        (Ask(hours=0.001), Code.INVALID_HOURS, "You asked for 3 s; the shortest hold time is 1 min."),
        (Ask(gpu_type="b200"), Code.UNKNOWN_GPU_TYPE, "There is no GPU type 'b200'."),
        (Ask(image="evil"), Code.INVALID_IMAGE, "Pool h100 has no image 'evil'."),
        (Ask(name="../etc"), Code.INVALID_NAME, "'../etc' is not a valid name."),
        (Ask(name="a;b"), Code.INVALID_NAME, "'a;b' is not a valid name."),
        (Ask(name=""), Code.INVALID_NAME, "'' is not a valid name."),
        (Ask(name="gpu-"), Code.INVALID_NAME, "'gpu-' is not a valid name."),
        (
            Ask(name="a" * 300),
            Code.INVALID_NAME,
            "The name has 300 characters; the limit is 30.",
        ),
    ],
)
def test_refusals(ask: Ask, code: Code, words: str) -> None:
    refused = refusal(ask)
    assert (refused.code, STATUS[refused.code]) == (code, 400)
    assert words in refused.message
    assert refused.hint
    assert "--" not in refused.hint, "pages and the library show it, too"


def test_one_node_is_not_refused_when_none_is_known_and_two_are() -> None:
    assert resolve(H100, Ask(gpus=8), {}).shape == Shape(8)
    assert "has 1 node that can be used together." in refusal(Ask(nodes=2), {"h100": 1}).message
    assert refusal(Ask(gpus=16), {"h100": 1}).hint == "Use 8 GPUs."
    assert refusal(Ask(gpus=24)).hint == refusal(Ask(nodes=3)).hint == "Use 2 nodes of 8 GPUs each."
    assert refusal(Ask(gpus=1, nodes=2)).hint == "Use 8 GPUs per node, or leave the number of GPUs out."


def test_nodes_are_joined_within_a_group() -> None:
    a, b = nodes(2)
    assert joinable([a, b]) == {"h100": 2}


@pytest.mark.parametrize("word", ["a", "a1", "my-run-2", "a" * 30])
def test_words(word: str) -> None:
    assert check_name(word) == word


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("gpu-demo", "demo"),
        ("gpu-" + "a" * 30, "a" * 30),
        ("gpu-gpu-demo", "gpu-demo"),
        ("gpu", "gpu"),
        ("gpu-8x", "gpu-8x"),
        ("gpus-demo", "gpus-demo"),
    ],
)
def test_a_name_with_the_prefix_of_ssh_names_is_the_name_after_it(asked: str, name: str) -> None:
    """Otherwise its SSH name would be gpu-gpu-demo."""
    assert check_name(asked) == name


@pytest.mark.parametrize("word", ["", "1a", "-a", "a-", "a--b", "A", "a_b", "ä", "a\n", "a b", "a" * 31])
def test_no_words(word: str) -> None:
    assert not is_word(word)


def test_minted_ids_are_words_and_differ() -> None:
    ids = {mint(i.to_bytes(ENTROPY, "big")) for i in range(1000)}
    assert len(ids) == 1000
    assert all(is_word(word) and len(word) == 12 for word in ids)
    with pytest.raises(ValueError, match="9 random bytes"):
        mint(b"short")


def test_every_move_of_the_table_and_no_other() -> None:
    d = Driver()
    reservation = d.submit("alice")
    for state in State:
        at = reservation if state is reservation.state else None
        for target in State:
            if at is None:
                continue
            if target in MOVES[state]:
                assert move(at, target).state is target
            else:
                with pytest.raises(IllegalMove, match=f"r1 can't go from {state} to {target}.*attempt 1"):
                    move(at, target)
    assert {
        State.QUEUED: {State.STARTING, State.ENDED},
        State.STARTING: {State.READY, State.STOPPING, State.QUEUED},
        State.READY: {State.STARTING, State.STOPPING},
        State.STOPPING: {State.ENDED},
        State.ENDED: set(),
    } == MOVES


def over(d: Driver, **ask: object) -> Refused:
    before = (dict(d.world.reservations), d.world.next_seq)
    with pytest.raises(Refused) as caught:
        d.submit("alice", **ask)  # type: ignore[arg-type]
    assert (d.world.reservations, d.world.next_seq) == before, "a refusal leaves nothing behind"
    return caught.value


def test_limits_of_an_owner() -> None:
    d = Driver(policy(allowances=Allowances(running_gpus=8, queued_requests=2, gpu_hours=100)))
    assert over(d, hours=25).message == "You asked for 25 h; your limit for one request is 24 h."
    assert over(d, gpus=8, nodes=2).message == "You asked for 16 GPUs; your limit is 8 GPUs at once."
    d.submit("alice", 8, 10)
    refused = over(d, gpus=4, hours=6)
    assert refused.code is Code.QUOTA_EXCEEDED
    assert refused.message == (
        "You asked for 24 GPU-hours, and your other reservations have 80: 104 in total; your limit is 100."
    )
    d.submit("alice", 1)
    d.submit("alice", 1)
    assert over(d, gpus=1).message == "You have 2 requests in the queue; your limit is 2."
    assert d.submit("bob", 1).state is State.STARTING


def test_a_cap_is_planned_not_refused() -> None:
    d = Driver(policy(allowances=Allowances(running_gpus=8)))
    first = d.submit("alice", 8)
    second = d.submit("alice", 8)
    assert second.state is State.QUEUED
    assert second.place is not None
    assert second.place.start == first.hard_end
    assert d.submit("bob", 8).state is State.STARTING


def test_names_and_request_ids() -> None:
    d = Driver()
    d.submit("alice", name="demo", request_id="retry-me-1")
    refused = over(d, name="demo")
    assert (refused.code, STATUS[refused.code]) == (Code.NAME_TAKEN, 409)
    assert refused.message == "Your reservation r1 (starting) already has the name demo."
    assert d.submit("bob", name="demo").id == "r3"
    assert d.submit("alice", name="demo", request_id="retry-me-1").id == "r1"
    d.extend("r1", 1)
    assert d.submit("alice", name="demo", request_id="retry-me-1").id == "r1", (
        "an extension is no other request"
    )
    assert over(d, name="other", request_id="retry-me-1").code is Code.REQUEST_ID_REUSED
    assert d.submit("bob", request_id="retry-me-1").id == "r7", "request ids are each owner's own"
    d.end("r1")
    d.see("r1")
    assert d.submit("alice", name="demo").id == "r8"


def test_a_name_is_free_once_its_reservation_is_being_stopped() -> None:
    d = Driver()
    first = d.submit("alice", name="demo")
    d.ready(first.id)
    assert d.end(first.id).state is State.STOPPING
    second = d.submit("alice", name="demo")
    assert d.world.by_name("local:alice", "demo") == second
    refused = over(d, name="demo")
    assert refused.message == f"Your reservation {second.id} (starting) already has the name demo."
    for step in (d.restart, lambda: d.see(first.id)):
        step()
        assert d.world.by_name("local:alice", "demo") == second, "the older one takes the name from nobody"
    d.end(second.id)
    third = d.submit("alice", name="demo")
    d.see(second.id)
    assert d.world.by_name("local:alice", "demo") == third


def test_two_words_are_the_name_of_what_was_not_named() -> None:
    d = Driver()
    first = mint(bytes(range(ENTROPY)))
    request = Request(Shape(1), "h100", HOUR, "base", None)

    def ask(
        id: str, who: str = "alice", request_id: str | None = None, name: str | None = None
    ) -> Reservation | None:
        asked = replace(request, name=name)
        return d.do(Submit(id, owner(who), asked, request_id, default_names(id))).reservation

    made = ask(first, request_id="retry-me-1")
    assert made is not None
    assert made.request.name == default_names(first)[0]
    assert re.fullmatch("[a-z]{3,7}-[a-z]{3,8}", made.request.name)
    assert ask(mint(bytes(ENTROPY)), request_id="retry-me-1") == made, "without a name it is the same again"
    assert ask("x1", request_id="retry-me-1", name=made.request.name) == made
    with pytest.raises(Refused, match="was already used for reservation"):
        ask("x2", request_id="retry-me-1", name="other")
    d.submit("bob", name=default_names("x3")[0])
    theirs = ask("x3", "bob")
    assert theirs is not None
    assert theirs.request.name == default_names("x3")[1], "the first one is bob's already"


def test_default_names_are_names_and_differ() -> None:
    first = [default_names(mint(bytes(8) + bytes([i])))[0] for i in range(256)]
    assert len(set(first)) > 240
    for ref in ("r1", "another", mint(b"\xff" * ENTROPY)):
        found = default_names(ref)
        assert len(set(found)) == CHOICES
        assert all(is_word(name) for name in found)


def test_nobody_calls_two_reservations_alike() -> None:
    """One without a name is called by its id: in SSH that is its name."""
    d = Driver()
    first = d.submit("alice")
    refused = over(d, name=first.id)
    assert refused.code is Code.NAME_TAKEN
    assert d.submit("bob", name=first.id).request.name == first.id, "names are each owner's own"


def test_ids_are_used_once_and_by_whom_they_were_minted_for() -> None:
    d = Driver()
    d.do(Mint("r1", "local:bob"))
    assert "cannot be used for a new reservation" in over(d).message
    d.do(Mint("r2", "local:alice"))
    d.submit("alice")
    assert "r2" not in d.world.minted
    with pytest.raises(Refused):
        d.do(Mint("r2", "local:alice"))
    for i in range(25):
        d.do(Mint(f"unused-{i}", "local:carol"))
        d.now += 1
    assert [m for m in d.world.minted if m.startswith("unused")] == [f"unused-{i}" for i in range(5, 25)]
    d.go(d.now + 25 * HOUR)
    assert not d.world.minted
