"""Who may enter: member of the team and allowed to push, as GitHub says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from gpudev_hub.core.ports import Account, Facts, Lists

from .github import GithubClient, GithubRefused, GithubUnavailable

_ATTEMPTS = 3
"""How often a check starts over because its account was renamed meanwhile."""
_PUSH = ("admin", "write")


T = TypeVar("T")


class _Collaborator(msgspec.Struct):
    id: int
    login: str
    permissions: dict[str, Any]


class _Permission(msgspec.Struct):
    permission: str
    user: Account


class _Member(msgspec.Struct):
    state: str
    """``active``; ``pending`` for somebody who was invited and has not accepted."""


class GithubMembership:
    """A ``core.ports.Membership`` with the App's installation token.

    GitHub also answers 404 for what the App may not see. So a 404 counts only if the team or the repository
    is visible in the same check.
    """

    def __init__(self, client: GithubClient) -> None:
        self._client = client
        self._settings = client.settings

    async def facts(self, id: int) -> Facts:
        """Return what GitHub says about an account, by its current login; compares numbers."""
        for _ in range(_ATTEMPTS):
            account = await self.account(id)
            if account is None:
                return Facts(None, in_team=False, may_push=False, operator=False, teams=())
            found = await self._facts(account)
            if found is not None:
                return found
        raise GithubUnavailable(f"the GitHub account {id} changed its login during each check")

    async def account(self, id: int) -> Account | None:
        """Return the account with its current login; ``None`` if it does not exist or GitHub hides it."""
        reply = await self._client.get(f"/user/{id}")
        if not reply.found:
            # An outage of one route must not look like a deleted account.
            await self.see_repository()
            return None
        return _read(reply.data, Account)

    async def lists(self) -> Lists:
        """Return the members of all teams, and the people with push permission."""
        settings = self._settings
        members: dict[str, dict[int, str]] = {}
        problems: list[str] = []
        for team in settings.teams:
            found = await self._client.pages(f"{_team_path(team)}/members")
            if found is None:
                unseen = self._unseen_team(team)
                if team == settings.team:
                    raise unseen
                problems.append(str(unseen))
            members[team] = {one.id: one.login for one in _read(found or [], list[Account])}
        pushers = await self.pushers()
        if pushers is None:
            raise self._unseen_repository()
        collaborators = _read(pushers, list[_Collaborator])
        operators = frozenset[int]().union(*(members[team] for team in settings.operator_teams))
        return Lists(
            team=members[settings.team],
            push={one.id: one.login for one in collaborators if one.permissions.get("push") is True},
            operators=operators,
            teams={team: frozenset(found) for team, found in members.items()},
            problems=tuple(problems),
        )

    async def pushers(self) -> list[Any] | None:
        """Return the people with push permission, as GitHub lists them; ``None`` for a 404."""
        path = f"/repos/{self._settings.repository}/collaborators"
        return await self._client.pages(path, {"affiliation": "all", "permission": "push"})

    async def see_team(self, team: str) -> Mapping[str, Any]:
        """Return GitHub's description of a team. Raises ``GithubRefused`` if it is not visible."""
        reply = await self._client.get(_team_path(team))
        if not reply.found:
            raise self._unseen_team(team)
        return _read(reply.data, dict[str, Any])

    async def see_repository(self) -> Mapping[str, Any]:
        """Return GitHub's description of the repository. Raises ``GithubRefused`` if it is not visible."""
        reply = await self._client.get(f"/repos/{self._settings.repository}")
        if not reply.found:
            raise self._unseen_repository()
        return _read(reply.data, dict[str, Any])

    async def _facts(self, account: Account) -> Facts | None:
        """Return the facts; ``None`` if the login belongs to another account now."""
        settings = self._settings
        path = f"/repos/{settings.repository}/collaborators/{account.login}/permission"
        reply = await self._client.get(path)
        if not reply.found:
            await self.see_repository()
            # The repository is visible, so the login was renamed or deleted a moment ago.
            return None
        # The rights of another account that has this login now must not count.
        found = _read(reply.data, _Permission)
        if found.user.id != account.id:
            return None
        may_push = found.permission in _PUSH
        in_team = await self._member(settings.team, account.login)
        teams = [settings.team] if in_team else []
        if in_team and may_push:
            teams += [team for team in settings.teams[1:] if await self._member(team, account.login)]
        again = await self._client.get(f"/user/{account.id}")
        if not again.found or _read(again.data, Account) != account:
            return None
        operator = any(team in settings.operator_teams for team in teams)
        return Facts(account, in_team, may_push, operator, tuple(teams))

    async def _member(self, team: str, login: str) -> bool:
        reply = await self._client.get(f"{_team_path(team)}/memberships/{login}")
        if reply.found:
            return _read(reply.data, _Member).state == "active"
        if team == self._settings.team:
            await self.see_team(team)
        return False

    def _unseen_team(self, team: str) -> GithubRefused:
        return GithubRefused(
            f"GitHub shows no team {team}: check the team's name in GPUDEV_GITHUB, and that the GitHub App "
            "has the permission Members: read"
        )

    def _unseen_repository(self) -> GithubRefused:
        return GithubRefused(
            f"GitHub shows no repository {self._settings.repository}: check repository in GPUDEV_GITHUB, and "
            "that the GitHub App is installed on it with the permission Metadata: read"
        )


def _team_path(team: str) -> str:
    org, _, slug = team.partition("/")
    return f"/orgs/{org}/teams/{slug}"


def _read(data: Any, kind: type[T]) -> T:
    """Return the needed fields of GitHub's answer."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError:
        raise GithubUnavailable("GitHub's answer cannot be read: a field is missing") from None
