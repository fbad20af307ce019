"""Limits that operators set and clear at run time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from gpudev_hub.core.access_model import LimitRule
from gpudev_hub.core.effects import Decision
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.events import ClearLimits, Event, SetLimits
from gpudev_hub.core.limits.rules import NAMES, Name, person_scope
from gpudev_hub.core.policy import Policy
from gpudev_hub.core.views.limits import exceeded
from gpudev_hub.core.words import listing

from .view import View

MOST_WARNINGS = 10
"""A warning names at most this many people."""


@dataclass(frozen=True, slots=True)
class LimitSetting:
    """Changes of limits, durable when a method returns."""

    policy: Policy
    view: View
    ask: Callable[[Event], Awaitable[Decision]]

    async def set(
        self, scope: str, pool: str | None, values: Mapping[Name, int], actor: str, reason: str = ""
    ) -> tuple[LimitRule | None, list[str]]:
        """Set limits of a scope, and keep its others. Return the rule and warnings. Raises ``Refused``."""
        scope = self._resolved(scope)
        await self.ask(SetLimits(scope, pool, values, actor, reason))
        return self.view.limits.get((scope, pool)), self._warnings(scope, tuple(values))

    async def clear(
        self, scope: str, pool: str | None, names: tuple[Name, ...], actor: str, reason: str = ""
    ) -> tuple[LimitRule | None, list[str]]:
        """Clear the named limits of a scope, or all. Return the rule and warnings. Raises ``Refused``."""
        scope = self._resolved(scope)
        await self.ask(ClearLimits(scope, pool, actor, names, reason))
        return self.view.limits.get((scope, pool)), self._warnings(scope, names or NAMES)

    def people(self) -> dict[str, str]:
        """Return the logins of all known people, by subject."""
        owners = [record.owner for record in self.view.reservations.values()]
        subjects = [subject for subject, _ in self.view.spending]
        found = {subject: subject.rpartition(":")[2] for subject in (*self.policy.personal, *subjects)}
        found |= {owner.subject: owner.login for owner in owners}
        return found | {person.subject: person.login for person in self.view.people.values()}

    def _resolved(self, scope: str) -> str:
        """Return the scope with a person's subject instead of their login."""
        kind, _, name = scope.partition(":")
        if kind != "person" or ":" in name:
            return scope
        known = self.people()
        found = {subject for subject, login in known.items() if login == name}
        found |= {person.subject for person in self.view.people.values() if person.hub_user == name}
        if len(found) == 1:
            return person_scope(found.pop())
        if found:
            raise Refused(
                Code.INVALID_REQUEST,
                f"{len(found)} users have the name {name[:64]!r}.",
                f"Use one of the subjects: {listing(sorted(found), 'or')}.",
            )
        raise Refused(
            Code.NOT_FOUND,
            f"No user is called {name[:64]!r}.",
            "A user must have logged in or made a reservation. "
            "Otherwise use the subject, for example person:local:alice.",
        )

    def _warnings(self, scope: str, names: tuple[Name, ...]) -> list[str]:
        kind, _, name = scope.partition(":")
        who = {
            subject: login
            for subject, login in self.people().items()
            if kind == "default"
            or (kind == "person" and subject == name)
            or (kind == "team" and subject in self.view.people and name in self.view.people[subject].teams)
        }
        told = exceeded(self.policy, self.view, names, who, self.view.now())
        if not told:
            return []
        more = [f"{len(told) - MOST_WARNINGS} more are over the limit."] if len(told) > MOST_WARNINGS else []
        return [
            *told[:MOST_WARNINGS],
            *more,
            "Their reservations continue. New requests wait or are refused until the use is below the limit.",
        ]
