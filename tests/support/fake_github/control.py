"""Change accounts, rights, the App and failures, from tests or with ``POST /_control/OPERATION``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from . import hooks
from .state import Account, App, Installation, NotKnown, Organisation, Repository, State, Team, TeamMember


@dataclass(slots=True)
class Rule:
    """How matching requests fail. A field with its default value changes nothing."""

    path: str = ".*"
    """A regular expression for the whole path. Paths of the API begin with ``/api/v3``."""
    method: str = ""
    times: int = -1
    """How many requests the rule applies to; -1: all, until the rule is removed."""
    skip: int = 0
    """How many matching requests succeed before the rule applies."""
    status: int = 0
    body: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    """Headers to set; an empty value removes one."""
    delay: float = 0.0
    """Seconds before the answer."""
    hang: bool = False
    """Never answer."""
    drop: bool = False
    """Close the connection without an answer."""
    cut: int = -1
    """Send only this many bytes of the answer, with the ``Content-Length`` of the whole answer."""
    fewer: int = 0
    """Leave out this many items at the end of a list."""

    def applies(self, method: str, path: str) -> bool:
        """Return whether the rule applies to this request, and count the request."""
        if self.method not in ("", method) or not re.fullmatch(self.path, path) or self.times == 0:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times > 0:
            self.times -= 1
        return True


@dataclass(frozen=True, slots=True)
class Seen:
    """A received request, without its credentials."""

    method: str
    path: str
    query: str
    status: int
    conditional: bool
    at: float


class Control:
    """The operations of ``/_control``: each public method is one."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.rules: list[Rule] = []
        self.seen: list[Seen] = []
        self.at_once = 0
        self.most_at_once = 0

    # Accounts.

    def account(self, login: str, *, name: str = "", id: int | None = None) -> Account:
        """Register an account. Raises ``ValueError`` if the login is taken."""
        if any(found.login.lower() == login.lower() for found in self._state.accounts.values()):
            raise ValueError(f"the login {login} is taken")
        account = Account(self._state.new_id() if id is None else id, login, name)
        self._state.accounts[account.id] = account
        return account

    def rename(self, login: str, to: str) -> None:
        """Rename an account. The old login is free at once. No webhook reports the change."""
        account = self._state.by_login(login)
        if any(
            found.login.lower() == to.lower() and found is not account
            for found in self._state.accounts.values()
        ):
            raise ValueError(f"the login {to} is taken")
        account.login = to

    def delete(self, login: str) -> None:
        """Delete an account. Its id is never used again; its login becomes free."""
        account = self._state.by_login(login)
        del self._state.accounts[account.id]

    def suspend(self, login: str, *, suspended: bool = True) -> None:
        self._state.by_login(login).suspended = suspended

    def add_key(self, login: str, key: str) -> int:
        """Add a public key; return its id."""
        number = self._state.new_id()
        self._state.by_login(login).keys.append((number, key))
        return number

    def remove_keys(self, login: str, *, containing: str = "") -> None:
        account = self._state.by_login(login)
        account.keys = [entry for entry in account.keys if containing not in entry[1]]

    def sso(self, login: str, *, session: bool) -> None:
        """Set whether the user's tokens have a SAML session."""
        self._state.by_login(login).sso_session = session

    # Organisations, teams and repositories.

    def organisation(self, login: str, *, saml: bool = False) -> Organisation:
        found = Organisation(self._state.new_id(), login, saml=saml)
        self._state.organisations[login.lower()] = found
        return found

    def saml(self, org: str, *, enforced: bool) -> None:
        self._state.organisation(org).saml = enforced

    def org_member(self, org: str, login: str, *, role: str = "member") -> None:
        """Make an account a member (or ``admin``) of an organisation."""
        self._state.organisation(org).members[self._state.by_login(login).id] = role

    def leave_org(self, org: str, login: str) -> None:
        """Remove an account from an organisation and its teams."""
        organisation, account = self._state.organisation(org), self._state.by_login(login)
        organisation.members.pop(account.id, None)
        for team in self._state.teams.values():
            if team.org == organisation.login.lower():
                team.members.pop(account.id, None)
        self._organisation_event("member_removed", organisation, account)

    def team(self, org: str, slug: str, *, parent: str | None = None) -> Team:
        found = Team(self._state.new_id(), org.lower(), slug, parent)
        self._state.teams[org.lower(), slug.lower()] = found
        return found

    def rename_team(self, org: str, slug: str, to: str) -> None:
        team = self._state.team(org, slug)
        del self._state.teams[org.lower(), slug.lower()]
        team.slug = to
        self._state.teams[org.lower(), to.lower()] = team
        self._team_event("edited", team)

    def delete_team(self, org: str, slug: str) -> None:
        team = self._state.teams.pop((org.lower(), slug.lower()))
        self._team_event("deleted", team)

    def join(self, org: str, slug: str, login: str, *, state: str = "active", role: str = "member") -> None:
        """Add an account to a team and its organisation. State ``pending``: invited, but not a member yet."""
        team, account = self._state.team(org, slug), self._state.by_login(login)
        team.members[account.id] = TeamMember(state, role)
        if state == "active":
            self._state.organisation(org).members.setdefault(account.id, "member")
            self._membership_event("added", team, account)

    def leave(self, org: str, slug: str, login: str) -> None:
        """Remove an account from a team."""
        team, account = self._state.team(org, slug), self._state.by_login(login)
        team.members.pop(account.id, None)
        self._membership_event("removed", team, account)

    def empty_team(self, org: str, slug: str) -> None:
        """Remove everybody from a team at once."""
        self._state.team(org, slug).members.clear()

    def repository(self, full_name: str, *, private: bool = False) -> Repository:
        found = Repository(self._state.new_id(), full_name, private)
        self._state.repositories[full_name.lower()] = found
        return found

    def team_role(self, org: str, slug: str, repository: str, role: str | None) -> None:
        """Set the role of a team in a repository; ``None`` removes it."""
        team = self._state.team(org, slug)
        name = self._state.repository(*repository.split("/")).full_name
        if role is None:
            team.repositories.pop(name, None)
            self._team_event("removed_from_repository", team)
        else:
            team.repositories[name] = role
            self._team_event("added_to_repository", team)

    def collaborator(self, repository: str, login: str, role: str | None) -> None:
        """Set the role of an account as a direct collaborator of a repository; ``None`` removes it."""
        found, account = self._state.repository(*repository.split("/")), self._state.by_login(login)
        if role is None:
            found.collaborators.pop(account.id, None)
        else:
            found.collaborators[account.id] = role
        action = "removed" if role is None else "added"
        model = {"login": account.login, "id": account.id}
        self.deliver(
            "member", {"action": action, "member": model, "repository": {"full_name": found.full_name}}
        )

    def custom_role(self, repository: str, name: str, base: str) -> None:
        self._state.repository(*repository.split("/")).custom_roles[name] = base

    # The App.

    def install(self, org: str, permissions: dict[str, str] | None = None) -> Installation:
        """Install the App in an organisation, by default with the permissions that the App asks for."""
        asked = self._state.app.permissions if permissions is None else permissions
        found = Installation(self._state.new_id(), self._state.organisation(org).login, dict(asked))
        self._state.installations[found.id] = found
        self._installation_event("created", found)
        return found

    def uninstall(self, org: str) -> None:
        found = self._installation(org)
        del self._state.installations[found.id]
        self._installation_event("deleted", found)

    def suspend_app(self, org: str, *, suspended: bool = True) -> None:
        found = self._installation(org)
        found.suspended = suspended
        self._installation_event("suspend" if suspended else "unsuspend", found)

    def permissions(self, org: str, permissions: dict[str, str], *, missing_status: int = 404) -> None:
        """Set the granted permissions, and the status of teams without *Members: read*."""
        found = self._installation(org)
        found.permissions = dict(permissions)
        found.missing_permission_status = missing_status
        self._installation_event("new_permissions_accepted", found)

    def expire_installation_tokens(self) -> None:
        for token in self._state.installation_tokens.values():
            token.expires_at = 0

    def expire_user_tokens(self) -> None:
        for token in self._state.user_tokens.values():
            token.expires_at = 0

    def revoke_authorisation(self, login: str) -> None:
        """Revoke the App's authorisation, as a user does in the settings of their account."""
        account = self._state.by_login(login)
        self._state.authorised.discard(account.id)
        kept = {text: token for text, token in self._state.user_tokens.items() if token.account != account.id}
        self._state.user_tokens.clear()
        self._state.user_tokens.update(kept)
        model = {"login": account.login, "id": account.id}
        self.deliver("github_app_authorization", {"action": "revoked", "sender": model})

    def app(self, **changes: Any) -> App:
        """Change fields of the App: ``callback_urls``, ``hook_url``, ``hook_secret``, ``events``, …"""
        for name, value in changes.items():
            if not hasattr(self._state.app, name):
                raise ValueError(f"an App has no {name}")
            setattr(self._state.app, name, value)
        return self._state.app

    def deliver(self, event: str, payload: dict[str, Any]) -> None:
        """Send a webhook delivery, whether or not it is true."""
        hooks.deliver(self._state, event, payload)

    # Failures.

    def fail(self, **fields: Any) -> Rule:
        """Add a rule with these fields of ``Rule``."""
        rule = Rule(**fields)
        self.rules.append(rule)
        return rule

    def outage(self, *, times: int = -1, path: str = ".*") -> Rule:
        """Answer 503 with a page in HTML, like GitHub's load balancer during an outage."""
        body = "<html><body><h1>Unicorn!</h1><p>No server is currently available.</p></body></html>"
        return self.fail(path=path, times=times, status=503, body=body, headers={"Content-Type": "text/html"})

    def secondary_limit(self, *, status: int = 403, retry_after: int | None = None, times: int = -1) -> Rule:
        """Refuse API requests because of a secondary limit, with or without ``retry-after``."""
        body = '{"message": "You have exceeded a secondary rate limit. Please wait a few minutes."}'
        headers = {"Content-Type": "application/json"}
        if retry_after is not None:
            headers["Retry-After"] = str(retry_after)
        return self.fail(path="/api/v3/.*", times=times, status=status, body=body, headers=headers)

    def rate_limit(
        self, *, kind: str = "installation", remaining: int = 0, reset_in: float = 3600, status: int = 403
    ) -> None:
        """Set what is left of every hourly limit of one kind: ``installation``, ``user`` or ``address``."""
        limit = self._state.limits[kind]
        self._state.limit_status = status
        names = set(map(str, self._state.installations)) | {"app", "client"}
        if kind == "user":
            names = set(map(str, self._state.accounts))
        elif kind == "address":
            names = {"127.0.0.1"}
        for name in names:
            window = self._state.window(kind, name)
            window.used = limit - remaining
            window.reset_at = self._state.now() + reset_in

    def clock(self, offset: float) -> None:
        """Set GitHub's clock this many seconds ahead of the machine's."""
        self._state.clock_offset = offset

    def heal(self) -> None:
        """Remove every failure, limit and clock offset."""
        self.rules.clear()
        self._state.windows.clear()
        self._state.limit_status = 403
        self._state.clock_offset = 0.0

    def forget_requests(self) -> None:
        self.seen.clear()
        self.most_at_once = 0

    # Events.

    def _installation(self, org: str) -> Installation:
        for found in self._state.installations.values():
            if found.org.lower() == org.lower():
                return found
        raise NotKnown(org)

    def _membership_event(self, action: str, team: Team, account: Account) -> None:
        model = {"login": account.login, "id": account.id}
        organisation = self._state.organisations[team.org]
        self.deliver(
            "membership",
            {
                "action": action,
                "scope": "team",
                "member": model,
                "team": {"id": team.id, "slug": team.slug},
                "organization": {"login": organisation.login, "id": organisation.id},
            },
        )

    def _team_event(self, action: str, team: Team) -> None:
        organisation = self._state.organisations[team.org]
        payload = {
            "action": action,
            "team": {"id": team.id, "slug": team.slug},
            "organization": {"login": organisation.login, "id": organisation.id},
        }
        self.deliver("team", payload)

    def _organisation_event(self, action: str, organisation: Organisation, account: Account) -> None:
        payload = {
            "action": action,
            "membership": {"user": {"login": account.login, "id": account.id}},
            "organization": {"login": organisation.login, "id": organisation.id},
        }
        self.deliver("organization", payload)

    def _installation_event(self, action: str, installation: Installation) -> None:
        model = {"id": installation.id, "account": {"login": installation.org}}
        self.deliver("installation", {"action": action, "installation": model})


OPERATIONS = frozenset(
    name for name, value in vars(Control).items() if callable(value) and not name.startswith("_")
)
