"""Invariants 4 and 6 of the plan over long random histories, judged by the brute-force oracle."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gpudev_hub.core.model import MINUTE, Millis, Place
from gpudev_hub.core.planning.plan import FOREVER, Demand, Plan, PlanNode, Wanted
from plans import free_on, longest_extension, placed_in

from . import oracle

UNIT = 10 * MINUTE
CAPS = {"ann": 16, "bob": 8, "cleo": 10}
SHAPES = [(1, 1), (2, 1), (4, 1), (4, 1), (8, 1), (8, 2)]
Ask = tuple[str, tuple[int, int], int, tuple[str, ...], int]
ASKS: st.SearchStrategy[Ask] = st.tuples(
    st.sampled_from(sorted(CAPS)),
    st.sampled_from(SHAPES),
    st.integers(1, 14),
    st.sampled_from([(), (), (), (), (), (), ("n1",), ("n2",)]),  # excluded
    st.sampled_from([0, 0, 0, 0, 0, 4]),  # how much tighter the cap was when asked
)
pick = st.integers(0, 10**6)


class Histories(RuleBasedStateMachine):
    """Two nodes of 8, a third that comes and goes, in one group or in two; caps low enough to bind."""

    def __init__(self) -> None:
        super().__init__()
        self.now: Millis = 1000 * UNIT
        self.nodes = {name: PlanNode(name, 8, "rack-1") for name in ("n1", "n2")}
        self.down: dict[str, PlanNode] = {"n3": PlanNode("n3", 8, "rack-2")}
        self.plan = Plan(self.nodes.values())
        self.claims: dict[str, oracle.Taken] = {}
        self.queued: dict[str, tuple[Demand, Place]] = {}
        self.blocked: list[Demand] = []
        """Those that no node can take at present."""
        self.promises: dict[str, Millis] = {}
        self.count = 0
        self.settled = True

    # The model's own account

    def taken(self, without: str | None = None) -> list[oracle.Taken]:
        return [
            *(claim for key, claim in self.claims.items() if key != without),
            *(oracle.taken_by(*entry) for key, entry in self.queued.items() if key != without),
        ]

    def in_order(self) -> list[tuple[Demand, Place]]:
        return sorted(self.queued.values(), key=lambda entry: entry[0].order)

    def chosen(self, keys: dict[str, object], which: int) -> str:
        return sorted(keys)[which % len(keys)]

    # Judging the plan

    def accept(self, moves: dict[str, Place]) -> None:
        for key, place in moves.items():
            demand, old = self.queued[key]
            assert self.now <= place.start < old.start, f"{key} was moved from {old} to {place}"
            self.queued[key] = (demand, place)

    def place(self, demand: Demand) -> None:
        """Ask for a place, compare with the oracle's, and take it."""
        taken = self.taken()
        place = self.plan.earliest(demand, self.now)
        expected = oracle.earliest(self.nodes, taken, demand, self.now)
        assert (None if place is None else place.start) == expected
        if place is None:
            self.blocked.append(demand)
            return
        assert oracle.feasible(self.nodes, taken, demand, place)
        assert self.plan.fits(demand, place, self.now)
        assert self.plan.earliest(demand, self.now, before=place.start) is None
        assert self.plan.earliest(demand, self.now, before=place.start + 1) == place
        self.plan.put(demand, place)
        self.queued[demand.key] = (demand, place)
        self.promises[demand.key] = place.start + demand.order % 3 * 8 * UNIT

    def lost(self, keys: list[str]) -> None:
        """Demands that the plan had to lift are placed again, in queue order."""
        lifted = [self.queued.pop(key)[0] for key in keys]
        assert lifted == sorted(lifted, key=lambda demand: demand.order)
        assert not [key for key in keys if self.plan.place_of(key)]
        self.arrange(lifted)

    def arrange(self, demands: list[Demand]) -> None:
        """The older first; the younger make way within their promises, and nobody else is touched."""
        if not demands:
            return
        before = dict(self.queued)
        moves = self.plan.arrange([Wanted(demand) for demand in demands], self.now, self.promises.__getitem__)
        first = min(demand.order for demand in demands)
        for demand in demands:
            place = moves.pop(demand.key)
            if place is None:
                self.blocked.append(demand)
            else:
                self.queued[demand.key] = (demand, place)
                known = self.promises.get(demand.key, place.start + demand.order % 3 * 8 * UNIT)
                self.promises[demand.key] = max(known, place.start)
        for key, moved in moves.items():
            assert moved is not None
            assert before[key][0].order > first, f"{key} is older than all who were placed"
            assert moved.start <= self.promises[key]
            self.queued[key] = (before[key][0], moved)
        self.oldest_is_first(demands, before)

    def oldest_is_first(self, demands: list[Demand], before: dict[str, tuple[Demand, Place]]) -> None:
        """The oldest is as early as if nobody younger were there, unless somebody could not make way."""
        oldest = min(demands, key=lambda demand: demand.order)
        older = [
            *self.claims.values(),
            *(oracle.taken_by(*entry) for entry in self.queued.values() if entry[0].order < oldest.order),
        ]
        best = oracle.earliest(self.nodes, older, oldest, self.now)
        place = self.plan.place_of(oldest.key)
        if best is None or (place is not None and place.start == best):
            assert (best is None) == (place is None)
            return
        slack = [self.promises[key] - entry[1].start for key, entry in before.items()]
        assert min(slack, default=FOREVER) < 20 * UNIT, f"{oldest} could start at {best}, not at {place}"

    def settle(self, cascade: bool = True) -> None:
        """What follows every gain: holes filled, nobody waiting who could start now, then the cascade."""
        self.accept(self.plan.fill_holes(self.now))
        for key, (demand, place) in self.queued.items():
            if place.start > self.now:
                start = oracle.earliest(self.nodes, self.taken(key), demand, self.now, self.now + 1)
                assert start is None, f"{key} could start now"
        self.settled = False
        if cascade:
            moves, done = self.plan.compress(self.now, lambda: False)
            self.accept(moves)
            assert done
            self.settled = True
            for key, (demand, place) in self.queued.items():
                if place.start > self.now:
                    start = oracle.earliest(self.nodes, self.taken(key), demand, self.now, place.start)
                    assert start is None, f"{key} could start at {start} instead of {place.start}"

    @invariant()
    def the_plan_is_feasible(self) -> None:
        assert placed_in(self.plan) == self.in_order()
        for key, (demand, place) in self.queued.items():
            assert oracle.feasible(self.nodes, self.taken(key), demand, place), (demand, place)

    @invariant()
    def the_profile_is_what_is_taken(self) -> None:
        taken = self.taken()
        for at in {self.now, *(t.end for t in taken), *(t.start for t in taken)}:
            if not self.now <= at < oracle.NEVER:
                continue
            for name, node in self.nodes.items():
                over = node.until is not None and at >= node.until
                free = 0 if over else max(0, node.gpus - oracle.load(taken, name, at))
                assert free_on(self.plan, name, at) == free

    @invariant()
    def promises_hold(self) -> None:
        for key, (_, place) in self.queued.items():
            assert place.start <= self.promises[key]

    # What happens

    @initialize(ends=st.lists(st.integers(1, 40), max_size=6))
    def begin(self, ends: list[int]) -> None:
        for i, end in enumerate(ends):
            self.claim(f"old-{i}", oracle.Taken(None, 2, (f"n{1 + i % 2}",), self.now, self.now + end * UNIT))

    def claim(self, key: str, claim: oracle.Taken) -> None:
        end = None if claim.end == oracle.NEVER else claim.end
        lifted = self.plan.occupy(
            key, claim.owner or "", claim.gpus, claim.nodes, claim.start, end, claim.owner is not None
        )
        self.claims[key] = claim
        self.lost(lifted)

    @precondition(lambda self: len(self.queued) < 12)
    @rule(asks=st.lists(ASKS, min_size=1, max_size=5))
    def submit(self, asks: list[Ask]) -> None:
        """Nobody else's place changes, or the plan's own list would differ from ours."""
        for owner, shape, length, excluded, tighter in asks:
            self.count += 1
            key, cap = f"d{self.count:03}", CAPS[owner] - tighter
            self.place(Demand(key, owner, *shape, length * UNIT, cap, self.count, frozenset(excluded)))

    @precondition(lambda self: self.queued)
    @rule(which=pick, cascade=st.booleans())
    def cancel(self, which: int, cascade: bool) -> None:
        key = self.chosen({**self.queued}, which)
        assert self.plan.lift(key) == self.queued.pop(key)
        self.settle(cascade)

    @precondition(lambda self: self.claims)
    @rule(which=pick, cascade=st.booleans())
    def release(self, which: int, cascade: bool) -> None:
        key = self.chosen({**self.claims}, which)
        del self.claims[key]
        self.plan.vacate(key, self.now)
        self.settle(cascade)

    @precondition(lambda self: self.claims)
    @rule(which=pick, part=st.integers(1, 9), cascade=st.booleans())
    def end_sooner(self, which: int, part: int, cascade: bool) -> None:
        key = self.chosen({**self.claims}, which)
        claim = self.claims[key]
        if claim.end == oracle.NEVER or claim.end <= self.now + part * UNIT:
            return
        end = self.now + part * UNIT
        assert self.plan.reshape(key, end, claim.owner is not None) == []
        self.claims[key] = replace(claim, end=end)
        self.settle(cascade)

    @precondition(lambda self: self.claims)
    @rule(which=pick, by=st.integers(1, 30))
    def extend(self, which: int, by: int) -> None:
        key = self.chosen({**self.claims}, which)
        claim = self.claims[key]
        if claim.end == oracle.NEVER or claim.end < self.now:
            return
        limit = claim.end + by * UNIT
        held = longest_extension(self.plan, key, self.now, limit)
        assert held == oracle.longest_extension(self.nodes, self.taken(key), claim, self.now, limit)
        before = placed_in(self.plan)
        orderly = self.in_queue_order(key, replace(claim, end=limit))
        longest = self.plan.longest_grantable(key, self.now, limit, self.promises.__getitem__)
        assert held <= longest <= limit
        assert placed_in(self.plan) == before
        moves = self.plan.extend(key, limit, self.now, self.promises.__getitem__)
        if moves is None:
            assert not orderly, "all could start by their promises, in queue order"
            assert longest < limit
            assert placed_in(self.plan) == before
            if longest == claim.end:
                return
            limit = longest
            moves = self.plan.extend(key, limit, self.now, self.promises.__getitem__)
            assert moves is not None, f"{limit} was said to be grantable"
        assert bool(moves) == (limit > held)
        self.claims[key] = replace(claim, end=limit)
        self.nobody_is_overtaken(moves)
        for moved, place in moves.items():
            self.queued[moved] = (self.queued[moved][0], place)
        self.settle()

    def in_queue_order(self, key: str, longer: oracle.Taken) -> bool:
        """Whether all from the first in its way on can be placed one after the other, by their promises."""
        taken = [*(claim for other, claim in self.claims.items() if other != key)]
        if any(name not in self.nodes for name in longer.nodes):
            return False
        for name in longer.nodes:
            until = self.nodes[name].until
            ends = [longer.end if until is None else until]
            times = oracle.instants(taken, self.claims[key].end, longer.end)
            ends += [at for at in times if oracle.load(taken, name, at) + longer.gpus > self.nodes[name].gpus]
            if min(ends) < longer.end:
                return False
        taken.append(longer)
        moving = False
        for demand, place in self.in_order():
            moving = moving or not oracle.feasible(self.nodes, taken, demand, place)
            found = place
            if moving:
                there = oracle.earliest_place(self.nodes, taken, demand, self.now)
                if there is None or there.start > self.promises[demand.key]:
                    return False
                stays = there.start >= place.start and oracle.feasible(self.nodes, taken, demand, place)
                found = place if stays else there
            taken.append(oracle.taken_by(demand, found))
        return True

    def nobody_is_overtaken(self, moves: dict[str, Place]) -> None:
        """Of those moved, nobody would be earlier without the younger ones among them."""
        after = {**self.queued, **{key: (self.queued[key][0], place) for key, place in moves.items()}}
        for key, place in moves.items():
            demand, old = self.queued[key]
            if place.start <= old.start:
                continue
            others = [
                *self.claims.values(),
                *(
                    oracle.taken_by(*entry)
                    for other, entry in after.items()
                    if other != key and not (other in moves and entry[0].order > demand.order)
                ),
            ]
            better = oracle.earliest(self.nodes, others, demand, self.now, before=place.start)
            assert better is None, f"{key} makes way for a younger one: {better}, not {place.start}"

    @rule(by=st.integers(1, 4), cascade=st.booleans())
    def time_passes(self, by: int, cascade: bool) -> None:
        """Ends before starts; then whoever is due starts, as far as the slots are there."""
        self.now += by * UNIT
        for key, claim in list(self.claims.items()):
            if claim.end <= self.now:
                del self.claims[key]
                self.plan.vacate(key, self.now)
        for demand, place in self.in_order():
            if place.start <= self.now:
                del self.queued[demand.key]
                self.claim(demand.key, replace(oracle.taken_by(demand, place), cap=None))
        self.plan.trim(self.now)
        self.settle(cascade)

    @precondition(lambda self: self.claims)
    @rule(which=pick)
    def overrun(self, which: int) -> None:
        """Not seen gone at its end: it stays, for nobody knows how long, and no longer counts."""
        key = self.chosen({**self.claims}, which)
        claim = replace(self.claims[key], end=oracle.NEVER, owner=None)
        self.claims[key] = claim
        self.lost(self.plan.reshape(key, None, counts=False))
        self.settle()

    @rule(which=pick)
    def node_down(self, which: int) -> None:
        if self.down:
            return
        name = self.chosen({**self.nodes}, which)
        self.down[name] = self.nodes.pop(name)
        self.lost(self.plan.remove_node(name))
        self.settle()

    @precondition(lambda self: self.down)
    @rule(
        which=pick,
        until=st.sampled_from([None, None, None, 40]),
        gpus=st.sampled_from([8, 8, 8, 4]),
        group=st.sampled_from(["rack-1", "rack-1", "rack-1", "rack-2"]),
    )
    def node_up(self, which: int, until: int | None, gpus: int, group: str) -> None:
        name = self.chosen({**self.down}, which)
        end = None if until is None else self.now + until * UNIT
        self.nodes[name] = replace(self.down.pop(name), until=end, gpus=gpus, group=group)
        self.lost(self.plan.set_node(self.nodes[name]))
        waiting, self.blocked = self.blocked, []
        self.arrange(sorted(waiting, key=lambda demand: demand.order))
        self.settle()

    @rule(which=pick, until=st.sampled_from([None, None, None, 40]), gpus=st.sampled_from([8, 8, 8, 4]))
    def node_changes(self, which: int, until: int | None, gpus: int) -> None:
        name = self.chosen({**self.nodes}, which)
        end = None if until is None else self.now + until * UNIT
        self.nodes[name] = replace(self.nodes[name], until=end, gpus=gpus)
        self.lost(self.plan.set_node(self.nodes[name]))
        self.settle()

    @rule(visits=st.integers(1, 12))
    def cascade_in_a_slice(self, visits: int) -> None:
        """Stopping after any move keeps everybody's place or betters it."""
        left = iter(range(visits - 1, -1, -1))
        moves, done = self.plan.compress(self.now, lambda: next(left) == 0)
        self.accept(moves)
        self.settled = self.settled or done

    @rule(seed=st.randoms(use_true_random=False))
    def restart(self, seed: object) -> None:
        """Rebuilt from the stored places in any order, the plan is the same."""
        plan = Plan(self.nodes.values())
        for key, claim in self.claims.items():
            end = None if claim.end == oracle.NEVER else claim.end
            plan.occupy(
                key, claim.owner or "", claim.gpus, claim.nodes, claim.start, end, claim.owner is not None
            )
        for demand, place in sorted(self.queued.values(), key=lambda entry: entry[0].key[::-1]):
            assert plan.fits(demand, place, self.now)
            plan.put(demand, place)
        assert placed_in(plan) == placed_in(self.plan)
        self.plan = plan
        self.settle()


Histories.TestCase.settings = settings(
    max_examples=180, stateful_step_count=60, suppress_health_check=list(HealthCheck)
)
TestHistories = pytest.mark.timeout(600)(
    Histories.TestCase
)  # passing takes seconds, shrinking a failure minutes
