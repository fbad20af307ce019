"""What an owner's servers are called over SSH."""

from __future__ import annotations

from collections.abc import Iterable

from .model import Reservation, State


def aliases(records: Iterable[Reservation]) -> dict[str, list[str]]:
    """SSH names of one owner's live reservations by id, one for each node, first node first.

    The first node is called ``gpu-NAME`` (``gpu-ID`` without a name), node 1 ``gpu-NAME-1``. A name that is
    another reservation's own goes to that one: the node is called by the id then. While a reservation is
    being stopped, its name is free for another one.
    """
    ordered = sorted(records, key=lambda record: (record.state is State.STOPPING, record.seq))
    taken: set[str] = set()
    found: dict[str, list[str]] = {}
    for record in ordered:
        name = f"gpu-{record.request.name or record.id}"
        found[record.id] = [f"gpu-{record.id}" if name in taken else name]
        taken.add(found[record.id][0])
    for record in ordered:
        for rank in range(1, record.request.shape.nodes):
            name = f"{found[record.id][0]}-{rank}"
            found[record.id].append(f"gpu-{record.id}-{rank}" if name in taken else name)
            taken.add(found[record.id][-1])
    return found
