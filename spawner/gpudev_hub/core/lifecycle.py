"""The one table of legal moves between states. Everything that changes a state goes through `move`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .errors import IllegalMove
from .model import Reservation, State

MOVES: dict[State, frozenset[State]] = {
    # Its turn came, or it was cancelled (or its outcome is another one: access revoked).
    State.QUEUED: frozenset({State.STARTING, State.ENDED}),
    # Its server answers; it is to be stopped; its start-up allowance is used up, or its owner is not known.
    State.STARTING: frozenset({State.READY, State.STOPPING, State.QUEUED}),
    # Its server ended without release; it is to be stopped.
    State.READY: frozenset({State.STARTING, State.STOPPING}),
    # Its server was seen gone, or its node is lost and with it the server.
    State.STOPPING: frozenset({State.ENDED}),
    State.ENDED: frozenset(),
}


def move(reservation: Reservation, state: State, **fields: Any) -> Reservation:
    """The reservation in its new state, with other fields changed at the same time.

    Raises `IllegalMove`, naming the reservation and how it stands, if the table does not have the move.
    """
    if state not in MOVES[reservation.state]:
        raise IllegalMove(
            f"{reservation.id} can't go from {reservation.state} to {state} (version {reservation.version}, "
            f"attempt {reservation.attempt}, failed starts {reservation.failed_starts}, restarts "
            f"{reservation.restarts}, ready at {reservation.ready_at}, hard end {reservation.hard_end}, "
            f"outcome {reservation.outcome or reservation.stop_outcome}, detail {reservation.detail!r})"
        )
    return replace(reservation, state=state, **fields)
