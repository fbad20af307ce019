"""The live state: all live records, and the one table of the kinds of record that there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple

from .access_model import AccessSweep, LimitRule, Person, Spending
from .model import Claim, MintedId, Node, Reservation

Record = Reservation | Claim | MintedId | Node | Person | LimitRule | Spending | AccessSweep
ClaimKey = tuple[str, int]
"""(reservation, attempt)."""
Key = str | tuple[str | int | None, ...]
"""Identifies a record among its kind."""


class Kind(NamedTuple):
    """One kind of record."""

    name: str
    """In stores and in the history."""
    table: str
    """The field of ``LiveState`` that holds the live records."""
    key: Callable[[Any], Key]


KINDS: Final[dict[type[Record], Kind]] = {
    Node: Kind("node", "nodes", lambda r: r.name),
    Claim: Kind("claim", "claims", lambda r: r.key),
    Reservation: Kind("reservation", "reservations", lambda r: r.id),
    MintedId: Kind("minted", "minted", lambda r: r.id),
    Person: Kind("person", "people", lambda r: r.subject),
    LimitRule: Kind("limit", "limits", lambda r: (r.scope, r.pool)),
    Spending: Kind("spending", "spending", lambda r: (r.subject, r.pool)),
    AccessSweep: Kind("sweep", "sweeps", lambda _: ""),
}
"""In the order in which a working state loads them: slots need their node, reservations their claim."""


def key_of(record: Record) -> Key:
    """Return what identifies the record among its kind."""
    return KINDS[type(record)].key(record)


@dataclass(slots=True, eq=False)
class LiveState:
    """Live records by key, with a table for each kind."""

    reservations: dict[str, Reservation] = field(default_factory=dict, kw_only=True)
    claims: dict[ClaimKey, Claim] = field(default_factory=dict, kw_only=True)
    minted: dict[str, MintedId] = field(default_factory=dict, kw_only=True)
    nodes: dict[str, Node] = field(default_factory=dict, kw_only=True)
    people: dict[str, Person] = field(default_factory=dict, kw_only=True)
    limits: dict[tuple[str, str | None], LimitRule] = field(default_factory=dict, kw_only=True)
    spending: dict[tuple[str, str], Spending] = field(default_factory=dict, kw_only=True)
    sweeps: dict[str, AccessSweep] = field(default_factory=dict, kw_only=True)

    @property
    def swept_at(self) -> int | None:
        """When the last complete sweep was; ``None``: never."""
        return next((sweep.swept_at for sweep in self.sweeps.values()), None)

    def live_records(self) -> Iterator[Record]:
        """Yield all records, in the order of ``KINDS``."""
        for kind in KINDS.values():
            yield from getattr(self, kind.table).values()

    def known(self, record: Record) -> Record | None:
        """Return the live record with the key of ``record``."""
        found: Record | None = self._table(record).get(key_of(record))
        return found

    def set_record(self, record: Record) -> None:
        """Add a record, or replace the record with its key."""
        self._table(record)[key_of(record)] = record

    def remove_record(self, record: Record) -> None:
        self._table(record).pop(key_of(record), None)

    def apply(self, record: Record, *, gone: bool) -> None:
        """Apply one change: the record's new values, or its removal."""
        if gone:
            self.remove_record(record)
        else:
            self.set_record(record)

    def take_tables(self, other: LiveState) -> None:
        """Copy the tables of ``other``."""
        for table in fields(LiveState):
            setattr(self, table.name, dict(getattr(other, table.name)))

    def _table(self, record: Record) -> dict[Key, Record]:
        table: dict[Key, Record] = getattr(self, KINDS[type(record)].table)
        return table
