"""A bastion that cannot be trusted, or cannot be used, does not start, and says why."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpudev_hub.ssh.ca import HostCA
from gpudev_hub.ssh.keygen import keep_pair, public_of
from hub_users import free_port
from ssh_world import BASTION_CODE, eventually

pytestmark = pytest.mark.integration
REFUSED = 3


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """What a bastion needs."""
    folder = tmp_path / "secrets"
    keep_pair(folder / "host_ed25519", "bastion")
    ca = HostCA(tmp_path / "ca")
    certificate = ca.sign(public_of(folder / "host_ed25519").read_text().strip(), ["gpudev-bastion"])
    (folder / "host_ed25519-cert.pub").write_text(certificate + "\n")
    (folder / "token").write_text("secret\n")
    (folder / "token").chmod(0o400)
    return folder


def start(tmp_path: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    env = {
        "PATH": os.environ["PATH"],
        "GPUDEV_GATE": "http://127.0.0.1:1",
        "GPUDEV_BASTION_SECRETS": str(tmp_path / "secrets"),
        "GPUDEV_BASTION_RUN": str(tmp_path / "run"),
        "GPUDEV_BASTION_PORT": str(free_port()),
        "GPUDEV_BASTION_ADDRESS": "127.0.0.1",
        **changes,
    }
    return subprocess.run(
        ["/bin/bash", str(BASTION_CODE)],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def sign(folder: Path, *arguments: str) -> None:
    authority, key = folder.parent / "ca/host_ca", folder / "host_ed25519.pub"
    command = ["ssh-keygen", "-q", "-s", str(authority), "-I", "x", *arguments, str(key)]
    subprocess.run(command, check=True)


def other_key(folder: Path) -> None:
    (folder / "host_ed25519").unlink()
    (folder / "host_ed25519.pub").unlink()
    keep_pair(folder / "host_ed25519", "another")


def empty_token(folder: Path) -> None:
    (folder / "token").chmod(0o600)
    (folder / "token").write_text("")


CASES: list[tuple[str, Callable[[Path], object], str]] = [
    ("no key", lambda f: (f / "host_ed25519").unlink(), "host_ed25519 does not exist"),
    ("no certificate", lambda f: (f / "host_ed25519-cert.pub").unlink(), "cert.pub does not exist"),
    ("no token", lambda f: (f / "token").unlink(), "token does not exist"),
    ("empty token", empty_token, "token is empty"),
    ("key for all", lambda f: (f / "host_ed25519").chmod(0o644), "everyone can read"),
    ("token for all", lambda f: (f / "token").chmod(0o444), "everyone can read"),
    ("no key in it", lambda f: (f / "host_ed25519").write_text("nothing\n"), "is not a private key"),
    (
        "plain key for certificate",
        lambda f: shutil.copy(f / "host_ed25519.pub", f / "host_ed25519-cert.pub"),
        "not a certificate",
    ),
    ("other key", other_key, "is the certificate of another key"),
    ("other name", lambda f: sign(f, "-h", "-n", "other"), "does not name the principal gpudev-bastion"),
    ("no name", lambda f: sign(f, "-h"), "does not name the principal gpudev-bastion"),
    ("user's", lambda f: sign(f, "-n", "gpudev-bastion"), "is not a host certificate"),
    (
        "expired",
        lambda f: sign(f, "-h", "-n", "gpudev-bastion", "-V", "20200101:20210101"),
        "expired at 2021-01-01",
    ),
]


@pytest.mark.parametrize(("change", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_missing_or_wrong_is_named(
    secrets: Path, tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    change(secrets)
    done = start(tmp_path)
    assert (done.returncode, said in done.stderr) == (REFUSED, True), done.stderr
    assert "secret" not in done.stdout.replace("secrets/", "")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"GPUDEV_GATE": ""}, "GPUDEV_GATE is ''"),
        ({"GPUDEV_GATE": "https://gate"}, "Set it to the address of the service's gate"),
        ({"GPUDEV_BASTION_RUN": "relative"}, "OpenSSH needs an absolute path"),
        ({"GPUDEV_BASTION_RUN": "/a%b"}, "OpenSSH needs an absolute path"),
        ({"GPUDEV_BASTION_PORT": "many"}, "sshd refuses its configuration"),
        ({"GPUDEV_BASTION_EXEMPT": "office"}, "Set it to networks with commas between them"),
        ({"GPUDEV_BASTION_EXEMPT": "10.0.0.0/24 10.0.1.0/24"}, "Set it to networks with commas between them"),
    ],
)
def test_settings_that_cannot_be_used(
    secrets: Path, tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    done = start(tmp_path, **changes)
    assert (done.returncode, said in done.stderr) == (REFUSED, True), done.stderr


@pytest.fixture
def running(secrets: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    port = free_port()
    env = {
        "PATH": os.environ["PATH"],
        "GPUDEV_GATE": "http://127.0.0.1:1",
        "GPUDEV_BASTION_SECRETS": str(secrets),
        "GPUDEV_BASTION_RUN": str(tmp_path / "run"),
        "GPUDEV_BASTION_PORT": str(port),
        "GPUDEV_BASTION_ADDRESS": "127.0.0.1",
        "GPUDEV_BASTION_ACCOUNT": "nobody",
        "GPUDEV_BASTION_EXEMPT": "10.0.0.0/24,10.0.1.0/24",
    }
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["/bin/bash", str(BASTION_CODE)], env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    eventually(lambda: "Server listening" in log.read_text() or process.poll() is not None)
    yield process, tmp_path / "run"
    process.kill()
    process.wait()


def test_the_effective_settings(running: tuple[subprocess.Popen[bytes], Path]) -> None:
    """Compared with what sshd makes of them; both locks on targets are there."""
    _, run = running
    command = ["/usr/sbin/sshd", "-T", "-f", str(run / "sshd_config")]
    said = subprocess.run(
        [*command, "-C", "user=nobody,host=h,addr=192.0.2.1"], capture_output=True, text=True, check=True
    ).stdout
    found = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
    expected = {
        "allowtcpforwarding": "local",
        "permitopen": "*:2222",
        "permitlisten": "none",
        "allowstreamlocalforwarding": "no",
        "allowagentforwarding": "no",
        "x11forwarding": "no",
        "permittunnel": "no",
        "permittty": "no",
        "permituserrc": "no",
        "permituserenvironment": "no",
        "gatewayports": "no",
        "passwordauthentication": "no",
        "kbdinteractiveauthentication": "no",
        "authenticationmethods": "publickey",
        "authorizedkeysfile": "none",
        "requiredrsasize": "2048",
        "maxstartups": "200:30:400",
        "logingracetime": "30",
        "unusedconnectiontimeout": "600",
    }
    assert {name: found.get(name) for name in expected} == expected
    assert "forcecommand" in found
    if "persourcepenalties" in found:  # OpenSSH 9.8 and later
        assert found["persourcepenaltyexemptlist"] == "10.0.0.0/24,10.0.1.0/24"


def test_a_bastion_that_is_killed_leaves_nothing(running: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, run = running
    process.kill()
    process.wait()

    def left() -> list[str]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                text = path.read_text(errors="replace")
            except OSError:
                continue
            if str(run) in text:
                found.append(text)
        return found

    eventually(lambda: not left(), timeout=15)
