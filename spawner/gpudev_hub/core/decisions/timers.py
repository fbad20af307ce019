"""When the clock makes something due, from one record at a time."""

from __future__ import annotations

import heapq

from gpudev_hub.core.model import HOUR, MINUTE, Claim, Millis, MintedId, Reservation, State
from gpudev_hub.core.policy import Policy

MINTED_LIFE: Millis = 24 * HOUR
"""An unused id from a spawn page is forgotten after this time."""
_LONGEST_DELAY: Millis = 1 * HOUR
"""The longest step by which a claim's planned end is put off."""

Key = tuple[str, str, int]
"""(kind, id, attempt) of a record: ``("reservation", id, 0)``, ``("node", name, 0)``."""


def planned_end(claim: Claim, step: Millis) -> Millis:
    """Return until when the plan keeps the slots: the hard end, or ``overrun_due`` after an overrun."""
    return overrun_due(claim, step) if claim.overruns else claim.hard_end


def overrun_due(claim: Claim, step: Millis) -> Millis:
    """Return when slots that are still taken next count as an overrun.

    That is ``step``, the pool's ``stop_overrun``, after the hard end; then after twice as long each time, up
    to an hour. So a server that does not stop is not re-planned around every minute. A request whose slots
    are less late waits for them.
    """
    due = claim.hard_end + step
    delay = step
    for _ in range(claim.overruns):
        delay = min(2 * delay, max(step, _LONGEST_DELAY))
        due += delay
    return due


def crossed(reservation: Reservation, minutes: tuple[int, ...], now: Millis) -> tuple[int, ...]:
    """Return the warning thresholds before the reservation's end that ``now`` has reached."""
    ends_at = reservation.ends_at
    if ends_at is None:
        return ()
    return tuple(m for m in minutes if ends_at - m * MINUTE <= now)


def armed(reservation: Reservation, minutes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the warning thresholds shorter than the time from READY to the end; owners need no others.

    A reservation of 30 minutes has less than 30 minutes left from its first second on. An extension that
    makes the time longer than a threshold arms it.
    """
    ends_at, ready_at = reservation.ends_at, reservation.ready_at
    if ends_at is None or ready_at is None:
        return ()
    return tuple(m for m in minutes if m * MINUTE < ends_at - ready_at)


def reservation_due(reservation: Reservation, policy: Policy) -> Millis | None:
    """Return when the clock next changes a reservation that holds slots; ``None`` in other states."""
    if reservation.state not in (State.STARTING, State.READY) or reservation.ends_at is None:
        return None
    ends_at = reservation.ends_at
    due = [ends_at]
    if reservation.access_ends_at is not None:
        due.append(reservation.access_ends_at)
    if reservation.stopped_at is None:
        if reservation.start_deadline is not None:
            due.append(reservation.start_deadline)
    elif reservation.blocked is None:
        due.append(reservation.stopped_at + policy.pool(reservation.request.pool).restart_window)
    if reservation.ready_at is not None:
        due.extend(ends_at - m * MINUTE for m in policy.warn_minutes if m not in reservation.warned)
    return min(due)


def claim_due(claim: Claim, policy: Policy) -> Millis:
    """Return when the clock next changes a claim."""
    return overrun_due(claim, policy.pool(claim.pool).stop_overrun)


def minted_due(minted: MintedId) -> Millis:
    """Return when an unused id is forgotten."""
    return minted.minted_at + MINTED_LIFE


class Alarms:
    """Instants by key. Setting a key again replaces its instant."""

    def __init__(self) -> None:
        self._at: dict[Key, Millis] = {}
        self._heap: list[tuple[Millis, Key]] = []

    def set(self, key: Key, at: Millis | None) -> None:
        """Let ``key`` ring at that instant only; ``None``: not at all."""
        if at is None:
            self._at.pop(key, None)
        elif self._at.get(key) != at:
            self._at[key] = at
            heapq.heappush(self._heap, (at, key))

    def next(self) -> Millis | None:
        """Return the earliest instant."""
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self, now: Millis) -> list[Key]:
        """Return the keys due at ``now``, earliest first; they ring again only if set again."""
        due: list[Key] = []
        while (at := self.next()) is not None and at <= now:
            key = heapq.heappop(self._heap)[1]
            del self._at[key]
            due.append(key)
        return due
