"""Real log-ins with settings of users' own that would lead elsewhere."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ssh_world import World

pytestmark = pytest.mark.integration

HOSTILE = """
Host *
  AddressFamily inet6
  BindAddress 192.0.2.7
  CASignatureAlgorithms rsa-sha2-512
  Ciphers aes128-cbc
  HostKeyAlgorithms ssh-ed25519
  KexAlgorithms diffie-hellman-group1-sha1
  MACs hmac-md5
  PreferredAuthentications password
  ProxyJump login.example.org
  PubkeyAcceptedAlgorithms ecdsa-sha2-nistp256
  RemoteCommand false
  RequestTTY force
  User nobody
  Tunnel no
Host gpu-*
  HostName other.example.org
  IdentityFile /nowhere
  CertificateFile /nowhere-cert.pub
  ControlMaster auto
  ControlPath {shared}
  ControlPersist 20
"""


@pytest.fixture(scope="module")
def config(world: World) -> Iterator[Path]:
    """A user's file with such settings, and two servers at one address."""
    with TemporaryDirectory(prefix="gpudev-") as short:  # for sockets, pytest's own folders are too deep
        home = Path(short)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME", short)
            (home / ".gpu-dev-config").write_text("{}")
            patch.setenv("GPUDEV_CONFIG", str(home / ".gpu-dev-config"))
            (home / ".ssh").mkdir(mode=0o700)
            (home / ".ssh" / "config").write_text(HOSTILE.format(shared=home / "shared"))
            key = world.home / ".ssh" / "id_ed25519"
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
            for part in (key, key.with_suffix(".pub")):
                (home / ".ssh" / part.name).write_bytes(part.read_bytes())
                (home / ".ssh" / part.name).chmod(0o600)
            world.start("ga1", name="a")
            world.start("gb1", name="b")
            world.sync()
            yield home / ".ssh" / "config"
            for name in ("a", "b"):
                subprocess.run(
                    ["ssh", "-F", str(home / ".ssh" / "config"), "-O", "exit", f"gpu-{name}"],
                    capture_output=True,
                    check=False,
                )
            world.stop("ga1")
            world.stop("gb1")


def test_each_name_leads_to_its_own_server_whatever_users_have_set(config: Path) -> None:
    """First log-in, then over the shared connection that the user asked for; bytes come as they are."""
    for _ in range(2):
        for name in ("a", "b"):
            done = subprocess.run(
                ["ssh", "-F", str(config), f"gpu-{name}", r"printf '%s\n' $GPUDEV_SERVER"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=60,
                check=False,
            )
            assert (done.stdout, done.returncode) == (f"g{name}1/1/0\n".encode(), 0)
    sockets = sorted(path.name for path in (config.parent / "gpudev").glob("mux-*"))
    assert len(sockets) == 2
    assert not (config.parent.parent / "shared").exists()
