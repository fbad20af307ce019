"""The settings of a hub on one machine, and the paths of its files.

The settings are environment variables: ``GPUDEV_PORT``, ``GPUDEV_STATE``, ``GPUDEV_POOL``, ``GPUDEV_CONFIG``,
``GPUDEV_POLICY``, ``GPUDEV_GITHUB``, ``GPUDEV_BASTION`` and ``GPUDEV_SUBDOMAINS``. All processes of one hub
read the same environment, so their settings agree.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from .github_settings import GithubSettings
from .policyfile import PolicyFile, read_policy
from .settings_error import SettingsError as SettingsError
from .settings_error import cause

CHECKOUT = Path(__file__).resolve().parents[2]
"""The checkout of ``make run``, with ``hub-config/`` and ``.venv-server``."""

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8000
DEMO_USERS = ("alice", "bob", "carol", "dave")
SERVICE = "gpudev"
"""Name of the reservation service in the Hub."""
PREFIX = f"/services/{SERVICE}/"

_POOL = re.compile(r"([1-9][0-9]{0,2})x([1-9][0-9]{0,2})")
_LAST_PORT = 65535
_Port = Annotated[int, msgspec.Meta(ge=1, le=_LAST_PORT)]


class Ports(msgspec.Struct, frozen=True):
    """Ports behind the proxy, all on loopback."""

    hub: _Port
    proxy_api: _Port
    service: _Port
    gate: _Port
    bastion: _Port = 0
    """0 if a version without a bastion chose the ports."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one hub on this machine."""

    port: int
    """The public port, on loopback."""
    state: Path
    pool: tuple[int, int] | None
    """(nodes, GPUs per node) to simulate. ``None``: real GPUs if there are any, else simulated 2 × 8."""
    config: Path
    """The local user's client configuration."""
    user: str
    """The local user's name in the Hub. It is the account that runs the hub and all servers."""
    home: Path
    """The local user's home."""
    policy: PolicyFile
    """The operator's limits and times."""
    github: GithubSettings | None = None
    """How people log in with GitHub. ``None``: with passwords, as the local user or a demo user."""
    bastion: int = 0
    """0: SSH uses no bastion. 1: it uses a bastion on a chosen port. Otherwise the port of the bastion."""
    subdomains: bool = False
    """Whether each user's servers are on a subdomain of ``localhost``."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        """Return the settings in the environment. Raises ``SettingsError``."""
        account = pwd.getpwuid(os.getuid())
        home = Path(environment.get("HOME") or account.pw_dir)
        state_home = Path(environment.get("XDG_STATE_HOME") or home / ".local" / "state")
        state = Path(environment.get("GPUDEV_STATE") or state_home / "gpudev").expanduser().absolute()
        config = Path(environment.get("GPUDEV_CONFIG") or home / ".gpu-dev-config").expanduser().absolute()
        port = environment.get("GPUDEV_PORT") or str(DEFAULT_PORT)
        if not port.isdecimal() or not 1 <= int(port) <= _LAST_PORT:
            raise SettingsError(f"GPUDEV_PORT is {port!r}; it must be a port number from 1 to 65535")
        pool: tuple[int, int] | None = None
        if text := environment.get("GPUDEV_POOL"):
            match = _POOL.fullmatch(text)
            if match is None:
                raise SettingsError(
                    f"GPUDEV_POOL is {text!r}; it must be NODESxGPUS, for example 2x8 for two nodes of 8 GPUs"
                )
            pool = (int(match[1]), int(match[2]))
        policy = PolicyFile()
        if path := environment.get("GPUDEV_POLICY"):
            try:
                policy = read_policy(Path(path).expanduser())
            except (OSError, ValueError) as error:
                raise SettingsError(
                    f"GPUDEV_POLICY names {path}, which cannot be used: {cause(error)}"
                ) from error
        github = GithubSettings.read(environment)
        bastion = environment.get("GPUDEV_BASTION") or "0"
        if not bastion.isdecimal() or int(bastion) > _LAST_PORT:
            raise SettingsError(
                f"GPUDEV_BASTION is {bastion!r}; it must be 1 (the hub chooses a port) or a port number"
            )
        subdomains = environment.get("GPUDEV_SUBDOMAINS") or "0"
        if subdomains not in ("0", "1"):
            raise SettingsError(
                f"GPUDEV_SUBDOMAINS is {subdomains!r}; it must be 1 (each user's servers on a subdomain of "
                "localhost) or 0"
            )
        name = account.pw_name.lower()
        return cls(
            int(port), state, pool, config, name, home, policy, github, int(bastion), subdomains == "1"
        )

    @property
    def url(self) -> str:
        """The Hub's public address, without a slash at the end."""
        # A network address has no subdomains.
        return f"http://{'localhost' if self.subdomains else LOOPBACK}:{self.port}"

    @property
    def contact(self) -> str:
        """Whom users ask for help."""
        return self.policy.contact or f"{self.user}, who runs this hub"

    @property
    def demo_users(self) -> tuple[str, ...]:
        """Users for demonstrations; they share a password and are not isolated from each other."""
        if self.github is not None:
            return ()
        return tuple(name for name in DEMO_USERS if name != self.user)

    @property
    def server_python(self) -> Path:
        """The Python that runs users' JupyterLabs, in an environment of its own."""
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
        """The database with everything that the service must never lose."""
        return self.state / "service.sqlite"

    @property
    def bastion_folder(self) -> Path:
        """The bastion's secrets and the files that it writes."""
        return self.state / "bastion"

    def bastion_port(self, ports: Ports) -> int:
        """Return the port of the bastion."""
        return ports.bastion if self.bastion == 1 else self.bastion

    def account_shell(self) -> tuple[str, str]:
        """Return the name and login shell of the account that runs the hub and all servers."""
        account = pwd.getpwuid(os.getuid())
        return account.pw_name, account.pw_shell or "/bin/bash"

    def is_local(self, user: str) -> bool:
        """Return whether a Hub user is the account that runs the hub, and not only has the same name."""
        return self.github is None and user == self.user

    def home_of(self, user: str) -> Path:
        """Return the home of a user of the Hub."""
        return self.home if self.is_local(user) else self.state / "homes" / user

    def environment_of(self, user: str) -> Path:
        """Return the Python environment of a user of the Hub."""
        return self.state / "envs" / user

    def secret(self, name: str) -> str:
        """Return the secret of that name. The first call creates it (mode 0600, in a folder with 0700)."""
        folder = self.state / "secrets"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / name
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            text = path.read_text().strip()
            if not text:
                raise SettingsError(f"{path} is empty: remove it to get a new secret") from None
            return text
        text = secrets.token_urlsafe(32)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        return text

    def ports(self) -> Ports:
        """Return the ports chosen for this state folder (``choose_ports``). Raises ``SettingsError``."""
        try:
            return msgspec.json.decode((self.state / "ports.json").read_bytes(), type=Ports)
        except (OSError, msgspec.MsgspecError) as error:
            raise SettingsError(
                f"{self.state} has no usable ports.json ({error}): start gpudev-hub, which makes it"
            ) from error
