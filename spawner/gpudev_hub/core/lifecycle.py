"""The legal moves between states. Every change of a state goes through ``move``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .errors import IllegalMove
from .model import Reservation, State

MOVES: dict[State, frozenset[State]] = {
    # Its planned start came, or it was cancelled or ended for another reason, such as revoked access.
    State.QUEUED: frozenset({State.STARTING, State.ENDED}),
    # Its server is ready; it is being stopped; its allowance is used up, or its owner is not known.
    State.STARTING: frozenset({State.READY, State.STOPPING, State.QUEUED}),
    # Its server ended without release; it is being stopped.
    State.READY: frozenset({State.STARTING, State.STOPPING}),
    # Its server is observed gone, or its node is lost.
    State.STOPPING: frozenset({State.ENDED}),
    State.ENDED: frozenset(),
}


def move(reservation: Reservation, state: State, **fields: Any) -> Reservation:
    """Return the reservation in its new state, with other fields changed at the same time.

    Raises ``IllegalMove``, with the state of the reservation, if the table does not have the move.
    """
    if state not in MOVES[reservation.state]:
        raise IllegalMove(
            f"{reservation.id} can't go from {reservation.state} to {state} (version {reservation.version}, "
            f"attempt {reservation.attempt}, failed starts {reservation.failed_starts}, restarts "
            f"{reservation.restarts}, ready at {reservation.ready_at}, hard end {reservation.hard_end}, "
            f"outcome {reservation.outcome or reservation.stop_outcome}, detail {reservation.detail!r})"
        )
    return replace(reservation, state=state, **fields)
