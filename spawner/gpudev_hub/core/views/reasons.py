"""Reasons for people, and positions in the queue, from committed records alone."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

from gpudev_hub.core.decisions.blocked import usable_together
from gpudev_hub.core.decisions.timers import planned_end
from gpudev_hub.core.limits.quota import counts
from gpudev_hub.core.limits.rules import limits_of
from gpudev_hub.core.live_state import LiveState
from gpudev_hub.core.model import (
    Claim,
    Millis,
    Node,
    NodeStatus,
    Outcome,
    Place,
    Reservation,
    ServerState,
    State,
)
from gpudev_hub.core.planning.resource_profile import FOREVER, Profile
from gpudev_hub.core.policy import Policy
from gpudev_hub.core.sentences import Text, joined, say
from gpudev_hub.core.words import gpus, listing, node_state, size

_OUTCOMES = {
    Outcome.RELEASED: "released",
    Outcome.CANCELLED: "cancelled",
    Outcome.EXPIRED: "the hold time ended",
    Outcome.IDLE: "idle for too long",
    Outcome.FAILED: "failed",
    Outcome.NODE_LOST: "node lost",
    Outcome.ACCESS_REVOKED: "the owner no longer has access to this service",
    Outcome.ENDED_BY_OPERATOR: "ended by an operator",
}


class Stay(NamedTuple):
    """GPUs taken on one node during [start, end), by a claim or by a place."""

    start: Millis
    end: Millis
    gpus: int
    reservation: str
    subject: str
    who: str
    """The owner's login, if it is known."""


class Outlook:
    """Positions, reasons and loads from the committed records. Made again for every commit."""

    def __init__(self, policy: Policy, state: LiveState) -> None:
        self.policy = policy
        self.state = state
        self.reservations = state.reservations
        self.claims = state.claims
        self.nodes = state.nodes
        self._profiles: dict[str, Profile] = {}

    @cached_property
    def positions(self) -> dict[str, int]:
        """Position in the queue of its pool (1 = next) of each queued reservation that is not blocked."""
        waiting = [r for r in self.reservations.values() if r.state is State.QUEUED and r.blocked is None]
        counts: dict[str, int] = {}
        positions = {}
        for reservation in sorted(waiting, key=lambda r: r.seq):
            pool = reservation.request.pool
            counts[pool] = positions[reservation.id] = counts.get(pool, 0) + 1
        return positions

    def position(self, id: str) -> int | None:
        """Return the position in the queue of its pool; ``None`` if it is not queued, or is blocked."""
        return self.positions.get(id)

    @cached_property
    def stays(self) -> dict[str, list[Stay]]:
        """Everything that takes GPUs now or is planned to, by node."""
        stays: dict[str, list[Stay]] = {}
        for claim in self.claims.values():
            who = self._who(claim)
            end = planned_end(claim, self.policy.pool(claim.pool).stop_overrun)
            for part in claim.allocation:
                stay = Stay(0, end, len(part.slots), claim.reservation, claim.subject, who)
                stays.setdefault(part.node, []).append(stay)
        for r in self.reservations.values():
            if r.state is State.QUEUED and r.place is not None:
                start, end, gpus_each = r.place.start, r.place.end, r.request.shape.gpus
                stay = Stay(start, end, gpus_each, r.id, r.owner.subject, r.owner.login)
                for node in r.place.nodes:
                    stays.setdefault(node, []).append(stay)
        return stays

    def profile(self, node: str) -> Profile:
        """Return the GPUs of the node taken over time."""
        profile = self._profiles.get(node)
        if profile is None:
            loads = ((stay.start, stay.end, stay.gpus) for stay in self.stays.get(node, ()))
            profile = self._profiles[node] = Profile.of(loads)
        return profile

    @cached_property
    def _owned(self) -> dict[tuple[str, str], list[tuple[Millis, Millis, int, str]]]:
        """(start, end, total GPUs, reservation) of what counts against a cap, by (subject, pool)."""
        owned: dict[tuple[str, str], list[tuple[Millis, Millis, int, str]]] = {}
        for claim in self.claims.values():
            if not counts(claim, self.reservations, self.nodes):
                continue
            end = planned_end(claim, self.policy.pool(claim.pool).stop_overrun)
            owned.setdefault((claim.subject, claim.pool), []).append((0, end, claim.gpus, claim.reservation))
        for r in self.reservations.values():
            if r.place is not None:
                stay = (r.place.start, r.place.end, r.request.shape.total_gpus, r.id)
                owned.setdefault((r.owner.subject, r.request.pool), []).append(stay)
        return owned

    @cached_property
    def _taken(self) -> dict[str, int]:
        """GPUs that claims hold, by node."""
        taken: dict[str, int] = {}
        for claim in self.claims.values():
            for part in claim.allocation:
                taken[part.node] = taken.get(part.node, 0) + len(part.slots)
        return taken

    def room(self, node: Node, now: Millis, end: Millis) -> int:
        """Return the GPUs of a node that are free from now to ``end``, with every planned place held."""
        if node.status is not NodeStatus.UP or (node.until is not None and end > node.until):
            return 0
        # Servers may run past their end.
        taken = max(self.profile(node.name).peak(now, end), self._taken.get(node.name, 0))
        return max(0, node.gpus - taken)

    def limit_reached(self, subject: str, pool: str, more: int, now: Millis) -> Millis:
        """Return when the owner's limit leaves no room for ``more`` GPUs; ``FOREVER``: at no time."""
        stays = self._owned.get((subject, pool), ())
        cap = limits_of(self.policy, self.state, subject, pool).values.running_gpus
        end = Profile.of(stay[:3] for stay in stays).first_above(now, FOREVER, cap - more)
        return FOREVER if end is None else end

    def explain(self, reservation: Reservation, now: Millis) -> Text | None:
        """Return why it waits, failed or changed; ``None`` if state and outcome say everything."""
        if reservation.state is State.QUEUED:
            return self._waiting(reservation, now)
        if reservation.state in (State.STARTING, State.READY):
            return self._holding(reservation)
        if reservation.state is State.ENDED:
            return reservation.detail or None
        outcome = reservation.stop_outcome
        why = _OUTCOMES[outcome] if outcome is not None else "ended"
        return say("ending", outcome=why, detail=reservation.detail) if reservation.detail else why

    def _holding(self, reservation: Reservation) -> Text | None:
        if reservation.access_ends_at is not None:
            return say("access_lost", at=reservation.access_ends_at)
        if reservation.blocked is not None:
            return say("kept_without_server", why=reservation.blocked)
        if reservation.stopped_at is not None:
            window = self.policy.pool(reservation.request.pool).restart_window
            return say("stopped", until=reservation.stopped_at + window)
        if reservation.server is ServerState.UNKNOWN:
            return say("server_unknown")
        if reservation.state is State.STARTING:
            where = listing([part.node for part in reservation.allocation], "and")
            where += " again" if reservation.attempt > 1 else ""
            known = reservation.trouble or reservation.detail
            if known:
                return say("starting_with_trouble", nodes=where, why=known)
            return say("starting", nodes=where)
        restarted = say("restarted", why=reservation.detail) if reservation.detail else ""
        told = [text for text in (restarted, reservation.notice) if text]
        return joined(told, "parts") if told else None

    def _waiting(self, reservation: Reservation, now: Millis) -> Text:
        if reservation.blocked is not None:
            return say("blocked", why=reservation.blocked)
        place = reservation.place
        if place is None or place.start <= now:
            away = [] if place is None else self._away(reservation, place.nodes)
            late = [] if place is None else self._overdue(reservation, place, now)
            if away:
                return say("about_to_start_without_node", nodes=listing(away, "and"))
            if late:
                return say("about_to_start_after", servers=listing(late, "and"))
            return say("about_to_start")
        cap = self._cap(reservation, now)
        # Once the limit allows it, the owner's own GPUs may still be in the way.
        parts = self._blockers(reservation, now, own=cap is None or cap[1] < place.start)
        if cap is not None:
            parts.append(cap[0])
        parts += self._away(reservation) + self._left_out(reservation)
        wanted = size(reservation.request.shape)
        if not parts:
            return say("waiting", size=wanted)
        return say("waiting_for", size=wanted, reasons=joined(parts, "list"))

    def _overdue(self, reservation: Reservation, place: Place, now: Millis) -> list[str]:
        """Return which reservations are past their end, on the nodes of the place or of the same owner."""
        late = {}
        for claim in self.claims.values():
            there = any(part.node in place.nodes for part in claim.allocation)
            if claim.hard_end <= now and (there or claim.subject == reservation.owner.subject):
                late[claim.reservation] = f"{self._who(claim)}'s {self._name(claim.reservation)}"
        return [late[ref] for ref in sorted(late)]

    def _who(self, claim: Claim) -> str:
        holder = self.reservations.get(claim.reservation)
        return holder.owner.login if holder is not None else claim.subject.rpartition(":")[2]

    def _blockers(self, reservation: Reservation, now: Millis, *, own: bool) -> list[Text]:
        """Return ``node-1 is free by 14:10 (alice)`` for each node of the place that is not free before.

        ``own``: also if only the owner's own GPUs are in the way.
        """
        place = reservation.place
        if place is None:
            return []
        blockers: list[Text] = []
        for name in place.nodes:
            node = self.nodes.get(name)
            room = 0 if node is None else node.gpus - reservation.request.shape.gpus
            frees_at = self.profile(name).last_above(now, place.start, room)
            if frees_at is None:
                continue
            ending = [stay for stay in self.stays[name] if stay.end == frees_at]
            if not own and all(stay.subject == reservation.owner.subject for stay in ending):
                continue
            who = dict.fromkeys(stay.who for stay in ending)
            whom = f" ({', '.join(who)})" if who else ""
            code = "free_by_too" if blockers else "free_by"
            blockers.append(say(code, node=name, at=frees_at, owners=whom))
        return blockers

    def _cap(self, reservation: Reservation, now: Millis) -> tuple[Text, Millis] | None:
        """Return the text on the owner's limit and until when it delays the request; ``None``: not at all."""
        place, subject = reservation.place, reservation.owner.subject
        total, cap = reservation.request.shape.total_gpus, reservation.cap
        if place is None:
            return None
        # Its own place does not count; claims of its earlier attempts do.
        stays = [
            stay
            for stay in self._owned.get((subject, reservation.request.pool), ())
            if stay[3] != reservation.id or stay[0] == 0
        ]
        mine = Profile.of(stay[:3] for stay in stays)
        binds = mine.last_above(now, place.start, cap - total)
        if binds is None or binds < place.start:
            # Places keep the limit that held when they were requested.
            tighter = (
                (mine.last_above(r.place.start, r.place.end, r.cap - total), r.cap)
                for r in self.reservations.values()
                if r.owner.subject == subject
                and r.place is not None
                and r.cap < cap
                and r.id != reservation.id
            )
            binds, cap = next(((at, limit) for at, limit in tighter if at == place.start), (None, cap))
        since = now
        if binds is None and self._fits_now(reservation, now):
            # It starts after this ends, because others have the GPUs by then.
            bars = mine.first_above(now, now + reservation.length, cap - total)
            if bars is not None:
                since, binds = bars, mine.earliest(bars, 1, cap - total, FOREVER)
        if binds is None:
            return None
        which = listing(sorted({self._name(of) for _, end, _, of in stays if end == binds}), "and")
        span = say("until", until=binds) if since == now else say("from_until", since=since, until=binds)
        after = f", when {which} ends" if which else ""
        used = say("limit_used", login=reservation.owner.login, gpus=gpus(cap), span=span, after=after)
        return used, binds

    def _fits_now(self, reservation: Reservation, now: Millis) -> bool:
        """Return whether there is room for it now, whatever its owner holds."""
        shape, end = reservation.request.shape, now + reservation.length
        return any(
            sum(
                node.name not in reservation.excluded and self.room(node, now, end) >= shape.gpus
                for node in group
            )
            >= shape.nodes
            for group in usable_together(self.nodes.values(), reservation.request)
        )

    def _name(self, id: str) -> str:
        reservation = self.reservations.get(id)
        return reservation.request.name or id if reservation is not None else id

    def _away(self, reservation: Reservation, names: tuple[str, ...] | None = None) -> list[str]:
        """Return the states of nodes, of these names if given, that could serve it if they were up."""
        groups = usable_together(self.nodes.values(), reservation.request)
        able = [n for group in groups for n in group if len(group) >= reservation.request.shape.nodes]
        away = [n for n in able if n.status is not NodeStatus.UP]
        return [node_state(n.name, n) for n in away if names is None or n.name in names]

    def _left_out(self, reservation: Reservation) -> list[str]:
        """Return the nodes that are up, but excluded after a failed start."""
        nodes = (self.nodes.get(name) for name in sorted(reservation.excluded))
        left = [n.name for n in nodes if n is not None and n.status is NodeStatus.UP]
        return [f"{name} is excluded after a failed start" for name in left]
