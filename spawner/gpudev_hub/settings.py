"""What can be set from outside, and where everything of one hub lies.

The environment says it: ``GPUDEV_PORT``, ``GPUDEV_STATE``, ``GPUDEV_POOL``, ``GPUDEV_CONFIG`` and
``GPUDEV_POLICY``. All processes of one hub read the same environment and so agree.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .policyfile import PolicyFile, read_policy

CHECKOUT = Path(__file__).resolve().parents[2]
"""Where ``make run`` is at home: ``hub-config/``, ``.venv-server``."""

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8000
DEMO_USERS = ("alice", "bob", "carol", "dave")
SERVICE = "gpudev"
"""Name of the reservation service in the Hub."""
PREFIX = f"/services/{SERVICE}/"

_POOL = re.compile(r"([1-9][0-9]{0,2})x([1-9][0-9]{0,2})")
_PARTS = ("hub", "proxy_api", "service", "gate")


class SettingsError(Exception):
    """A setting that can't be used; the message names it and says what would do."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports behind the proxy, all on loopback."""

    hub: int
    proxy_api: int
    service: int
    gate: int


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one hub on this machine."""

    port: int
    """The public one (loopback)."""
    state: Path
    pool: tuple[int, int] | None
    """(nodes, GPUs each) to pretend; ``None``: real GPUs if there are any, else 2 × 8 pretended ones."""
    config: Path
    """The local user's client configuration."""
    user: str
    """The local user's name in the Hub: the account that everything runs as."""
    home: Path
    """The local user's home."""
    policy: PolicyFile
    """What the operator set of limits and times."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        """Settings as the environment says. Raises ``SettingsError``."""
        account = pwd.getpwuid(os.getuid())
        home = Path(environment.get("HOME") or account.pw_dir)
        state_home = Path(environment.get("XDG_STATE_HOME") or home / ".local" / "state")
        state = Path(environment.get("GPUDEV_STATE") or state_home / "gpudev").expanduser().absolute()
        config = Path(environment.get("GPUDEV_CONFIG") or home / ".gpu-dev-config").expanduser().absolute()
        port = environment.get("GPUDEV_PORT") or str(DEFAULT_PORT)
        if not port.isdecimal() or not 1 <= int(port) <= 65535:
            raise SettingsError(f"GPUDEV_PORT is {port!r}: it must be a port number, 1 to 65535")
        pool: tuple[int, int] | None = None
        if text := environment.get("GPUDEV_POOL"):
            match = _POOL.fullmatch(text)
            if match is None:
                raise SettingsError(
                    f"GPUDEV_POOL is {text!r}: it must be NODESxGPUS, for example 2x8 for two nodes of 8 GPUs"
                )
            pool = (int(match[1]), int(match[2]))
        policy = PolicyFile()
        if path := environment.get("GPUDEV_POLICY"):
            try:
                policy = read_policy(Path(path).expanduser())
            except (OSError, ValueError) as error:
                raise SettingsError(f"GPUDEV_POLICY names {path}, which can't be used: {error}") from error
        return cls(int(port), state, pool, config, account.pw_name.lower(), home, policy)

    @property
    def url(self) -> str:
        """The Hub's public address, without a slash at the end."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def demo_users(self) -> tuple[str, ...]:
        """Users to try things with; they share a password and are not isolated from each other."""
        return tuple(name for name in DEMO_USERS if name != self.user)

    @property
    def server_python(self) -> Path:
        """The Python that users' JupyterLabs run on: an environment of their own, not the hub's."""
        return CHECKOUT / ".venv-server" / "bin" / "python"

    @property
    def servers(self) -> Path:
        """Folders of servers."""
        return self.state / "servers"

    @property
    def logs(self) -> Path:
        """Logs of hub, proxy and service."""
        return self.state / "logs"

    @property
    def hub(self) -> Path:
        """The Hub's database and cookie secret."""
        return self.state / "hub"

    @property
    def database(self) -> Path:
        """Everything the service must never lose."""
        return self.state / "service.sqlite"

    def account_shell(self) -> tuple[str, str]:
        """Name and login shell of the account that everything runs as."""
        account = pwd.getpwuid(os.getuid())
        return account.pw_name, account.pw_shell or "/bin/bash"

    def home_of(self, user: str) -> Path:
        """The home of a user of the Hub."""
        return self.home if user == self.user else self.state / "homes" / user

    def environment_of(self, user: str) -> Path:
        """The Python environment of a user of the Hub."""
        return self.state / "envs" / user

    def secret(self, name: str) -> str:
        """The secret of that name, made when first asked for (0600, in a folder nobody else can enter)."""
        folder = self.state / "secrets"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / name
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            text = path.read_text().strip()
            if not text:
                raise SettingsError(f"{path} is empty: remove it, and a new secret is made") from None
            return text
        text = secrets.token_urlsafe(32)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        return text

    def ports(self) -> Ports:
        """The ports chosen for this state folder (``choose_ports``). Raises ``SettingsError`` without any."""
        try:
            chosen = json.loads((self.state / "ports.json").read_text())
            return Ports(**{part: int(chosen[part]) for part in _PARTS})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(
                f"no ports are chosen in {self.state}: gpudev-hub does that ({error})"
            ) from error
