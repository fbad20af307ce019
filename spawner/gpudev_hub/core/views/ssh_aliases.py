"""SSH names of the servers that a person may enter."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gpudev_hub.core.ids import PREFIX
from gpudev_hub.core.model import Reservation, State

_LOGIN = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
"""Logins that can be part of a host name."""


def aliases(records: Iterable[Reservation], shared: Iterable[Reservation] = ()) -> dict[str, list[str]]:
    """Return the SSH names of a person's live reservations by id: one per node, the first node first.

    The first node is called ``gpu-NAME`` (``gpu-ID`` without a name), node 1 ``gpu-NAME-1``. If another
    reservation has that name, the node is called by the id. A reservation that is being stopped no longer has
    its name.

    ``shared``: reservations of others that the person may enter. They never change the names of the person's
    own. If a name is taken, it becomes ``gpu-LOGIN-NAME`` with the owner's login, else ``gpu-ID``.
    """
    ordered = _by_age(records)
    taken: set[str] = set()
    found: dict[str, list[str]] = {}
    for record in ordered:
        name = f"{PREFIX}{record.request.name or record.id}"
        found[record.id] = [f"{PREFIX}{record.id}" if name in taken else name]
        taken.add(found[record.id][0])
    for record in ordered:
        for rank in range(1, record.request.shape.nodes):
            name = f"{found[record.id][0]}-{rank}"
            found[record.id].append(f"{PREFIX}{record.id}-{rank}" if name in taken else name)
            taken.add(found[record.id][-1])
    for record in _by_age(shared):
        names = next((n for first in _of_guest(record) if not taken & {*(n := _nodes(first, record))}), None)
        found[record.id] = names or _nodes(f"{PREFIX}{record.id}", record)
        taken.update(found[record.id])
    return found


def _by_age(records: Iterable[Reservation]) -> list[Reservation]:
    return sorted(records, key=lambda record: (record.state is State.STOPPING, record.seq))


def _of_guest(record: Reservation) -> list[str]:
    """Return names for the first node of a shared server, best first."""
    name = record.request.name
    if name is None:
        return []
    login = record.owner.login.lower()
    with_login = [f"{PREFIX}{login}-{name}"] if _LOGIN.fullmatch(login) else []
    return [f"{PREFIX}{name}", *with_login]


def _nodes(first: str, record: Reservation) -> list[str]:
    return [first, *(f"{first}-{rank}" for rank in range(1, record.request.shape.nodes))]
