"""What GitHub's lists and single answers mean for known people.

People in both lists keep access. Others are only suspects, until GitHub confirms it about each person alone.
If there are more suspects than the brake allows, none is revoked: somebody may have emptied a team by
mistake, or the GitHub App may have lost a permission.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from gpudev_hub.core.access_model import Access, Person
from gpudev_hub.core.events import AccessLost, PersonSeen
from gpudev_hub.core.model import HOUR, Millis
from gpudev_hub.core.ports import Facts, Lists
from gpudev_hub.core.words import counted

from .unit_of_work import SERVICE

PREFIX: Final = "github:"
CONFIRM_AGAIN: Final[Millis] = HOUR
"""How often listed people are confirmed one by one while sweeps are not complete."""


BLOCKED: Final = "an operator blocked this account"

PACE_OVER: Final[Millis] = HOUR
"""The time over which revocations outside sweeps are counted."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that access depends on."""

    team: str
    """``org/slug``; its members may get in if they may also push."""
    repository: str
    """``org/name``."""
    outage_grace: Millis
    """How long people keep access while GitHub confirms nobody."""
    most_people: int
    """The brake: at most this many people lose access at once …"""
    most_percent: float
    """… or this percentage of those who have it, if that is more."""
    blocked: frozenset[int] = frozenset()
    """GitHub accounts that an operator keeps out, whatever GitHub says."""

    def lists_let_in(self, number: int, lists: Lists) -> bool:
        """Return whether an account is in both lists and not blocked."""
        return number in lists.team and number in lists.push and number not in self.blocked


@dataclass(frozen=True, slots=True)
class Review:
    """What the lists say about known people."""

    seen: tuple[PersonSeen, ...]
    """People in both lists whose access or details change."""
    suspects: tuple[str, ...]
    """Subjects with access who are not in both lists."""
    brake: str
    """Why none of the suspects may be revoked; empty: GitHub is asked about each of them."""


class Pace:
    """How many people lost access outside sweeps, by logins and hints, which have no list to compare with."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._at: deque[Millis] = deque()

    def allows(self, people: Mapping[str, Person], now: Millis) -> bool:
        """Return whether one more may lose access now; else the next sweep decides, with its brake."""
        while self._at and self._at[0] <= now - PACE_OVER:
            self._at.popleft()
        known = sum(person.access is Access.ALLOWED for person in people.values())
        return len(self._at) < most_at_once(known, self._rules)

    def count(self, now: Millis) -> None:
        """Count one person who lost access."""
        self._at.append(now)


def most_at_once(known: int, rules: Rules) -> int:
    """Return how many of ``known`` people with access may lose it at once."""
    return max(rules.most_people, int(known * rules.most_percent / 100))


def subject_of(id: int) -> str:
    """Return the subject of a GitHub account."""
    return f"{PREFIX}{id}"


def id_of(subject: str) -> int | None:
    """Return the number of the GitHub account; ``None`` for a subject from elsewhere."""
    number = subject.removeprefix(PREFIX)
    return int(number) if number != subject and number.isdecimal() else None


def newly_blocked(people: Mapping[str, Person], rules: Rules) -> list[AccessLost]:
    """Return the loss of access of each person whom an operator has blocked; the brake does not apply."""
    return [
        AccessLost(person.subject, BLOCKED, SERVICE)
        for person in people.values()
        if person.access is Access.ALLOWED and id_of(person.subject) in rules.blocked
    ]


def review(
    people: Mapping[str, Person], lists: Lists, asked_at: Millis, rules: Rules, released: Collection[str] = ()
) -> Review:
    """Compare the lists, asked for at ``asked_at``, with known people.

    ``released``: suspects whom an operator released from the brake.
    """
    seen, suspects, known = [], [], 0
    for person in people.values():
        number = id_of(person.subject)
        if number is None:
            continue
        allowed = person.access is Access.ALLOWED
        known += allowed
        if rules.lists_let_in(number, lists):
            found = _listed(person, number, lists, asked_at)
            known_as = replace(person, login=found.login, teams=found.teams, operator=found.operator)
            if not allowed or known_as != person:
                seen.append(found)
        elif allowed:
            suspects.append(person.subject)
    held = [subject for subject in suspects if subject not in released]
    return Review(tuple(seen), tuple(suspects), _brake(len(held), known, lists, rules))


def confirmed_again(
    people: Mapping[str, Person], lists: Lists, asked_at: Millis, swept_at: Millis, rules: Rules
) -> list[PersonSeen]:
    """Return confirmations of listed people whose last one is old, after an incomplete sweep.

    Without them, a brake that stays on would in time lock out everybody, not only the suspects.
    """
    found = []
    for person in people.values():
        number = id_of(person.subject)
        old = max(person.confirmed_at, swept_at) <= asked_at - CONFIRM_AGAIN
        if old and number is not None and rules.lists_let_in(number, lists):
            found.append(_listed(person, number, lists, asked_at))
    return found


def judge(subject: str, facts: Facts, asked_at: Millis, rules: Rules) -> PersonSeen | AccessLost:
    """Decide on one person, known or not, from GitHub's answer about that person."""
    account = facts.account
    if id_of(subject) in rules.blocked:
        reason = BLOCKED
    elif account is None:
        reason = "GitHub no longer has this account"
    elif not facts.in_team and not facts.may_push:
        reason = f"not a member of {rules.team}, and no push permission on {rules.repository}"
    elif not facts.in_team:
        reason = f"not a member of {rules.team}"
    elif not facts.may_push:
        reason = f"no push permission on {rules.repository}"
    else:
        return PersonSeen(subject, account.login, account.login, facts.teams, facts.operator, asked_at)
    return AccessLost(subject, reason, SERVICE, asked_at)


def is_confirmed(person: Person | None, swept_at: Millis | None, rules: Rules, now: Millis) -> bool:
    """Return whether GitHub's last confirmation of a person still counts."""
    return person is not None and now <= max(person.confirmed_at, swept_at or 0) + rules.outage_grace


def _listed(person: Person, number: int, lists: Lists, asked_at: Millis) -> PersonSeen:
    login = lists.team[number]
    teams = tuple(sorted(team for team, members in lists.teams.items() if number in members))
    return PersonSeen(person.subject, login, login, teams, number in lists.operators, asked_at)


def _brake(suspects: int, known: int, lists: Lists, rules: Rules) -> str:
    most = most_at_once(known, rules)
    lose = f"{counted(suspects, 'person').replace('persons', 'people')} would lose access at once"
    if suspects and not lists.team:
        return f"{lose}: GitHub lists no member of {rules.team}"
    if suspects and not lists.push:
        return f"{lose}: GitHub lists nobody with push permission on {rules.repository}"
    return f"{lose}; at most {most} are revoked without an operator" if suspects > most else ""
