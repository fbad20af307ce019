"""Events that share a commit, or as many commits as the store needs for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from gpudev_hub.core.commit import Part
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
    parts: int = 0
    """How many parts of the batch must be durable before it is answered."""


@dataclass(slots=True)
class Batch:
    """Events decided together, and their results; answered events leave it."""

    items: list[Item] = field(default_factory=list)
    results: list[Decision | Refused] = field(default_factory=list)
    effects: list[tuple[int, Effect]] = field(default_factory=list)
    """Effects, each with how many parts of the batch must be durable before it is performed."""
    outages: int | None = None
    """Parts that account for outages; ``None``: no outage is left to account for."""
    durable: int = 0
    """How many parts are durable."""

    def finish(self) -> list[Item]:
        """Answer and return the events whose parts are all durable."""
        done: list[Item] = []
        while self.items and self.items[0].parts <= self.durable:
            done.append(self.items.pop(0))
            answer(done[-1], self.results.pop(0))
        return done

    def break_off(self) -> list[Item]:
        """Return the events that did not become durable; no more of the batch will.

        If the request itself is durable and only something that follows from it is not, it counts as done.
        """
        left = []
        for item, result in zip_longest(self.items, self.results):
            if isinstance(result, Decision) and result.parts <= self.durable:
                answer(item, replace(result, reservation=result.asked))
            else:
                left.append(item)
        self.items, self.results = [], []
        return left


def pack(parts: Sequence[Part], fits: Callable[[Part], bool]) -> list[tuple[Part, int]]:
    """Return each commit's changes and its number of parts: one commit if the store takes it."""
    if not parts:
        return []
    whole = Part.joined(parts)
    if len(parts) == 1 or fits(whole):
        return [(whole, len(parts))]
    middle = len(parts) // 2
    return pack(parts[:middle], fits) + pack(parts[middle:], fits)


def answer(item: Item, result: Decision | Refused) -> None:
    """Tell the result to the caller, if there is one who still waits."""
    if item.answer is None or item.answer.done():
        return
    if isinstance(result, Refused):
        item.answer.set_exception(result)
    else:
        item.answer.set_result(result)
