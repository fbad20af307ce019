"""Relations between plans that must hold whatever the queue looks like."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from gpudev_hub.core.model import HOUR, MINUTE, Millis, Place
from gpudev_hub.core.planning.plan import Demand, Plan, PlanNode
from plans import free_on, longest_extension, placed_in

SEEDS = range(25)
NAMES = ("n1", "n2", "n3", "n4")
Times = Callable[[Millis], Millis]


def same(instant: Millis) -> Millis:
    return instant


def demands(seed: int, count: int) -> list[Demand]:
    """A mixed queue of few owners, some of them at their caps; lengths of any minute."""
    rng = random.Random(seed)
    queue = []
    for order in range(count):
        gpus, nodes = rng.choices([(1, 1), (2, 1), (4, 1), (8, 1), (8, 2)], [40, 10, 20, 20, 10])[0]
        owner, cap = rng.choice([("ann", 16), ("bob", 16), ("cleo", 24), ("dan", 32)])
        length = rng.randint(5, 300) * MINUTE
        queue.append(Demand(f"d{order:03}", owner, gpus, nodes, length, cap, order))
    return queue


def filled(seed: int, count: int = 60, at: Times = same, span: Times = same) -> Plan:
    """Four nodes, every GPU busy for a while, and a queue; `at` and `span` make instants and lengths."""
    rng = random.Random(-seed)
    plan = Plan(PlanNode(name, 8, "rack") for name in NAMES)
    for name in NAMES:
        for slot in range(8):
            end = rng.randint(1, 480) * MINUTE
            plan.occupy(f"{name}-{slot}", f"holder {slot % 3}", 1, (name,), at(0), at(end))
    for demand in demands(seed, count):
        wanted = replace(demand, length=span(demand.length))
        place = plan.earliest(wanted, at(0))
        assert place is not None
        plan.put(wanted, place)
    return plan


def release_some(plan: Plan, seed: int, now: Millis) -> None:
    for key in random.Random(seed).sample(sorted(plan.timetable.occupations), 5):
        plan.vacate(key, now)


def places(plan: Plan) -> dict[str, Place]:
    return {demand.key: place for demand, place in placed_in(plan)}


def moved(place: Place, at: Times) -> Place:
    return Place(at(place.start), at(place.end), place.nodes)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("at", "span"),
    [
        (lambda instant: instant + 1_790_000_000_123, same),
        (lambda instant: 7 * instant, lambda length: 7 * length),
    ],
    ids=["shift", "scale"],
)
def test_times_moved_or_scaled_move_or_scale_the_plan(seed: int, at: Times, span: Times) -> None:
    plain, other = filled(seed, 40), filled(seed, 40, at, span)
    assert places(other) == {key: moved(place, at) for key, place in places(plain).items()}
    now = 10 * MINUTE
    for plan, instant in ((plain, now), (other, at(now))):
        release_some(plan, seed, instant)
        plan.fill_holes(instant)
        assert plan.compress(instant, lambda: False)[1]
    assert places(other) == {key: moved(place, at) for key, place in places(plain).items()}


@pytest.mark.parametrize("seed", SEEDS)
def test_asking_and_cancelling_moves_nobody_later(seed: int) -> None:
    plan = filled(seed)
    before = places(plan)
    for extra in demands(seed + 1000, 5):
        wanted = replace(extra, key=f"x{extra.key}", order=extra.order + 1000)
        place = plan.earliest(wanted, 0)
        assert place is not None
        plan.put(wanted, place)
        assert {**before, wanted.key: place} == places(plan)
        plan.lift(wanted.key)
        plan.fill_holes(0)
        plan.compress(0, lambda: False)
        after = places(plan)
        assert after.keys() == before.keys()
        assert all(after[key].start <= before[key].start for key in before)
        before = after


@pytest.mark.parametrize("seed", SEEDS)
def test_the_cascade_may_be_cut_into_slices_anywhere(seed: int) -> None:
    whole, sliced = filled(seed), filled(seed)
    now = 10 * MINUTE
    for plan in (whole, sliced):
        release_some(plan, seed, now)
        plan.fill_holes(now)
    whole.compress(now, lambda: False)
    rng = random.Random(seed)
    done = False
    while not done:
        before = places(sliced)
        moves, done = sliced.compress(now, lambda: rng.random() < 0.1)
        after = places(sliced)
        assert {key: place for key, place in after.items() if place != before[key]} == moves
        assert all(now <= place.start < before[key].start for key, place in moves.items())
    assert places(sliced) == places(whole)


@pytest.mark.parametrize("seed", SEEDS)
def test_rebuilt_from_stored_places_in_any_order_the_plan_is_the_same(seed: int) -> None:
    now = 10 * MINUTE
    plan = filled(seed)
    release_some(plan, seed, now)
    plan.fill_holes(now)
    plan.compress(now, lambda: False)
    rebuilt = Plan(PlanNode(name, 8, "rack") for name in NAMES)
    for key, claim in sorted(plan.timetable.occupations.items(), reverse=True):
        assert rebuilt.occupy(key, claim.owner, claim.gpus, claim.nodes, claim.start, claim.end) == []
    stored = placed_in(plan)
    random.Random(seed).shuffle(stored)
    for demand, place in stored:
        assert rebuilt.fits(demand, place, now)
        rebuilt.put(demand, place)
    instants = {now, *(place.start for _, place in stored), *(place.end for _, place in stored)}
    for at in instants:
        assert [free_on(plan, name, at) for name in NAMES] == [free_on(rebuilt, name, at) for name in NAMES]
    assert rebuilt.compress(now, lambda: False) == ({}, True)
    for one in (plan, rebuilt):
        release_some(one, seed + 1, 2 * now)
        one.fill_holes(2 * now)
        one.compress(2 * now, lambda: False)
    assert places(plan) == places(rebuilt)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_learnt_of_earlier_searches_changes_no_answer(seed: int) -> None:
    """A plan that has searched a lot, and a new one of the same places, give the same answers."""
    plan = filled(seed, 80)
    release_some(plan, seed, HOUR)
    plan.fill_holes(HOUR)
    for probe in demands(seed + 7, 30):
        fresh = Plan(PlanNode(name, 8, "rack") for name in NAMES)
        for key, claim in plan.timetable.occupations.items():
            fresh.occupy(key, claim.owner, claim.gpus, claim.nodes, claim.start, claim.end)
        for demand, place in placed_in(plan):
            fresh.put(demand, place)
        wanted = replace(probe, key="probe", order=10**6)
        assert plan.earliest(wanted, HOUR) == fresh.earliest(wanted, HOUR)


@pytest.mark.parametrize("seed", range(8))
def test_the_longest_extension_named_is_granted_and_breaks_no_promise(seed: int) -> None:
    plan = filled(seed)
    promises = {key: place.start + (int(key[1:]) % 4) * HOUR for key, place in places(plan).items()}
    refused = 0
    for key in sorted(plan.timetable.occupations)[::5]:
        end = plan.timetable.occupations[key].end
        wanted = end + 9 * HOUR
        if plan.extend(key, wanted, 0, promises.__getitem__) is None:
            refused += 1
            longest = plan.longest_grantable(key, 0, wanted, promises.__getitem__)
            assert longest_extension(plan, key, 0, wanted) <= longest < wanted
            if longest > end:
                before = places(plan)
                moves = plan.extend(key, longest, 0, promises.__getitem__)
                assert moves is not None
                assert {**before, **moves} == places(plan)
        assert all(place.start <= promises[held] for held, place in places(plan).items())
    assert refused
