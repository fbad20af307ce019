"""Long random histories of everything that can happen, judged after every decision.

Beside the core runs a tiny cluster, which knows what really runs: a server runs from the moment its start is
made until it is stopped or crashes.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from coreworld import HOUR, MINUTE, SECOND, Driver, nodes, owner, policy
from gpudev_hub.core.access_model import Access, LimitRule
from gpudev_hub.core.commit import Change
from gpudev_hub.core.decisions.decide import decide, next_due
from gpudev_hub.core.decisions.default_names import default_names
from gpudev_hub.core.decisions.recovery import rebuild
from gpudev_hub.core.effects import Decision, StartServer, StopServer
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.events import (
    AccessLost,
    ClearLimits,
    Compress,
    End,
    Event,
    Extend,
    NodesObserved,
    NodeUnknown,
    OperatorNode,
    Outage,
    OwnerKnown,
    PersonSeen,
    Resume,
    ServerObserved,
    ServerReady,
    SetLimits,
    StartFailed,
    StopIntent,
    Submit,
    Tick,
)
from gpudev_hub.core.limits.budgets import use_of
from gpudev_hub.core.limits.periods import Period
from gpudev_hub.core.limits.rules import NAMES, Name, limits_of
from gpudev_hub.core.model import (
    Claim,
    ClaimState,
    Node,
    NodeStatus,
    Presence,
    Request,
    Reservation,
    Shape,
    State,
)
from gpudev_hub.core.policy import Allowances
from gpudev_hub.core.views.availability import Forecast, SizeOutlook
from gpudev_hub.core.views.reasons import Outlook
from gpudev_hub.core.words import plain

from . import judge

PEOPLE = ("ann", "bob", "cleo")
POLICY = policy(
    allowances=Allowances(running_gpus=8, queued_requests=4, hold_with_extensions=8 * HOUR),
    personal={"local:ann": LimitRule("person:local:ann", None, "", 0, running_gpus=16, gpu_hours=90)},
)
SHAPES = (Shape(1), Shape(2), Shape(4), Shape(4), Shape(8), Shape(8, 2))
ALIVE = (State.STARTING, State.READY)
pick = st.integers(0, 10**6)
SCOPES = st.sampled_from(["default", "person:local:ann", "person:local:bob"])
POOLS = st.sampled_from([None, "h100"])
VALUES: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {},
    optional={
        "running_gpus": st.sampled_from([2, 4, 8, 16]),
        "queued_requests": st.integers(1, 6),
        "hold_per_request": st.integers(1, 24).map(lambda hours: hours * HOUR),
        "gpu_hours": st.integers(10, 100),
        "gpu_hours_week": st.integers(10, 300),
        "gpu_hours_month": st.integers(10, 300),
    },
).filter(bool)
Ask = tuple[str, Shape, int, int]
ASKS: st.SearchStrategy[Ask] = st.tuples(
    st.sampled_from(PEOPLE), st.sampled_from(SHAPES), st.integers(1, 16), st.integers(0, 9)
)


class Judged(Driver):
    """Every decision is judged as it is committed; `running` is what really runs."""

    def __init__(self) -> None:
        self.running: set[tuple[str, int]] = set()
        self.to_start: list[tuple[str, int]] = []
        self.to_stop: list[tuple[str, int]] = []
        self.away: list[tuple[int, int]] = []
        """Since and until when nobody looked; a restart takes no time, and forgets who waits for what."""
        self.waited_for: dict[str, set[str]] = {}
        self.latest: dict[str, Reservation] = {}
        """The last record of every reservation, ended or not."""
        super().__init__(POLICY, nodes(2))

    def do(self, event: Event) -> Decision:
        before = dict(self.world.reservations)
        claims = dict(self.world.claims)
        start = len(self.folded.history)
        try:
            decision = super().do(event)
        except Refused:
            assert not self.causes_of_request(event, start), "a refusal leaves nothing of the request"
            raise
        changes = [change for _, _, change in self.folded.history[start:]]
        judge.changes_are_lawful(before, changes, self.now)
        self.late_starts_are_told_truly(before, changes)
        judge.state_is_right(self.world, self.now, self.policy.warn_minutes)
        judge.quotas_hold(self.world)
        judge.plan_is_the_records(self.world)
        self.only_what_is_asked_for_is_spent(event, changes)
        self.slots_return_only_when_gone(claims)
        self.perform(decision)
        return decision

    def only_what_is_asked_for_is_spent(self, event: Event, changes: list[Change]) -> None:
        """7: nothing but a request or an extension adds to what counts towards a budget; and it is kept."""
        before = dict(self.latest)
        self.latest.update({c.record.id: c.record for c in changes if isinstance(c.record, Reservation)})
        for who in PEOPLE:
            for period in Period:
                known = judge.counted(self.latest, f"local:{who}", period, self.now)
                if not isinstance(event, Submit | Extend):
                    least = judge.counted(before, f"local:{who}", period, self.now)
                    assert known <= least, f"invariant 7: {event} spends {known - least} GPU-hours of {who}"
                live = self.world.of_owner(f"local:{who}")
                use = use_of(self.world, f"local:{who}", ("h100",), live, period, self.now)
                assert use.total / HOUR == pytest.approx(known), f"invariant 7: {who} has spent {known}"

    def late_starts_are_told_truly(self, before: dict[str, Reservation], changes: list[Change]) -> None:
        """An outage is the cause only if nobody looked, an overrun only if that server was waited for."""
        for change in changes:
            record = change.record
            cause = change.cause
            said = {one.code: one.values for one in judge.sentences_in(change.detail)}
            if not isinstance(record, Reservation) or "late_start" not in said:
                continue
            late = before[str(said["late_start"]["reservation"])]
            place = late.place or late.lost
            assert place is not None
            if cause == "outage":
                away = any(until > place.start for _, until in self.away)
                assert away, f"{change}, and nobody was away"
            else:
                assert cause in ("stop_overran", "node_changed"), change
                why = said["because"]["why"]
                told = re.match(r"(?:the (?:server|state) of )?(\S+)", plain(why, self.now))
                assert told is not None
                assert told[1] in self.waited_for[late.id], f"{change}: it did not wait for that"
        for ref, record in self.world.reservations.items():
            if record.state is State.QUEUED and record.place is not None and record.place.start <= self.now:
                overdue = [c for c in self.world.claims.values() if c.hard_end <= self.now]
                ways = {c.reservation for c in overdue if judge.in_its_way(c, record)}
                gone = {name for name in record.place.nodes if not self.world.is_up(name)}
                self.waited_for.setdefault(ref, set()).update(ways | gone)
            if record.blocked is not None and record.lost is not None:
                self.waited_for.setdefault(ref, set()).update(record.lost.nodes)

    def causes_of_request(self, event: Event, start: int) -> list[str]:
        wanted = {"requested", "extended", "released", "cancelled", "restarted", "minted", "used"}
        return [
            c.cause for _, _, c in self.folded.history[start:] if c.cause in wanted and c.actor != "service"
        ]

    def slots_return_only_when_gone(self, before: dict[tuple[str, int], Claim]) -> None:
        for key in before.keys() - self.world.claims.keys():
            assert key not in self.running, f"invariant 8: slots of {key} are free, and its server runs"

    def perform(self, decision: Decision) -> None:
        for effect in decision.effects:
            if isinstance(effect, StartServer):
                self.to_start.append((effect.id, effect.attempt))
            elif isinstance(effect, StopServer):
                self.to_stop.append((effect.id, effect.attempt))

    def allowed(self, key: tuple[str, int]) -> bool:
        """What the gate answers when the Hub asks whether this attempt may start."""
        reservation = self.world.reservations.get(key[0])
        claim = self.world.claims.get(key)
        return (
            reservation is not None
            and claim is not None
            and claim.state is ClaimState.HELD
            and reservation.state in ALIVE
            and reservation.stopped_at is None
        )

    def start(self, key: tuple[str, int]) -> None:
        if not self.allowed(key) or key in self.running:
            return
        mine = {(p.node, i) for p in self.world.claims[key].allocation for i in p.slots}
        for other in self.running:
            taken = {(p.node, i) for p in self.world.claims[other].allocation for i in p.slots}
            assert not mine & taken, f"invariant 1: {key} and {other} run on the same slots"
        self.running.add(key)
        self.do(ServerObserved(*key, Presence.PRESENT))

    def gone(self, key: tuple[str, int], detail: str = "") -> None:
        self.running.discard(key)
        self.do(ServerObserved(*key, Presence.ABSENT, detail))

    def answer(self) -> None:
        """Everything that was asked for is done: stops first, then starts, and those become ready."""
        while self.to_stop or self.to_start:
            stops, self.to_stop = self.to_stop, []
            for key in dict.fromkeys(stops):
                if not self.allowed(key):
                    self.gone(key)
            starts, self.to_start = self.to_start, []
            for key in dict.fromkeys(starts):
                self.start(key)
                if key in self.running:
                    self.do(ServerReady(*key))

    def restart(self) -> None:
        rebuilt = rebuild(self.policy, self.folded.snapshot, self.now)
        if not self.world.displaced:
            judge.same_state(self.world, rebuilt, self.now)
        self.world = rebuilt
        self.away.append((self.now, self.now + 1))


class Histories(RuleBasedStateMachine):
    """Two nodes of 8, three people, limits that bind."""

    def __init__(self) -> None:
        super().__init__()
        self.d = Judged()
        self.count = 0

    def some(self, which: int, *states: State) -> Reservation | None:
        found = [r for r in self.d.world.reservations.values() if r.state in states]
        return sorted(found, key=lambda r: r.seq)[which % len(found)] if found else None

    # Requests

    @initialize(asks=st.lists(ASKS, min_size=4, max_size=10), ready=st.booleans())
    def a_crowd(self, asks: list[Ask], ready: bool) -> None:
        for ask in asks:
            self.submit_one(*ask)
        if ready:
            self.d.answer()

    @rule(asks=st.lists(ASKS, min_size=1, max_size=4))
    def submit(self, asks: list[Ask]) -> None:
        for ask in asks:
            self.submit_one(*ask)

    @rule(ask=ASKS, ready=st.booleans())
    def submit_and_answer(self, ask: Ask, ready: bool) -> None:
        self.submit_one(*ask)
        if ready:
            self.d.answer()

    def submit_one(self, who: str, shape: Shape, hold: int, name: int) -> None:
        self.count += 1
        limits = limits_of(POLICY, self.d.world, f"local:{who}", "h100").values
        mine = self.d.world.of_owner(f"local:{who}")
        queued = sum(r.state is State.QUEUED for r in mine)
        words = f"n{name}" if name < 3 else None
        request = Request(shape, "h100", hold * 15 * MINUTE, "base", words)
        ref, request_id = f"r{self.count}", f"request-{self.count}"
        due = next_due(self.d.world, self.d.now)
        exact = self.d.world.settled() and (due is None or due > self.d.now)
        # Without access nobody gets as far as a picker.
        said = None if self.is_revoked(who) else self.foretell(who, request)
        try:
            self.d.do(Submit(ref, owner(who), request, request_id, default_names(ref)))
        except Refused as refused:
            assert (refused.code is Code.ACCESS_REVOKED) is self.is_revoked(who)  # noqa: PT017
            if self.is_revoked(who):
                return
            if said is not None:
                self.refusal_was_said(said, refused)
            hours = sum(r.request.shape.total_gpus * r.request.hold for r in mine) / HOUR
            more = shape.total_gpus * request.hold / HOUR
            counted = [hours, *(judge.counted(self.d.latest, f"local:{who}", p, self.d.now) for p in Period)]
            most = (limits.gpu_hours, limits.gpu_hours_week, limits.gpu_hours_month)
            over = any(m is not None and c + more > m for c, m in zip(counted, most, strict=True))
            expected = {
                Code.QUOTA_EXCEEDED: queued >= limits.queued_requests
                or shape.total_gpus > limits.running_gpus
                or request.hold > limits.hold_per_request
                or over,
                Code.NAME_TAKEN: any(
                    words is not None and r.request.name == words and r.state is not State.STOPPING
                    for r in mine
                ),
            }
            assert expected.get(refused.code), refused.message  # noqa: PT017
            return
        assert not self.is_revoked(who), "invariant 13: somebody without access may reserve"
        assert queued < limits.queued_requests, "invariant 7: one queued request too many"
        self.within_budgets(f"local:{who}")
        assert said is None or said.refused is None, f"it was said to be refused: {said}"
        if said is not None and exact:
            self.what_was_said_is_so(said, self.d.get(ref))
        again = self.d.do(Submit("another", owner(who), request, request_id)).reservation
        assert again is not None
        assert again.id == ref, "the same request id is the same reservation"
        assert again.request.name == words or (words is None and again.request.name in default_names(ref))

    def foretell(self, who: str, request: Request) -> SizeOutlook | None:
        """What picker, terminal and library say of a request, from what is committed."""
        snapshot = self.d.folded.copy().snapshot
        outlook = Outlook(POLICY, snapshot)
        sizes = Forecast(outlook).sizes(owner(who), POLICY.pools[0], request.hold, self.d.now)
        shape = request.shape
        said = next((s for s in sizes if (s.gpus, s.nodes) == (shape.gpus, shape.nodes)), None)
        if said is None:
            # No pair is offered where a node is gone: who asks for one is refused before any decision.
            assert len(self.d.world.nodes) < shape.nodes
            return None
        assert said.free_now > 0 or not said.starts_now
        if said.free_now > 0 and not said.starts_now and said.refused is None:
            words = plain(said.reason or "", self.d.now)
            assert "limit of" in words or words.startswith("about to start"), f"free, and why not? {said}"
        if said.longest_now is not None:
            assert said.longest_now <= said.longest, "the limits allow it"
            world = rebuild(POLICY, snapshot, self.d.now)
            shorter = Submit("?", owner(who), replace(request, hold=said.longest_now, name=None))
            became = decide(world, shorter, self.d.now).reservation
            assert became is not None
            assert became.state is State.STARTING, f"it would start at once, was said: {said}"
        assert request.hold <= said.longest or said.refused is not None, f"over the limits: {said}"
        return said

    def refusal_was_said(self, said: SizeOutlook, refused: Refused) -> None:
        told = said.refused
        if refused.code is Code.NAME_TAKEN:
            assert told is None, "limits come first, and nobody was asked about the name"
        else:
            assert told is not None, f"nothing was said of {refused.message}"
            assert (told.code, told.message, told.hint) == (refused.code, refused.message, refused.hint)

    def what_was_said_is_so(self, said: SizeOutlook, became: Reservation) -> None:
        d = self.d
        assert said.starts_now is (became.state is State.STARTING), f"{became}, and it was said: {said}"
        if became.state is State.STARTING:
            return
        start = None if became.place is None else became.place.start
        assert said.earliest_start == start
        outlook = Outlook(POLICY, d.world)
        assert said.reason == outlook.explain(became, d.now)

    @rule(which=pick)
    def end(self, which: int) -> None:
        if reservation := self.some(which, *State):
            self.d.do(End(reservation.id, reservation.owner.subject))

    @rule(which=pick, quarters=st.integers(1, 12))
    def extend(self, which: int, quarters: int) -> None:
        if not (reservation := self.some(which, *ALIVE)):
            return
        event = Extend(reservation.id, reservation.owner.subject, quarters * 15 * MINUTE)
        try:
            after = self.d.do(event).reservation
        except Refused as refused:
            live = reservation.id in self.d.world.reservations
            revoked = self.is_revoked(reservation.owner.hub_user)
            expected = Code.ACCESS_REVOKED if revoked else Code.EXTENSION_REFUSED
            assert refused.code is expected or not live  # noqa: PT017
            if " --hours " in refused.hint and refused.code is Code.EXTENSION_REFUSED:
                by = round(float(refused.hint.rpartition(" ")[2].removesuffix("`.")) * HOUR)
                assert by < event.by, "rule 3: more is offered than was asked for"
                self.d.do(Extend(reservation.id, reservation.owner.subject, by))
            return
        assert after is not None
        assert after.extended == reservation.extended + event.by
        self.within_budgets(reservation.owner.subject)

    def within_budgets(self, subject: str) -> None:
        limits = limits_of(POLICY, self.d.world, subject, "h100").values
        for period, limit in ((Period.WEEK, limits.gpu_hours_week), (Period.MONTH, limits.gpu_hours_month)):
            counted = judge.counted(self.d.latest, subject, period, self.d.now)
            assert limit is None or counted <= limit, f"invariant 7: {subject} has {counted} of {limit}"

    # Limits

    @rule(scope=SCOPES, pool=POOLS, values=VALUES)
    def set_limits(self, scope: str, pool: str | None, values: dict[Name, int]) -> None:
        """What runs and what is planned stays as it is, or gets better."""
        before = dict(self.d.world.reservations)
        due = next_due(self.d.world, self.d.now)
        self.d.do(SetLimits(scope, pool, values, "local:root", "a test"))
        rule = self.d.world.limits[scope, pool]
        assert all(getattr(rule, name) == value for name, value in values.items())
        if due is None or due > self.d.now:
            for ref, old in before.items():
                new = self.d.world.reservations[ref]
                assert new.promise == old.promise
                assert new.state is old.state or (old.state, new.state) == (State.QUEUED, State.STARTING)
                assert old.hard_end in (None, new.hard_end)
                assert new.cap >= old.cap, "a lowered limit is for new requests"

    @rule(scope=SCOPES, pool=POOLS, names=st.sets(st.sampled_from(NAMES), max_size=2))
    def clear_limits(self, scope: str, pool: str | None, names: set[Name]) -> None:
        self.d.do(ClearLimits(scope, pool, "local:root", tuple(sorted(names))))
        rule = self.d.world.limits.get((scope, pool))
        assert rule is None or (names and all(getattr(rule, name) is None for name in names))

    @rule(which=pick, gone=st.booleans(), again=st.booleans())
    def stopped_by_its_user(self, which: int, gone: bool, again: bool) -> None:
        if reservation := self.some(which, *ALIVE):
            self.d.do(StopIntent(reservation.id))
            if gone:
                self.d.gone((reservation.id, reservation.attempt))
            if again:
                self.resume(which)

    def resume(self, which: int) -> None:
        if reservation := self.some(which, *ALIVE):
            try:
                self.d.do(Resume(reservation.id, reservation.owner.subject))
            except Refused as refused:
                revoked = self.is_revoked(reservation.owner.hub_user)
                assert refused.code is (Code.ACCESS_REVOKED if revoked else Code.WRONG_STATE)  # noqa: PT017

    # Access

    def is_revoked(self, who: str) -> bool:
        person = self.d.world.people.get(f"local:{who}")
        return person is not None and person.access is Access.REVOKED

    @rule(who=st.sampled_from(PEOPLE), minutes=st.integers(0, 40), back=st.booleans())
    def access_is_lost(self, who: str, minutes: int, back: bool) -> None:
        """It comes back before the grace is over, after it, or not yet."""
        subject = f"local:{who}"
        self.d.do(PersonSeen(subject, who, who, (), False, self.d.now))
        self.d.do(AccessLost(subject, "left the team", "service"))
        assert self.is_revoked(who)
        if back:
            self.go(self.d.now + minutes * MINUTE, answered=True)
            self.access_is_back(who)

    @rule(who=st.sampled_from(PEOPLE))
    def access_is_back(self, who: str) -> None:
        self.d.do(PersonSeen(f"local:{who}", who, who, (), False, self.d.now))
        assert not self.is_revoked(who)

    # Time

    @rule(minutes=st.integers(0, 90), answered=st.booleans())
    def pass_time(self, minutes: int, answered: bool) -> None:
        self.go(self.d.now + minutes * MINUTE + 7 * SECOND, answered)

    def go(self, to: int, answered: bool) -> None:
        while (due := next_due(self.d.world, self.d.now)) is not None and due <= to:
            self.d.go(due)
            if answered:
                self.d.answer()
        self.d.go(to)

    @rule(which=pick, seconds=st.integers(1, 59))
    def a_server_takes_its_time_to_stop(self, which: int, seconds: int) -> None:
        waits = self.some(which, State.QUEUED)
        if waits is not None and waits.place is not None and waits.place.start > self.d.now:
            self.go(waits.place.start - 1, answered=True)
            self.go(waits.place.start + seconds * SECOND, answered=False)
            self.d.answer()

    @rule()
    def answer(self) -> None:
        self.d.answer()

    @rule()
    def compress(self) -> None:
        self.d.do(Compress(budget_ms=1))

    @rule(minutes=st.integers(0, 200))
    def service_away(self, minutes: int) -> None:
        """Down for a while, or no time at all: nothing ticked, and all is built again from the commits."""
        since = self.d.now
        self.d.restart()
        if minutes % 2:
            self.d.now += minutes * MINUTE
            self.d.away.append((since, self.d.now))
            self.d.world = rebuild(POLICY, self.d.folded.snapshot, self.d.now)
            self.d.do(Outage(since, self.d.now, "the service"))
        self.d.do(Tick())

    @rule(seconds=st.integers(1, 300))
    def hub_away(self, seconds: int) -> None:
        since, self.d.now = self.d.now, self.d.now + seconds * SECOND
        self.d.away.append((since, self.d.now))
        self.d.do(Outage(since, self.d.now, "the Hub"))

    # Servers

    @rule(which=pick)
    def crash(self, which: int) -> None:
        if self.d.running:
            self.d.gone(sorted(self.d.running)[which % len(self.d.running)], "killed by signal 9")
        self.d.answer()

    @rule(which=pick)
    def part_of_a_gang_ends(self, which: int) -> None:
        if self.d.running:
            key = sorted(self.d.running)[which % len(self.d.running)]
            self.d.do(ServerObserved(*key, Presence.PRESENT, "rank 1 ended", complete=False))

    @rule(which=pick, node=st.booleans(), starts=st.booleans())
    def start_fails(self, which: int, node: bool, starts: bool) -> None:
        if reservation := self.some(which, State.STARTING):
            key = (reservation.id, reservation.attempt)
            if starts:
                self.d.start(key)
            fault = reservation.allocation[0].node if node else None
            self.d.do(StartFailed(*key, "no answer", fault))

    @rule(which=pick)
    def nothing_known(self, which: int) -> None:
        """Invariant 8: unknown changes what is shown and nothing else."""
        claims = sorted(self.d.world.claims)
        if not claims:
            return
        key = claims[which % len(claims)]
        old_claims, old = dict(self.d.world.claims), dict(self.d.world.reservations)
        at = next_due(self.d.world, self.d.now)
        if (at is not None and at <= self.d.now) or not self.d.world.settled():
            return
        self.d.do(ServerObserved(*key, Presence.UNKNOWN))
        assert self.d.world.claims == old_claims, "invariant 8"
        new = self.d.world.reservations
        for ref, before in old.items():
            assert replace(new[ref], server=None, version=0) == replace(before, server=None, version=0)

    @rule()
    def reconcile(self) -> None:
        """Invariant 10: what is seen is told again; a second time nothing is written."""
        for second in (False, True):
            before = len(self.d.folded.history)
            self.d.do(NodesObserved(tuple(self.seen())))
            for key in sorted(self.d.world.claims):
                if key in self.d.running:
                    self.d.do(ServerObserved(*key, Presence.PRESENT))
            if second:
                assert len(self.d.folded.history) == before, "invariant 10: a second pass writes"
            else:
                self.d.settle()

    # Nodes

    def seen(self) -> list[Node]:
        return [replace(n, drained=False) for n in self.d.world.nodes.values()]

    @rule(name=st.sampled_from(["node-1", "node-2"]), what=st.sampled_from([*NodeStatus, "?", "gone"]))
    def node_seen(self, name: str, what: str) -> None:
        if what == "?":
            self.d.do(NodeUnknown(name))
            return
        others = [n for n in self.seen() if n.name != name]
        here = (
            []
            if what == "gone"
            else [replace(n, status=NodeStatus(what)) for n in nodes(2) if n.name == name]
        )
        self.d.do(NodesObserved(tuple(others + here)))

    @rule(
        names=st.sampled_from([("node-1",), ("node-2",), ("node-1", "node-2")]), seconds=st.integers(1, 240)
    )
    def trouble_passes(self, names: tuple[str, ...], seconds: int) -> None:
        """A flap, or a silence of the whole cluster: within the grace it moves no start that is to come."""
        names = tuple(name for name in names if self.d.world.is_up(name))
        queued = self.d.world.queued()
        start, to = len(self.d.folded.history), self.d.now + seconds * SECOND
        others = [n.grace_until for n in self.d.world.nodes.values() if n.grace_until is not None]
        for name in names:
            self.d.do(NodeUnknown(name))
        self.d.go(to)
        self.d.settle()
        self.d.do(
            NodesObserved(
                tuple(replace(n, status=NodeStatus.UP) if n.name in names else n for n in self.seen())
            )
        )
        if seconds * SECOND >= POLICY.node_grace or any(r.blocked is not None for r in queued):
            return
        if any(until <= self.d.now for until in others):
            return  # the trouble of another node has lasted too long meanwhile
        waits = {r.id: r.place for r in queued}
        for _, at, change in self.d.folded.history[start:]:
            record = change.record
            if not isinstance(record, Reservation) or change.cause not in judge.BY_NODES:
                continue
            place = waits.get(record.id)
            # A start that came due meanwhile is late, and those behind it make way.
            due = change.cause == "yielded" and any(
                r.seq < record.seq and r.place is not None and r.place.start <= at for r in queued
            )
            assert place is None or place.start <= at or due, f"{record.id} is moved: {change.cause}"

    @rule()
    def nodes_up(self) -> None:
        self._all_up()

    def _all_up(self) -> None:
        self.d.do(NodesObserved(nodes(2)))
        for name in ("node-1", "node-2"):
            self.d.do(OperatorNode(name, "undrain", "local:root"))
        self.d.do(NodesObserved(nodes(2)))

    @rule(name=st.sampled_from(["node-1", "node-2"]), action=st.sampled_from(["drain", "undrain", "lost"]))
    def operator(self, name: str, action: str) -> None:
        if name in self.d.world.nodes:
            self.d.do(OperatorNode(name, action, "local:root"))

    @rule(who=st.sampled_from(PEOPLE), known=st.booleans())
    def owner_known(self, who: str, known: bool) -> None:
        self.d.do(OwnerKnown(f"local:{who}", known))

    # After every step

    @invariant()
    def folded_history_is_the_state(self) -> None:
        folded, world = self.d.folded.snapshot, self.d.world
        assert folded.reservations == world.reservations, "invariant 12"
        assert folded.claims == world.claims, "invariant 12"
        assert folded.nodes == world.nodes, "invariant 12"
        assert (folded.limits, folded.spending) == (world.limits, world.spending), "invariant 12"
        owned = {(p.node, i): c.key for c in world.claims.values() for p in c.allocation for i in p.slots}
        assert {(s.node, s.index): key for s, key in self.d.folded.slots.items()} == owned, "invariant 1"

    @invariant()
    def no_gpu_is_idle_that_somebody_could_use(self) -> None:
        self.d.settle()
        judge.nothing_could_start_earlier(self.d.world, self.d.now)
        judge.reasons_are_true(self.d.world, self.d.now)

    def teardown(self) -> None:
        """Left alone, with everything answering, everything comes to an end."""
        self._all_up()
        for who in PEOPLE:
            self.d.do(OwnerKnown(f"local:{who}", known=True))
        for _ in range(2_000):
            self.d.answer()
            for key in sorted(self.d.world.claims.keys() - self.d.running):
                if not self.d.allowed(key):
                    self.d.gone(key)
            if not self.d.world.reservations and not self.d.world.claims:
                return
            due = next_due(self.d.world, self.d.now)
            assert due is not None, f"invariant 10: nothing is due for {self.d.world.reservations}"
            self.d.go(due)
            self.d.settle()
        raise AssertionError(f"does not come to an end: {self.d.world.reservations}")


@pytest.mark.timeout(300)
def test_every_history_keeps_every_invariant() -> None:
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=80,
            stateful_step_count=50,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
