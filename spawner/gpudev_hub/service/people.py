"""People: whether they may get in, from GitHub at a login, and otherwise from the committed state."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from gpudev_hub.core.access_model import Access, Person
from gpudev_hub.core.decisions.access_sweep import Pace, id_of, is_confirmed, judge, subject_of
from gpudev_hub.core.errors import ASK_AN_OPERATOR, Code, Refused
from gpudev_hub.core.events import AccessLost, Event
from gpudev_hub.core.gate import Entry, LoginAnswer, PersonAnswer
from gpudev_hub.core.model import Millis, Owner
from gpudev_hub.core.ports import MembershipUnavailable
from gpudev_hub.core.words import duration, sentence

from .questions import Github, Questions
from .view import View

NOTHING_WRONG: Final = "This does not mean that your access was refused. Try again in a few minutes."

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a person may use the service now."""

    allowed: bool
    message: str = ""
    hint: str = ""


ALLOWED: Final = Verdict(allowed=True)


class People:
    """Answers from the committed state; only ``login`` asks GitHub."""

    def __init__(
        self,
        view: View,
        ask: Callable[[Event], Awaitable[object]],
        now: Callable[[], Millis],
        github: Github | None,
        pace: Pace | None,
    ) -> None:
        """``ask``: decides about an event and returns once that is durable.

        Without ``github``, GitHub is not used: everybody whom the Hub knows may enter.
        """
        self._view = view
        self._ask = ask
        self._now = now
        self.questions = None if github is None else Questions(github, now)
        self._rules = None if github is None else github.rules
        self._pace = pace
        self._whom = f"Ask {github.contact}." if github is not None and github.contact else ASK_AN_OPERATOR

    async def login(self, github_id: int, login: str) -> LoginAnswer:
        """Decide about a person who has just logged in as this GitHub account.

        Raises ``Refused`` (``unavailable``) if a loss of access cannot be stored.
        """
        if self.questions is None or self._rules is None:
            return LoginAnswer(Entry.REFUSED, "", "This hub does not use GitHub.", self._whom)
        subject = subject_of(github_id)
        known = self._view.people.get(subject)
        stranger = known is None or known.access is not Access.ALLOWED
        try:
            answer = await self.questions.ask(github_id, stranger=stranger)
        except MembershipUnavailable as error:
            log.warning("GitHub could not be asked about %s (%s): %s", login, subject, error)
            return self._as_stored(subject, f"GitHub could not confirm the access of {login}: {error}")
        facts = answer.facts
        found = judge(subject, facts, answer.asked_at, self._rules)
        if not isinstance(found, AccessLost):
            try:
                await self._ask(found)
            except Refused as error:
                if error.code is not Code.UNAVAILABLE:
                    raise
                log.warning("the login of %s (%s) could not be saved: %s", login, subject, error)
                return self._as_stored(subject, f"the login of {login} could not be saved")
            verdict, person = self.verdict(subject), self._view.people[subject]
            if verdict.allowed:
                return LoginAnswer(Entry.ALLOWED, person.hub_user, operator=person.operator)
            # Revoked while GitHub was asked.
            return LoginAnswer(Entry.REFUSED, "", verdict.message, verdict.hint)
        self.questions.remember_refusal(github_id, answer)
        await self._lost(found)
        log.info("login of %s (%s) refused: %s", login, subject, found.reason)
        invited = "" if facts.in_team else "If you were invited to the team, accept the invitation first. "
        hint = (
            self._whom
            if github_id in self._rules.blocked
            else f"{invited}This hub is for members of {self._rules.team} with push permission on "
            f"{self._rules.repository}. {self._whom}"
        )
        return LoginAnswer(Entry.REFUSED, "", f"{login} may not use this hub: {found.reason}.", hint)

    async def _lost(self, lost: AccessLost) -> None:
        """Revoke a known person's access; if too many have lost theirs, leave that to the sweep."""
        person, now, pace = self._view.people.get(lost.subject), self._now(), self._pace
        if person is not None and person.access is Access.ALLOWED and pace is not None:
            if pace.allows(self._view.people, now):
                pace.count(now)
                await self._ask(lost)
            else:
                log.warning("%s keeps access until the next sweep: too many people lost theirs", lost.subject)

    def _as_stored(self, subject: str, why: str) -> LoginAnswer:
        """Answer without GitHub or the database: people with access stay in for the grace, no others."""
        person = self._view.people.get(subject)
        if person is not None and person.access is Access.ALLOWED and self.verdict(subject).allowed:
            return LoginAnswer(Entry.ALLOWED, person.hub_user, operator=person.operator)
        return LoginAnswer(Entry.UNAVAILABLE, "", sentence(why), NOTHING_WRONG)

    def verdict(self, subject: str) -> Verdict:
        """Return whether a person may use the service now, from the committed state alone."""
        person = self._view.people.get(subject)
        if person is not None and person.access is Access.REVOKED:
            message = sentence(f"access of {person.login} to this hub was revoked: {person.reason}")
            return Verdict(allowed=False, message=message, hint=self._whom)
        if self._rules is None:
            return ALLOWED
        if person is None:
            message = "You have not logged in to this hub with GitHub."
            return Verdict(allowed=False, message=message, hint="Log in to the hub in a browser.")
        if is_confirmed(person, self._view.swept_at, self._rules, self._now()):
            return ALLOWED
        grace = duration(self._rules.outage_grace)
        since = f" for more than {grace}" if grace else ""
        message = f"GitHub has not confirmed the access of {person.login}{since}."
        return Verdict(allowed=False, message=message, hint=f"{NOTHING_WRONG} {self._whom}")

    def access_of(self, hub_user: str) -> PersonAnswer:
        """Return whether a user of the Hub may still use it, from the committed state alone."""
        person = self._of(hub_user)
        if person is None:
            message = f"{hub_user} has not logged in with GitHub."
            return PersonAnswer(Entry.REFUSED, message=message, hint=self._whom)
        verdict = self.verdict(person.subject)
        return PersonAnswer(
            Entry.ALLOWED if verdict.allowed else Entry.REFUSED,
            id_of(person.subject) or 0,
            person.login,
            person.operator,
            verdict.message,
            verdict.hint,
        )

    def owner_of(self, hub_user: str) -> Owner | None:
        """Return who a user of the Hub is; ``None``: they never logged in with GitHub."""
        person = self._of(hub_user)
        return None if person is None else owner(person)

    def _of(self, hub_user: str) -> Person | None:
        return next((p for p in self._view.people.values() if p.hub_user == hub_user), None)

    def by_login(self, login: str) -> Person | None:
        """Return the person with this GitHub login, from GitHub's last answers.

        After a rename two people may have had it; the one confirmed last has it now.
        """
        named = (p for p in self._view.people.values() if p.login.lower() == login.lower())
        return max(named, key=lambda p: (p.access is Access.ALLOWED, p.confirmed_at), default=None)


def owner(person: Person) -> Owner:
    """Return the person as the owner of reservations."""
    return Owner(person.subject, person.hub_user, person.login)
