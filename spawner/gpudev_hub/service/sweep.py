"""The sweep: all known people are compared with GitHub every few minutes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from gpudev_hub.clock import Clock
from gpudev_hub.core.access_model import Access
from gpudev_hub.core.decisions.access_sweep import (
    Pace,
    confirmed_again,
    id_of,
    judge,
    newly_blocked,
    review,
    subject_of,
)
from gpudev_hub.core.decisions.unit_of_work import SERVICE
from gpudev_hub.core.errors import Refused
from gpudev_hub.core.events import AccessLost, Event, Swept
from gpudev_hub.core.model import MINUTE, SECOND, Millis
from gpudev_hub.core.ports import MembershipUnavailable
from gpudev_hub.core.words import moment

from .questions import Github
from .view import View

LATE: Final = 3
"""After this many periods without a complete sweep, a problem is reported."""
BETWEEN_LOOKS: Final[Millis] = 10 * SECOND
"""A person is asked about at most once in this time, however many hints come."""

BETWEEN_SWEEPS: Final[Millis] = MINUTE
"""Hints start at most one sweep in this time."""
MOST_HINTS: Final = 100
"""Most people with hints who wait for a question."""
MOST_FAILURES: Final = 3
"""After this many failed questions about individual people, the others wait for the next sweep."""

log = logging.getLogger(__name__)


class Sweep:
    """Runs until it is cancelled; one question to GitHub at a time."""

    def __init__(
        self, view: View, ask: Callable[[Event], Awaitable[object]], clock: Clock, github: Github, pace: Pace
    ) -> None:
        self._view = view
        self._ask = ask
        self._clock = clock
        self._membership = github.membership
        self._rules = github.rules
        self._period = github.period
        self._pace = pace
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._due = False
        self._hints: set[int] = set()
        self._looked: dict[int, Millis] = {}
        self._unanswered: set[str] = set()
        """Suspects about whom GitHub's last answer failed: the next sweep asks about all others first."""
        self._released: frozenset[str] = frozenset()
        self._actor = SERVICE
        self._began = clock.now()
        self.brake = ""
        """Why nobody was revoked in the last sweep."""
        self.held: tuple[str, ...] = ()
        """Subjects who would have lost access in the last sweep without the brake."""
        self.trouble = ""
        """Why the last sweep was not complete."""
        self.unseen: tuple[str, ...] = ()
        """Why teams counted as empty in the last lists from GitHub."""
        self.retry_at: Millis | None = None
        """When GitHub allows requests again, if it limits them now."""
        self.sweeps = 0
        """Complete sweeps since the start."""
        self.failures = 0
        """Incomplete sweeps since the start."""
        self.revoked = 0
        """People whose access was revoked since the start."""

    @property
    def grace(self) -> Millis:
        """How long people keep access while GitHub confirms nobody."""
        return self._rules.outage_grace

    async def run(self) -> None:
        """Sweep at once and then every period; in between, ask about people with hints."""
        while True:
            began = self._clock.now()
            self._due = False
            await self.once()
            await self._until_due(began)
            if self.retry_at is not None:
                # Earlier requests only prolong the limit.
                await self._clock.wait(asyncio.Event(), self.retry_at)

    async def _until_due(self, began: Millis) -> None:
        while True:
            while self._hints and not self._due:
                await self.look_at(self._hints.pop())
            due = began + (BETWEEN_SWEEPS if self._due else self._period)
            if self._clock.now() >= due:
                self._hints.clear()  # everybody is looked at now
                return
            self._wake.clear()
            await self._clock.wait(self._wake, due)

    def hint(self, id: int | None) -> None:
        """Ask about one person soon; ``None``, or too many hints: about everybody."""
        if id is None or len(self._hints) >= MOST_HINTS:
            self.soon()
        else:
            self._hints.add(id)
            self._wake.set()

    async def once(self) -> bool:
        """Compare everybody with GitHub now; return whether that was complete."""
        async with self._lock:
            try:
                complete = await self._sweep()
            except MembershipUnavailable as error:
                complete = self._failed(str(error), error.retry_at)
            except Refused as refused:
                complete = self._failed(refused.message, None)
            except Exception:
                # A bug in one sweep must not end all of them.
                log.exception("a comparison with GitHub failed")
                complete = self._failed("internal error", None)
        self.sweeps += complete
        self.failures += not complete
        return complete

    async def look_at(self, id: int) -> None:
        """Ask GitHub about one known person, after a hint that something changed."""
        now, subject = self._clock.now(), subject_of(id)
        last = self._looked.get(id)
        if subject not in self._view.people or (last is not None and now < last + BETWEEN_LOOKS):
            return
        self._looked[id] = now
        async with self._lock:
            try:
                if self._pace.allows(self._view.people, now):
                    if await self._single(subject):
                        self._pace.count(now)
                else:
                    # Only the sweep decides about many at once, because it has a brake.
                    self.soon()
            except MembershipUnavailable as error:
                log.warning("GitHub could not be asked about %s: %s", subject, error)
            except Refused as refused:
                log.warning("GitHub's answer about %s cannot be stored: %s", subject, refused.message)
            except Exception:
                # A bug with one person must not end all sweeps.
                log.exception("the check of %s failed", subject)

    def soon(self) -> None:
        """Sweep soon, but not more often than every minute."""
        self._due = True
        self._wake.set()

    async def release(self, subjects: frozenset[str], actor: str) -> bool:
        """Release these people from the brake for an operator, and sweep; return whether it was complete.

        GitHub is still asked about each, and people who have access keep it.
        """
        log.warning("%s confirmed the revocation of %d people", actor, len(subjects))
        self._released, self._actor = subjects, actor
        try:
            return await self.once()
        finally:
            self._released, self._actor = frozenset(), SERVICE

    def problems(self) -> list[str]:
        """Return what an operator should know, without names; empty if all is well."""
        found = []
        if self.brake:
            found.append(
                f"{self.brake}. Nobody was revoked. Check the team and the repository at GitHub. If these "
                "people must lose access, confirm it: gpu-dev admin access --confirm-revocations"
            )
        now = self._clock.now()
        last = max(self._view.swept_at or 0, self._began)
        if now > last + LATE * self._period:
            why = f" ({self.trouble})" if self.trouble else ""
            found.append(f"access was last compared with GitHub at {moment(last, now)}{why}")
        if self.retry_at is not None and self.retry_at > now:
            found.append(f"GitHub limits requests until {moment(self.retry_at, now)}")
        found.extend(f"{problem}; until then its members count as not in it" for problem in self.unseen)
        return found

    def _failed(self, why: str, retry_at: Millis | None) -> bool:
        self.trouble, self.retry_at = why, retry_at
        log.warning("access was not compared with GitHub: %s", why)
        return False

    async def _sweep(self) -> bool:
        for lost in newly_blocked(self._view.people, self._rules):
            await self._ask(lost)
            self._count(lost)
        asked_at = self._clock.now()
        lists = await self._membership.lists()
        self.retry_at, self.trouble, self.unseen = None, "", lists.problems
        found = review(self._view.people, lists, asked_at, self._rules, self._released)
        for seen in found.seen:
            await self._ask(seen)
        self._tell_brake(found.brake)
        self.held = found.suspects if found.brake else ()
        complete, failures = not found.brake, 0
        for subject in () if found.brake else sorted(found.suspects, key=self._unanswered.__contains__):
            try:
                await self._single(subject)
                self._unanswered.discard(subject)
            except MembershipUnavailable as error:
                self._unanswered.add(subject)
                log.warning("GitHub could not be asked about %s: %s", subject, error)
                # The error's text names the person, and this is public.
                self.trouble, self.retry_at = "GitHub could not be asked about somebody", error.retry_at
                complete, failures = False, failures + 1
                # One person's failure must not keep all others in.
                if error.retry_at is not None or failures == MOST_FAILURES:
                    break
        if complete:
            await self._ask(Swept(asked_at))
        else:
            last = self._view.swept_at or 0
            for seen in confirmed_again(self._view.people, lists, asked_at, last, self._rules):
                await self._ask(seen)
        return complete

    async def _single(self, subject: str) -> bool:
        """Ask about one person, and act on the answer; return whether access was revoked."""
        number, asked_at = id_of(subject), self._clock.now()
        assert number is not None, f"{subject} is not of GitHub"
        found = judge(subject, await self._membership.facts(number), asked_at, self._rules)
        if isinstance(found, AccessLost) and subject in self._released:
            found = msgspec.structs.replace(found, actor=self._actor)
        before = self._view.people[subject].access
        await self._ask(found)
        revoked = before is Access.ALLOWED and self._view.people[subject].access is Access.REVOKED
        if revoked and isinstance(found, AccessLost):
            self._count(found)
        return revoked

    def _count(self, lost: AccessLost) -> None:
        self.revoked += 1
        log.warning("access of %s was revoked: %s", lost.subject, lost.reason)

    def _tell_brake(self, brake: str) -> None:
        if brake and not self.brake:
            log.error("%s: nobody was revoked; see `gpu-dev admin access`", brake)
        elif self.brake and not brake:
            log.warning("the number of people about to lose access is within the limit again")
        self.brake = brake
