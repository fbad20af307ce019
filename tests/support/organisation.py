"""The answers of GitHub about access, in memory. A test sets them, or lets GitHub not answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpudev_hub.core.decisions.access_sweep import Rules
from gpudev_hub.core.model import HOUR, MINUTE, Millis
from gpudev_hub.core.ports import Account, Facts, Lists, MembershipUnavailable
from gpudev_hub.service.questions import Github

RULES = Rules("pytorch/metamates", "pytorch/pytorch", 12 * HOUR, most_people=2, most_percent=20)


@dataclass
class Organisation:
    """A ``Membership``: logins by id, and the ids that are in the team or may push."""

    accounts: dict[int, str] = field(default_factory=dict)
    team: set[int] = field(default_factory=set)
    push: set[int] = field(default_factory=set)
    operators: set[int] = field(default_factory=set)
    teams: dict[str, set[int]] = field(default_factory=dict)
    unlisted: set[int] = field(default_factory=set)
    """Members who are missing in the lists, as if a page was lost or they have just joined."""
    problems: list[str] = field(default_factory=list)
    """Texts about teams that the lists count as empty."""
    silent: str = ""
    """If set, GitHub does not answer, for this reason."""
    silent_about: set[int] = field(default_factory=set)
    retry_at: Millis | None = None
    asked: list[int] = field(default_factory=list)
    listed: int = 0

    def join(self, id: int, login: str) -> None:
        """Add a person who may enter."""
        self.accounts[id] = login
        self.team.add(id)
        self.push.add(id)

    async def facts(self, id: int) -> Facts:
        self.asked.append(id)
        if self.silent or id in self.silent_about:
            raise MembershipUnavailable(self.silent or "GitHub answered 502", self.retry_at)
        login = self.accounts.get(id)
        account = None if login is None else Account(id, login)
        teams = tuple(team for team, members in self.teams.items() if id in members)
        in_team, may_push = account is not None and id in self.team, account is not None and id in self.push
        return Facts(account, in_team, may_push, id in self.operators, teams)

    async def lists(self) -> Lists:
        self.listed += 1
        if self.silent:
            raise MembershipUnavailable(self.silent, self.retry_at)
        known = self.accounts.keys() - self.unlisted
        return Lists(
            team={number: self.accounts[number] for number in self.team & known},
            push={number: self.accounts[number] for number in self.push & known},
            operators=frozenset(self.operators),
            teams={team: frozenset(members) for team, members in self.teams.items()},
            problems=tuple(self.problems),
        )


def github(organisation: Organisation, rules: Rules = RULES, period: Millis = 5 * MINUTE) -> Github:
    """Return the access that this organisation decides."""
    return Github(organisation, rules, period, contact="#gpu-help")
