"""Questions to GitHub about accounts that log in: one at a time for each, and few about strangers at once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gpudev_hub.core.decisions.access_sweep import Rules
from gpudev_hub.core.model import SECOND, Millis
from gpudev_hub.core.ports import Facts, Membership, MembershipUnavailable
from gpudev_hub.turns import Turns, cancel

STRANGERS: Final = 4
"""Accounts without access that GitHub is asked about at once, so that the sweep waits for few of them."""
TURN_TIMEOUT: Final = 10.0
"""Seconds that such an account waits for its turn."""
REMEMBERED: Final[Millis] = 30 * SECOND
"""How long GitHub's answer is kept after a refusal."""
MOST_REMEMBERED: Final = 4096
KEPT_PERCENT: Final = 20
"""Share of GitHub's hourly limit that is kept for people who have access."""


@dataclass(frozen=True, slots=True)
class Github:
    """Access by GitHub, from the settings."""

    membership: Membership
    rules: Rules
    period: Millis
    """Between two sweeps."""
    contact: str = ""
    """Whom people without access should ask."""
    rate: Callable[[], tuple[int, int] | None] = lambda: None
    """Requests to GitHub left in this hour, and the limit, from its last answer; ``None``: unknown."""


@dataclass(frozen=True, slots=True)
class Answer:
    """GitHub's answer about an account, and when it was asked."""

    facts: Facts
    asked_at: Millis


class Questions:
    """Asks GitHub. Strangers are accounts without access; only they may have to wait or be refused."""

    def __init__(self, github: Github, now: Callable[[], Millis]) -> None:
        self._github = github
        self._now = now
        self._turns = Turns(STRANGERS)
        self._asking: dict[int, asyncio.Task[Answer]] = {}
        self._refused: OrderedDict[int, Answer] = OrderedDict()

    async def ask(self, id: int, *, stranger: bool) -> Answer:
        """Return GitHub's answer about an account; a question that is already asked is shared.

        Raises ``MembershipUnavailable``.
        """
        refused = self._refused.get(id)
        if stranger and refused is not None and 0 <= self._now() - refused.asked_at < REMEMBERED:
            return refused
        task = self._asking.get(id)
        if task is None:
            task = asyncio.create_task(self._of_stranger(id) if stranger else self._facts(id))
            self._asking[id] = task
            task.add_done_callback(lambda done: self._asked(id, done))
        return await asyncio.shield(task)

    def remember_refusal(self, id: int, answer: Answer) -> None:
        """Keep the answer for the next logins of an account that was refused."""
        self._refused[id] = answer
        self._refused.move_to_end(id)
        if len(self._refused) > MOST_REMEMBERED:
            self._refused.popitem(last=False)

    async def stop(self) -> None:
        """Cancel the questions that are being asked."""
        await cancel(self._asking.values())

    def _asked(self, id: int, done: asyncio.Task[Answer]) -> None:
        del self._asking[id]
        if not done.cancelled():
            # Nobody may wait any more; an exception that is never retrieved would be logged as a bug.
            done.exception()

    async def _of_stranger(self, id: int) -> Answer:
        try:
            async with asyncio.timeout(TURN_TIMEOUT) as patience, self._turns.one(str(id)):
                patience.reschedule(None)
                self._check_rate()
                return await self._facts(id)
        except TimeoutError:
            raise MembershipUnavailable("too many accounts without access log in at once") from None

    def _check_rate(self) -> None:
        rate = self._github.rate()
        if rate is None:
            return
        left, limit = rate
        if left * 100 < limit * KEPT_PERCENT:
            raise MembershipUnavailable(
                f"{left} of the {limit} requests that GitHub allows in an hour are left, and "
                f"{KEPT_PERCENT} % are kept for people who have access"
            )

    async def _facts(self, id: int) -> Answer:
        asked_at = self._now()
        return Answer(await self._github.membership.facts(id), asked_at)
