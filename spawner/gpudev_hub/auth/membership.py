"""Who may enter: member of the team and allowed to push, as GitHub says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpudev_hub.core.ports import Account, Facts, Lists

from .github import GithubClient, GithubRefused, GithubUnavailable

_ATTEMPTS = 3
"""How often a single check starts over because its account was renamed meanwhile."""
_PUSH = ("admin", "write")


class GithubMembership:
    """``core.ports.Membership`` by the App's installation token.

    A 404 of GitHub's is believed only where what it was asked about is seen in the same check: GitHub also
    hides what the App may not see.
    """

    def __init__(self, client: GithubClient) -> None:
        self._client = client
        self._settings = client.settings
        self.problems: dict[str, str] = {}
        """Why a team other than the one that gives access counts as empty, by team."""

    async def facts(self, id: int) -> Facts:
        """The account's current login first, then what that login may, compared by number."""
        for _ in range(_ATTEMPTS):
            account = await self.account(id)
            if account is None:
                return Facts(None, in_team=False, may_push=False, operator=False, teams=())
            found = await self._facts(account)
            if found is not None:
                return found
        raise GithubUnavailable(f"the GitHub account {id} changed its login during each check")

    async def account(self, id: int) -> Account | None:
        """The account of that number as it is called now; ``None``: there is none, or GitHub hides it."""
        reply = await self._client.get(f"/user/{id}")
        if not reply.found:
            # An outage of one route must not look like the end of an account.
            await self.see_repository()
            return None
        return _account(reply.data)

    async def lists(self) -> Lists:
        """Team members and push collaborators in pages of 100, and the other teams' members."""
        settings = self._settings
        members: dict[str, Mapping[int, str]] = {}
        for team in settings.teams:
            found = await self._client.pages(f"{_team_path(team)}/members")
            if found is None and team == settings.team:
                raise self._unseen_team(team)
            self._note(team, found is None)
            members[team] = _logins(found or [])
        pushers = await self._client.pages(
            f"/repos/{settings.repository}/collaborators", {"affiliation": "all", "permission": "push"}
        )
        if pushers is None:
            raise self._unseen_repository()
        may_push = [user for user in pushers if _field(user, "permissions").get("push") is True]
        operators = frozenset[int]().union(*(members[team] for team in settings.operator_teams))
        return Lists(
            team=members[settings.team],
            push=_logins(may_push),
            operators=operators,
            teams={team: frozenset(found) for team, found in members.items()},
        )

    async def see_team(self, team: str) -> Mapping[str, Any]:
        """GitHub's description of a team. Raises ``GithubRefused`` where the App cannot see it."""
        reply = await self._client.get(_team_path(team))
        if not reply.found:
            raise self._unseen_team(team)
        return _mapping(reply.data)

    async def see_repository(self) -> Mapping[str, Any]:
        """GitHub's description of the repository. Raises ``GithubRefused`` where the App cannot see it."""
        reply = await self._client.get(f"/repos/{self._settings.repository}")
        if not reply.found:
            raise self._unseen_repository()
        return _mapping(reply.data)

    async def _facts(self, account: Account) -> Facts | None:
        """``None``: the login is another account's by now."""
        settings = self._settings
        path = f"/repos/{settings.repository}/collaborators/{account.login}/permission"
        reply = await self._client.get(path)
        if not reply.found:
            await self.see_repository()
            # The repository is there, so the login is not: renamed or deleted a moment ago.
            return None
        # An account that took over the login must not lend its rights.
        if _account(_field(reply.data, "user")).id != account.id:
            return None
        may_push = _text(reply.data, "permission") in _PUSH
        in_team = await self._member(settings.team, account.login)
        teams = [settings.team] if in_team else []
        if in_team and may_push:
            teams += [team for team in settings.teams[1:] if await self._member(team, account.login)]
        again = await self._client.get(f"/user/{account.id}")
        if not again.found or _account(again.data) != account:
            return None
        operator = any(team in settings.operator_teams for team in teams)
        return Facts(account, in_team, may_push, operator, tuple(teams))

    async def _member(self, team: str, login: str) -> bool:
        reply = await self._client.get(f"{_team_path(team)}/memberships/{login}")
        if reply.found:
            # Somebody who was invited and has not accepted is "pending".
            return _text(reply.data, "state") == "active"
        try:
            await self.see_team(team)
        except GithubRefused:
            if team == self._settings.team:
                raise
            self._note(team, unseen=True)
            return False
        self._note(team, unseen=False)
        return False

    def _note(self, team: str, unseen: bool) -> None:
        if unseen:
            self.problems[team] = str(self._unseen_team(team))
        else:
            self.problems.pop(team, None)

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


def _logins(users: list[Any]) -> dict[int, str]:
    accounts = [_account(user) for user in users]
    return {account.id: account.login for account in accounts}


def _account(data: Any) -> Account:
    found = _mapping(data)
    if not isinstance(found.get("id"), int) or not isinstance(found.get("login"), str):
        raise _unreadable()
    return Account(found["id"], found["login"])


def _field(data: Any, name: str) -> Mapping[str, Any]:
    return _mapping(_mapping(data).get(name))


def _text(data: Any, name: str) -> str:
    found = _mapping(data).get(name)
    if not isinstance(found, str):
        raise _unreadable()
    return found


def _mapping(data: Any) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise _unreadable()
    return data


def _unreadable() -> GithubUnavailable:
    return GithubUnavailable("GitHub's answer cannot be read: a field is missing")
