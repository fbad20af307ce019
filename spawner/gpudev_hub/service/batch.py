"""Events that are decided together and share a commit."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from gpudev_hub.core.effects import Decision, Effect
from gpudev_hub.core.errors import Refused
from gpudev_hub.core.events import Event


@dataclass(slots=True)
class Item:
    """An event, with the caller that waits for its result."""

    event: Event
    answer: asyncio.Future[Decision] | None
    arrived: float
    tries: int = 0


@dataclass(slots=True)
class Batch:
    """Events decided together, and their results."""

    items: list[Item] = field(default_factory=list)
    results: list[Decision | Refused] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    outages: bool = False
    """Whether the batch accounts for outages."""

    def take_items(self) -> list[Item]:
        """Remove and return the events that are not answered."""
        items, self.items = self.items, []
        return items


def answer(item: Item, result: Decision | Refused) -> None:
    """Tell the result to the caller, if there is one who still waits."""
    if item.answer is None or item.answer.done():
        return
    if isinstance(result, Refused):
        item.answer.set_exception(result)
    else:
        item.answer.set_result(result)
