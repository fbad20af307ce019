"""What a log store needs of a database: items by key, in order, and conditional writes of several items."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

import msgspec

Item = dict[str, Any]
"""Values by attribute: texts, integers, bytes or lists of integers; ``pk`` and ``sk`` are the key."""
Key = tuple[str, str]
"""``pk`` and ``sk``."""
FIRST, LAST = " ", "~"
"""Sort before and after every ``sk``."""


class Action(Enum):
    """What a write does with its item. The values are DynamoDB's names."""

    PUT = "Put"
    """Replace the item."""
    UPDATE = "Update"
    """Change some attributes; add the item if it does not exist."""
    DELETE = "Delete"
    CHECK = "ConditionCheck"


@dataclass(frozen=True, slots=True)
class Write:
    """One item of a transaction."""

    action: Action
    key: Key
    values: Mapping[str, Any] = field(default_factory=dict)
    """``None`` removes the attribute."""
    where: Mapping[str, Any] = field(default_factory=dict)
    """Values that attributes must have before; ``None``: the attribute must not exist."""


class Unmet(Exception):
    """A condition of a write does not hold; nothing was changed."""

    def __init__(self, index: int, found: Item) -> None:
        """``index``: of the first write whose condition failed; ``found``: its item as it is."""
        super().__init__(f"the condition of write {index} failed: {found}")
        self.index = index
        self.found = found


class Unreadable(Exception):
    """An item is not what a store writes. The message names the item and gives the reason."""


@contextmanager
def reading(key: Key) -> Iterator[None]:
    """Raise ``Unreadable`` if what is read inside is not what a store writes; ``key``: of its item."""
    try:
        yield
    except (msgspec.MsgspecError, zlib.error, ValueError) as error:
        raise Unreadable(f"item {' '.join(key)}: {error}") from error


class Backend(Protocol):
    """A database, called in threads. Every call may raise ``StoreUnavailable``."""

    name: str
    """For messages: ``table gpudev``."""
    item_bytes: int
    """Most bytes of data in one item."""
    delays_writes: bool
    """Whether a write may be carried out after the call was given up."""

    def get(self, key: Key) -> Item | None:
        """Return the item of this key, as the last write left it."""
        ...

    def get_all(self, keys: Sequence[Key]) -> list[Item]:
        """Return the items that exist of these, in no particular order."""
        return [item for key in keys if (item := self.get(key)) is not None]

    def query(
        self, pk: str, first: str = FIRST, last: str = LAST, *, page: int | None = None, latest: bool = False
    ) -> Iterator[Item]:
        """Yield the items with ``sk`` from ``first`` to ``last``; ``latest``: in descending order.

        ``page``: how many to read at once.
        """
        ...

    def ended_of(self, subject: str, before: int, page: int) -> Iterator[Item]:
        """Yield ended reservations of an owner before a position, latest first. It may lag behind."""
        ...

    def write(self, writes: Sequence[Write]) -> None:
        """Make these writes, all or nothing. Raises ``Unmet`` or ``OutcomeUnknown``."""
        ...

    def tries(self) -> Iterator[None]:
        """Yield once for each try of something that may have to be repeated, with pauses in between."""
        yield

    def stop(self) -> None:
        """Stop waiting: nothing is tried again from now on."""
        return

    def close(self) -> None:
        """Close what is open."""
        return
