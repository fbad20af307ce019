"""GPU time that counts towards weekly and monthly budgets: hold time, from ready to the end.

A live reservation counts with what it has held in the period and all that it may still hold, at any time. So
whatever was granted within a budget can be held within it, also across the end of a period. Starts, failed
starts and tear-down do not count. All amounts are GPU-milliseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from gpudev_hub.core.access_model import Spending
from gpudev_hub.core.live_state import LiveState
from gpudev_hub.core.model import Millis, Reservation, State

from .periods import Period, overlap


@dataclass(frozen=True, slots=True)
class Use:
    """What counts towards one budget."""

    held: int
    """Held in the period so far."""
    reserved: int
    """What live reservations may still hold."""

    @property
    def total(self) -> int:
        """Both together."""
        return self.held + self.reserved


def use_of(
    state: LiveState,
    subject: str,
    pools: Collection[str],
    live: Iterable[Reservation],
    period: Period,
    now: Millis,
) -> Use:
    """Return what a person has used and reserved in these pools in the present period.

    ``live``: the person's live reservations.
    """
    start = period.start(now)
    held = sum(_spent(state.spending.get((subject, pool)), period, start) for pool in pools)
    reserved = 0
    for reservation in live:
        if reservation.request.pool in pools:
            began, end = _hold_time(reservation)
            total = reservation.request.shape.total_gpus
            held += total * overlap(began, end, start, now)
            if end:
                reserved += total * max(0, end - max(began, now))
            elif reservation.state in (State.QUEUED, State.STARTING):
                reserved += total * reservation.request.hold
    return Use(held, reserved)


def charged(spending: Spending | None, ended: Reservation, now: Millis) -> Spending | None:
    """Return the owner's spending in the pool after a reservation ended; ``None`` if it was never ready."""
    began, end = _hold_time(ended)
    if not end:
        return None
    total = ended.request.shape.total_gpus
    week, month = Period.WEEK.start(now), Period.MONTH.start(now)
    return Spending(
        ended.owner.subject,
        ended.request.pool,
        week,
        _spent(spending, Period.WEEK, week) + total * overlap(began, end, week, now),
        month,
        _spent(spending, Period.MONTH, month) + total * overlap(began, end, month, now),
    )


def _spent(spending: Spending | None, period: Period, start: Millis) -> int:
    """Return what is recorded for the period that began at ``start``."""
    if spending is None:
        return 0
    if period is Period.WEEK:
        return spending.week_gpu_ms if spending.week == start else 0
    return spending.month_gpu_ms if spending.month == start else 0


def _hold_time(reservation: Reservation) -> tuple[Millis, Millis]:
    """Return when the hold began, and when it ends or ended; zeros if it has not begun."""
    if reservation.ready_at is None or reservation.ends_at is None:
        return 0, 0
    return reservation.ready_at, reservation.ends_at
