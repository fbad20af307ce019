"""Settings of access by GitHub: one JSON file, named by ``GPUDEV_GITHUB``, that Hub and service read.

Without it, GitHub is not used: users log in as the hub's own settings say. Secrets are separate files that
the JSON file names; ``docs/github-app.md`` has an example.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import msgspec

from .core.decisions.access_sweep import Rules
from .core.model import HOUR, MINUTE, Millis
from .core.policy import Policy
from .settings_error import SettingsError, cause

_Url = Annotated[str, msgspec.Meta(pattern="^https?://[^/?#@ ]+(/[^?# ]*)?$")]
_Team = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$")]
_Minutes = Annotated[float, msgspec.Meta(ge=1, le=1440)]
_Word = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class MassRevocation(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """If more people than both limits would lose access at once, all keep it, and an operator is told."""

    people: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 5
    percent: Annotated[float, msgspec.Meta(ge=0, le=100)] = 20
    """Percentage of the known people with access."""


class GithubSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Everything that Hub and service must know about GitHub and the GitHub App."""

    url: _Url = "https://github.com"
    api_url: _Url = "https://api.github.com"
    app_id: Annotated[int, msgspec.Meta(ge=1)]
    client_id: _Word
    team: _Team = "pytorch/metamates"
    """``ORGANISATION/TEAM-SLUG``: members of the team may get in if they may also push."""
    repository: _Team = "pytorch/pytorch"
    """``ORGANISATION/REPOSITORY``: where users must have push permission."""
    operator_teams: tuple[_Team, ...] = ()
    other_teams: tuple[_Team, ...] = ()
    """Teams that limits and usage may name."""
    blocked: tuple[Annotated[int, msgspec.Meta(ge=1)], ...] = ()
    """Ids of GitHub accounts that never get access, whatever GitHub says about them."""
    client_secret_file: _Word
    private_key_file: _Word
    webhook_secret_file: _Word | None = None
    sweep_minutes: _Minutes = 5
    outage_grace_hours: Annotated[float, msgspec.Meta(ge=0, le=24 * 14)] = 12
    """How long known people keep access while GitHub cannot confirm it."""
    revocation_grace_minutes: Annotated[float, msgspec.Meta(ge=0, le=24 * 60)] = 30
    """How long servers keep running after their owner lost access."""
    mass_revocation: MassRevocation = msgspec.field(default_factory=MassRevocation)

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> GithubSettings | None:
        """Return the settings in the file that ``GPUDEV_GITHUB`` names; ``None`` without it.

        Raises ``SettingsError``.
        """
        path = environment.get("GPUDEV_GITHUB")
        if not path:
            return None
        try:
            found = msgspec.json.decode(Path(path).expanduser().read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError) as error:
            raise SettingsError(
                f"GPUDEV_GITHUB names {path}, which cannot be used: {cause(error)}"
            ) from error
        for name, team in (
            ("repository", found.repository),
            *(("operator_teams", team) for team in found.operator_teams),
            *(("other_teams", team) for team in found.other_teams),
        ):
            if _owner(team).lower() != found.organisation.lower():
                raise SettingsError(
                    f"GPUDEV_GITHUB names {path}, where {name} has {team} and team has {found.team}: "
                    "all must belong to one organisation, where the GitHub App is installed"
                )
        return found

    @property
    def organisation(self) -> str:
        """The organisation in which the GitHub App is installed."""
        return _owner(self.team)

    @property
    def teams(self) -> tuple[str, ...]:
        """All teams in the settings, each once. The first is the team that gives access."""
        return tuple(dict.fromkeys((self.team, *self.operator_teams, *self.other_teams)))

    @property
    def sweep(self) -> Millis:
        """Time between two sweeps."""
        return round(self.sweep_minutes * MINUTE)

    def rules(self) -> Rules:
        """Return who may get in."""
        return Rules(
            team=self.team,
            repository=self.repository,
            outage_grace=round(self.outage_grace_hours * HOUR),
            most_people=self.mass_revocation.people,
            most_percent=self.mass_revocation.percent,
            blocked=frozenset(self.blocked),
        )

    def on(self, policy: Policy) -> Policy:
        """Return ``policy`` with the teams that limits may name and with the grace after access is lost."""
        grace = round(self.revocation_grace_minutes * MINUTE)
        return replace(policy, teams=self.teams, revocation_grace=grace)

    def client_secret(self) -> str:
        """Return the App's client secret. Raises ``SettingsError``."""
        return _secret("client_secret_file", self.client_secret_file)

    def private_key(self) -> str:
        """Return the App's private key in PEM format. Raises ``SettingsError``."""
        return _secret("private_key_file", self.private_key_file)

    def webhook_secret(self) -> str | None:
        """Return the secret that signs webhooks; ``None`` without webhooks. Raises ``SettingsError``."""
        if self.webhook_secret_file is None:
            return None
        return _secret("webhook_secret_file", self.webhook_secret_file)


def _owner(name: str) -> str:
    return name.partition("/")[0]


def _secret(name: str, file: str) -> str:
    path = Path(file).expanduser()
    try:
        mode = path.stat().st_mode
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise SettingsError(f"{name} in GPUDEV_GITHUB names {path}: it cannot be read: {reason}") from error
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise SettingsError(
            f"{name} in GPUDEV_GITHUB names {path}, which every account of this machine can read "
            f"(mode {stat.S_IMODE(mode):o}): run chmod 600 on it"
        )
    if not text:
        raise SettingsError(f"{name} in GPUDEV_GITHUB names {path}, which is empty")
    return text
