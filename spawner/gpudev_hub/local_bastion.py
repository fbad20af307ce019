"""The bastion of one machine: account, address, secrets and command."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Mapping

from gpudev.wire import SshBastion

from .server import preflight, private
from .settings import CHECKOUT, LOOPBACK, Ports, Settings
from .ssh.bastion import HOST_KEY_ALIAS
from .ssh.ca import HostCA
from .ssh.keygen import keep_pair, public_of

PROGRAM = CHECKOUT / "infra" / "images" / "bastion" / "bastion"
SECRET = "bastion"
"""Name of the bastion's secret for the service."""
_UNPRIVILEGED = "nobody"


def account() -> str:
    """Return the account that users log in as. An sshd of an ordinary user accepts only that user."""
    own = pwd.getpwuid(os.getuid()).pw_name
    return _UNPRIVILEGED if os.getuid() == 0 and _usable(_UNPRIVILEGED) else own


def _usable(name: str) -> bool:
    """Return whether sshd accepts logins as this account. It refuses locked accounts."""
    done = subprocess.run(["getent", "shadow", name], capture_output=True, text=True, check=False)
    return done.returncode == 0 and not done.stdout.partition(":")[2].startswith("!")


def address(settings: Settings, ports: Ports) -> SshBastion:
    """Return how clients reach the bastion."""
    return SshBastion(
        host=LOOPBACK, port=settings.bastion_port(ports), user=account(), host_key_alias=HOST_KEY_ALIAS
    )


def prepare(settings: Settings) -> None:
    """Write the host key, its certificate and the secret. Raises ``OSError`` or ``KeygenFailed``."""
    folder = settings.bastion_folder / "secrets"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = folder / "host_ed25519"
    keep_pair(key, HOST_KEY_ALIAS)
    certificate = HostCA(settings.state / "ssh").sign(public_of(key).read_text().strip(), [HOST_KEY_ALIAS])
    private.write(folder / "host_ed25519-cert.pub", certificate + "\n")
    private.write(folder / "token", settings.secret(SECRET))


def command(
    settings: Settings, ports: Ports, environment: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Return the command line and the environment of the bastion's process."""
    kept = {name: value for name, value in environment.items() if not name.startswith("GPUDEV_BASTION")}
    # Clients that offer many wrong keys must not slow down the service on the same machine.
    return ["nice", "-n", "10", "/bin/bash", str(PROGRAM)], kept | {
        "GPUDEV_GATE": f"http://{LOOPBACK}:{ports.gate}",
        "GPUDEV_BASTION_SECRETS": str(settings.bastion_folder / "secrets"),
        "GPUDEV_BASTION_RUN": str(settings.bastion_folder / "run"),
        "GPUDEV_BASTION_PORT": str(settings.bastion_port(ports)),
        "GPUDEV_BASTION_ADDRESS": LOOPBACK,
        "GPUDEV_BASTION_ACCOUNT": preflight.account_pattern(account()),
        "GPUDEV_BASTION_TARGETS": f"{LOOPBACK}:*",
        # On one machine, all clients have the same address.
        "GPUDEV_BASTION_PENALTIES": "no",
    }
