"""Routes of users, teams and repositories."""

from __future__ import annotations

from typing import Any

from .http import Answer, Failed, Request, not_found
from .routing import pages, route, user_model
from .state import RANKS, Repository, State, Team
from .tokens import Caller

# Users.


@route("GET", "/user")
def _own_user(state: State, request: Request, asker: Caller) -> Answer:
    if asker.account is None:
        if asker.kind == "installation":
            raise Failed(403, "Resource not accessible by integration")
        raise Failed(401, "Requires authentication")
    return Answer(body=user_model(asker.account))


@route("GET", "/user/{id}")
def _user_by_id(state: State, request: Request, asker: Caller, id: str) -> Answer:
    account = state.accounts.get(int(id))
    if account is None or account.suspended:
        raise not_found()
    return Answer(body=user_model(account))


@route("GET", "/users/{login}")
def _user(state: State, request: Request, asker: Caller, login: str) -> Answer:
    account = state.by_login(login)
    if account.suspended:
        raise not_found()
    return Answer(body=user_model(account))


@route("GET", "/users/{login}/keys")
def _keys(state: State, request: Request, asker: Caller, login: str) -> Answer:
    account = state.by_login(login)
    if account.suspended:
        raise not_found()
    return pages(request, [{"id": number, "key": key} for number, key in account.keys])


def _by_sso(state: State, asker: Caller, organisations: list[str]) -> tuple[list[str], dict[str, str]]:
    """Leave out organisations that need a SAML session which the token lacks; name them in a header."""
    account = asker.account
    if account is None:
        raise Failed(403, "Resource not accessible by integration")
    hidden = [org for org in organisations if state.organisations[org].saml and not account.sso_session]
    if not hidden:
        return organisations, {}
    ids = ",".join(str(state.organisations[org].id) for org in hidden)
    shown = [org for org in organisations if org not in hidden]
    return shown, {"X-GitHub-SSO": f"partial-results; organizations={ids}"}


@route("GET", "/user/orgs")
def _own_orgs(state: State, request: Request, asker: Caller) -> Answer:
    mine = [
        key for key, org in state.organisations.items() if asker.account and asker.account.id in org.members
    ]
    shown, headers = _by_sso(state, asker, mine)
    models = [{"login": state.organisations[org].login, "id": state.organisations[org].id} for org in shown]
    reply = pages(request, models)
    reply.headers.update(headers)
    return reply


@route("GET", "/user/teams")
def _own_teams(state: State, request: Request, asker: Caller) -> Answer:
    mine = [
        team
        for team in state.teams.values()
        if asker.account is not None
        and (found := state.team_members(team).get(asker.account.id)) is not None
        and found[0].state == "active"
    ]
    shown, headers = _by_sso(state, asker, sorted({team.org for team in mine}))
    reply = pages(request, [_team_model(state, team) for team in mine if team.org in shown])
    reply.headers.update(headers)
    return reply


# Teams.


def _team_model(state: State, team: Team) -> dict[str, Any]:
    return {
        "id": team.id,
        "slug": team.slug,
        "name": team.slug,
        "privacy": "closed",
        "organization": {"login": state.organisations[team.org].login},
        "members_count": len(state.team_members(team)),
    }


def _visible_team(state: State, asker: Caller, org: str, slug: str) -> Team:
    """Return a team. Raises ``Failed`` if the caller may not see it."""
    organisation = state.organisation(org)
    if asker.kind == "user" and asker.account is not None:
        if organisation.saml and not asker.account.sso_session:
            raise Failed(
                403,
                "Resource protected by organization SAML enforcement.",
                X_GitHub_SSO=f"required; url=https://github.com/orgs/{organisation.login}/sso",
            )
        if asker.account.id not in organisation.members:
            raise not_found()
    elif asker.installation is None or asker.installation.org.lower() != org.lower():
        raise not_found()
    elif not asker.may("members"):
        if asker.installation.missing_permission_status == 403:
            raise Failed(
                403, "Resource not accessible by integration", X_Accepted_GitHub_Permissions="members=read"
            )
        raise not_found()
    return state.team(org, slug)


@route("GET", "/orgs/{org}")
def _org(state: State, request: Request, asker: Caller, org: str) -> Answer:
    organisation = state.organisation(org)
    return Answer(body={"login": organisation.login, "id": organisation.id, "type": "Organization"})


@route("GET", "/orgs/{org}/teams/{slug}")
def _team(state: State, request: Request, asker: Caller, org: str, slug: str) -> Answer:
    return Answer(body=_team_model(state, _visible_team(state, asker, org, slug)))


@route("GET", "/orgs/{org}/teams/{slug}/members")
def _team_members(state: State, request: Request, asker: Caller, org: str, slug: str) -> Answer:
    team = _visible_team(state, asker, org, slug)
    models = [
        user_model(state.accounts[number]) | {"role": member.role, "inherited": inherited}
        for number, (member, inherited) in sorted(state.team_members(team).items())
        if member.state == "active"
    ]
    return pages(request, models)


@route("GET", "/orgs/{org}/teams/{slug}/memberships/{login}")
def _membership(state: State, request: Request, asker: Caller, org: str, slug: str, login: str) -> Answer:
    team = _visible_team(state, asker, org, slug)
    account = state.by_login(login)
    found = state.team_members(team).get(account.id)
    if found is None:
        raise not_found()
    owner = state.organisations[team.org].members.get(account.id) == "admin"
    role = "maintainer" if owner else found[0].role
    return Answer(body={"state": found[0].state, "role": role, "url": request.base + request.path})


@route("GET", "/orgs/{org}/teams/{slug}/repos/{owner}/{name}")
def _team_repository(
    state: State, request: Request, asker: Caller, org: str, slug: str, owner: str, name: str
) -> Answer:
    team = _visible_team(state, asker, org, slug)
    repository = state.repository(owner, name)
    role = team.repositories.get(repository.full_name)
    if role is None:
        raise not_found()
    if "repository+json" not in request.headers.get("accept", ""):
        return Answer(204)
    return Answer(body=_repository_model(repository) | {"permissions": _flags(role), "role_name": role})


# Repositories.


def _flags(role: str) -> dict[str, bool]:
    """Return the ``permissions`` of a role."""
    names = {"pull": "read", "triage": "triage", "push": "write", "maintain": "maintain", "admin": "admin"}
    return {flag: RANKS[role] >= RANKS[needed] for flag, needed in names.items()}


def _repository_model(repository: Repository) -> dict[str, Any]:
    owner, _, name = repository.full_name.partition("/")
    return {
        "id": repository.id,
        "name": name,
        "full_name": repository.full_name,
        "private": repository.private,
        "owner": {"login": owner},
    }


def _visible_repository(state: State, asker: Caller, owner: str, name: str) -> Repository:
    repository = state.repository(owner, name)
    if repository.private and (asker.installation is None or asker.installation.org.lower() != owner.lower()):
        raise not_found()
    return repository


def _only_collaborator_readers(asker: Caller, owner: str) -> None:
    """Raise ``Failed`` unless the caller is an installation with *Metadata: read*."""
    if asker.kind == "address":
        raise Failed(401, "Requires authentication")
    if asker.installation is None or asker.installation.org.lower() != owner.lower():
        raise Failed(403, "Resource not accessible by integration")
    if not asker.may("metadata"):
        raise Failed(
            403, "Resource not accessible by integration", X_Accepted_GitHub_Permissions="metadata=read"
        )


@route("GET", "/repos/{owner}/{name}")
def _repository(state: State, request: Request, asker: Caller, owner: str, name: str) -> Answer:
    return Answer(body=_repository_model(_visible_repository(state, asker, owner, name)))


@route("GET", "/repos/{owner}/{name}/collaborators")
def _collaborators(state: State, request: Request, asker: Caller, owner: str, name: str) -> Answer:
    repository = _visible_repository(state, asker, owner, name)
    _only_collaborator_readers(asker, owner)
    wanted = {"pull": "read", "push": "write"}.get(request.query.get("permission", "pull"))
    wanted = wanted or request.query["permission"]
    models = []
    for account in sorted(state.accounts.values(), key=lambda account: account.id):
        role = state.role(account, repository)
        base = repository.custom_roles.get(role, role)
        listed = account.id in repository.collaborators or RANKS[base] > RANKS["read"]
        if listed and RANKS[base] >= RANKS[wanted] and not account.suspended:
            models.append(user_model(account) | {"permissions": _flags(base), "role_name": role})
    return pages(request, models)


@route("GET", "/repos/{owner}/{name}/collaborators/{login}/permission")
def _permission(state: State, request: Request, asker: Caller, owner: str, name: str, login: str) -> Answer:
    repository = _visible_repository(state, asker, owner, name)
    _only_collaborator_readers(asker, owner)
    account = state.by_login(login)
    if account.suspended:
        raise not_found()
    permission, role = state.permission(account, repository)
    return Answer(body={"permission": permission, "role_name": role, "user": user_model(account)})
