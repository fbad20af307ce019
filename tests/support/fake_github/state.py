"""The state of the fake GitHub: accounts, organisations, teams, repositories, one App and its tokens."""

from __future__ import annotations

import itertools
import secrets
import time
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

HOUR = 3600
RANKS = {"none": 0, "read": 1, "triage": 2, "write": 3, "maintain": 4, "admin": 5}
PERMISSION_OF = {"triage": "read", "maintain": "write"}
"""The value of ``permission`` for roles that it cannot name."""


@dataclass(slots=True)
class Account:
    """A user. The id never changes and is never reused. The login may change, and others may then take it."""

    id: int
    login: str
    name: str = ""
    keys: list[tuple[int, str]] = field(default_factory=list)
    suspended: bool = False
    sso_session: bool = True
    """Whether this user's tokens have a SAML session for organisations that enforce SAML."""


@dataclass(slots=True)
class TeamMember:
    """A member of a team. ``pending``: invited, but not a member yet."""

    state: str = "active"
    role: str = "member"


@dataclass(slots=True)
class Team:
    """A team; members of its child teams count as its members."""

    id: int
    org: str
    slug: str
    parent: str | None = None
    members: dict[int, TeamMember] = field(default_factory=dict)
    repositories: dict[str, str] = field(default_factory=dict)
    """The team's role by full repository name."""


@dataclass(slots=True)
class Organisation:
    """An organisation, with its members' roles (``member`` or ``admin``) by account id."""

    id: int
    login: str
    members: dict[int, str] = field(default_factory=dict)
    saml: bool = False
    enterprise: bool = False
    """Enterprise Cloud organisations have the higher rate limit."""


@dataclass(slots=True)
class Repository:
    """A repository and its direct collaborators' roles by account id."""

    id: int
    full_name: str
    private: bool = False
    collaborators: dict[int, str] = field(default_factory=dict)
    custom_roles: dict[str, str] = field(default_factory=dict)
    """Base role by the name of a custom role."""


@dataclass(slots=True)
class App:
    """The GitHub App."""

    id: int
    slug: str
    client_id: str
    client_secret: str
    public_key: RSAPublicKey
    callback_urls: list[str] = field(default_factory=list)
    permissions: dict[str, str] = field(
        default_factory=lambda: {"members": "read", "metadata": "read"},
    )
    events: list[str] = field(default_factory=list)
    hook_url: str = ""
    hook_secret: str = ""


@dataclass(slots=True)
class Installation:
    """The App in an organisation. ``permissions`` are those that an owner has approved."""

    id: int
    org: str
    permissions: dict[str, str]
    suspended: bool = False
    missing_permission_status: int = 404
    """The status of teams without *Members: read*: GitHub hides them (404) or refuses (403)."""


@dataclass(slots=True)
class InstallationToken:
    """A token of an installation, valid for an hour."""

    installation: int
    permissions: dict[str, str]
    expires_at: float


@dataclass(slots=True)
class UserToken:
    """A token that the App got when a user logged in."""

    account: int
    expires_at: float
    refresh_token: str


@dataclass(slots=True)
class LoginCode:
    """The one-use code between the login page and the token."""

    account: int
    redirect_uri: str
    challenge: str | None
    expires_at: float


@dataclass(slots=True)
class Window:
    """The hourly rate limit of one actor: an installation, a user or an address."""

    limit: int
    used: int
    reset_at: float

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.used)


@dataclass(slots=True)
class Delivery:
    """A webhook delivery, sent or not."""

    id: int
    guid: str
    event: str
    action: str | None
    body: bytes
    redelivery: bool = False
    status_code: int = 0
    """The receiver's status; 0: not sent, or not answered."""


class NotKnown(LookupError):
    """The named object does not exist."""


class State:
    """All state, and GitHub's own clock. ``Control`` changes it, and the handlers read it."""

    def __init__(self, app: App, start: int) -> None:
        self.app = app
        self.clock_offset = 0.0
        """Seconds by which GitHub's clock is ahead of the machine's."""
        self.accounts: dict[int, Account] = {}
        self.organisations: dict[str, Organisation] = {}
        self.teams: dict[tuple[str, str], Team] = {}
        self.repositories: dict[str, Repository] = {}
        self.installations: dict[int, Installation] = {}
        self.installation_tokens: dict[str, InstallationToken] = {}
        self.user_tokens: dict[str, UserToken] = {}
        self.authorised: set[int] = set()
        self.codes: dict[str, LoginCode] = {}
        self.sessions: dict[str, int] = {}
        self.windows: dict[str, Window] = {}
        self.deliveries: list[Delivery] = []
        self.limits = {"installation": 5000, "user": 5000, "address": 60}
        self.limit_status = 403
        """403 or 429: how a request over the hourly limit is refused."""
        self._ids = itertools.count(start)

    def now(self) -> float:
        """Return GitHub's time in seconds."""
        return time.time() + self.clock_offset

    def new_id(self) -> int:
        return next(self._ids)

    def by_login(self, login: str) -> Account:
        """Return the account with this login, in upper or lower case. Raises ``NotKnown``."""
        for account in self.accounts.values():
            if account.login.lower() == login.lower():
                return account
        raise NotKnown(login)

    def organisation(self, login: str) -> Organisation:
        try:
            return self.organisations[login.lower()]
        except KeyError:
            raise NotKnown(login) from None

    def repository(self, owner: str, name: str) -> Repository:
        try:
            return self.repositories[f"{owner}/{name}".lower()]
        except KeyError:
            raise NotKnown(name) from None

    def team(self, org: str, slug: str) -> Team:
        try:
            return self.teams[org.lower(), slug.lower()]
        except KeyError:
            raise NotKnown(slug) from None

    def team_members(self, team: Team) -> dict[int, tuple[TeamMember, bool]]:
        """Return members by account id, each with whether a child team adds it."""
        found = {number: (member, False) for number, member in team.members.items()}
        for child in self.teams.values():
            if child.org == team.org and child.parent == team.slug:
                for number, (member, _) in self.team_members(child).items():
                    if number not in found or found[number][0].state == "pending":
                        found[number] = (member, True)
        return {number: entry for number, entry in found.items() if number in self.accounts}

    def role(self, account: Account, repository: Repository) -> str:
        """Return an account's highest role: direct, by teams, by the organisation, or *read* if public."""
        base = repository.custom_roles
        roles = ["none" if repository.private else "read"]
        if account.id in repository.collaborators:
            roles.append(repository.collaborators[account.id])
        organisation = self.organisations.get(repository.full_name.partition("/")[0].lower())
        if organisation is not None and organisation.members.get(account.id) == "admin":
            roles.append("admin")
        for team in self.teams.values():
            # A child team has its parents' rights, because the parents' members include those of the child.
            member = self.team_members(team).get(account.id)
            if member is not None and member[0].state == "active":
                roles.append(team.repositories.get(repository.full_name, "none"))
        return max(roles, key=lambda role: RANKS[base.get(role) or role])

    def permission(self, account: Account, repository: Repository) -> tuple[str, str]:
        """Return ``permission`` (admin, write, read, none) and ``role_name`` of an account."""
        role = self.role(account, repository)
        base = repository.custom_roles.get(role, role)
        return PERMISSION_OF.get(base, base), role

    def window(self, kind: str, actor: str) -> Window:
        """Return the rate limit of an actor of that kind; begin a new hour if the last one is over."""
        found = self.windows.get(f"{kind}:{actor}")
        if found is None or found.reset_at <= self.now():
            found = Window(self.limits[kind], 0, self.now() + HOUR)
            self.windows[f"{kind}:{actor}"] = found
        return found

    def new_user_token(self, account: int) -> tuple[str, UserToken]:
        """Create a token that is valid for eight hours, with a refresh token."""
        token = f"ghu_{secrets.token_urlsafe(27)}"
        entry = UserToken(account, self.now() + 8 * HOUR, f"ghr_{secrets.token_urlsafe(57)}")
        self.user_tokens[token] = entry
        return token, entry
