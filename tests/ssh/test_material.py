"""The host CA, server tokens and launches, the service's own probe, whose keys are whose."""

import asyncio
import base64
import os
import stat
import subprocess
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gpudev_hub.core.model import HOUR, Owner, Presence, State
from gpudev_hub.core.ports import ServerSight
from gpudev_hub.ssh.ca import HostCA
from gpudev_hub.ssh.directory import LocalDirectory
from gpudev_hub.ssh.keygen import keep_pair, new_pair, ssh_keygen
from gpudev_hub.ssh.launches import Launches, ServerTokens, keep_secret
from gpudev_hub.ssh.probe import SshdProbe, certifies
from ssh_world import OWNER, POLICY, World, now


def described(certificate: str, tmp_path: Path) -> str:
    file = tmp_path / "cert.pub"
    file.write_text(certificate + "\n")
    done = subprocess.run(["ssh-keygen", "-L", "-f", str(file)], capture_output=True, text=True, check=True)
    return done.stdout


def test_ca_is_kept_and_signs_host_certificates(tmp_path: Path) -> None:
    ca = HostCA(tmp_path / "ca")
    assert HostCA(tmp_path / "ca").known_hosts == ca.known_hosts
    for name in ("host_ca", "host_ca.pub"):
        assert stat.S_IMODE((tmp_path / "ca" / name).stat().st_mode) == 0o600
    _, public = new_pair("x", tmp_path)
    text = described(ca.sign(public, ["gx1-1"]), tmp_path)
    assert "host certificate" in text
    assert "Valid: forever" in text, "a client's clock, wrong in either direction, keeps nobody out"
    assert "Principals: \n                gx1-1\n" in text
    assert ca.public.fingerprint in text
    assert new_pair("x", tmp_path) != new_pair("x", tmp_path)


@pytest.mark.parametrize("names", [[], ["*"], ["a,b"], [""], ["gx1", "-n"], ["gx1\n"]])
def test_ca_refuses_names_that_mean_more(tmp_path: Path, names: list[str]) -> None:
    ca = HostCA(tmp_path / "ca")
    with pytest.raises(ValueError, match="names"):
        ca.sign(new_pair("x", tmp_path)[1], names)


def test_half_made_pair_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "key"
    keep_pair(path, "c")
    public = path.with_name("key.pub")
    before = (path.read_text(), public.read_text().split()[:2])
    public.unlink()
    keep_pair(path, "c")
    assert (path.read_text(), public.read_text().split()[:2]) == before


def test_tokens_name_one_attempt() -> None:
    tokens = ServerTokens(b"k" * 32)
    token = tokens.make("gx1", 2)
    assert token == ServerTokens(b"k" * 32).make("gx1", 2)
    assert tokens.verify("gx1", 2, token)
    wrong = [("gx1", 1, token), ("gx1", 22, token), ("gx12", 2, token), ("gx1", 2, ""), ("gx1", 2, "é")]
    assert not any(tokens.verify(*one) for one in wrong)
    assert not ServerTokens(b"j" * 32).verify("gx1", 2, token)


def test_secret_is_kept_and_a_cut_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "tokens"
    secret = keep_secret(path)
    assert keep_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(secret[:7])
    with pytest.raises(ValueError, match="has 7 bytes instead of 32"):
        keep_secret(path)


async def test_launch_is_the_same_again(tmp_path: Path) -> None:
    """Also for two who ask at once, and for a service that was started again."""
    with_world = World(tmp_path / "world")
    record = with_world.reserve("gx1", gpus=8, nodes=2, name="pair")

    def launches() -> Launches:
        return Launches(
            tmp_path / "launches",
            ca=with_world.ca,
            tokens=with_world.tokens,
            policy=POLICY,
            service_url="http://127.0.0.1:1/services/gpudev/",
        )

    one = launches()
    first, second = await asyncio.gather(one.make(record), one.make(record))
    assert first == second == await launches().make(record)
    assert first.ssh[0].gang_key == first.ssh[1].gang_key is not None
    assert first.ssh[0].host_key != first.ssh[1].host_key
    assert "gx1-1" in described(first.ssh[1].host_certificate, tmp_path)
    other = await one.make(replace(record, attempt=2))
    assert other.ssh[0].host_key != first.ssh[0].host_key
    assert other.token != first.token
    for path in (tmp_path / "launches").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_launches_go_with_their_slots_and_remains_with_the_first_pass(tmp_path: Path) -> None:
    """Private keys do not outlive their server."""
    world = World(tmp_path / "world")
    folder = tmp_path / "ssh" / "launches"

    def launches() -> Launches:
        return Launches(
            folder, ca=world.ca, tokens=world.tokens, policy=POLICY, service_url="http://127.0.0.1:1/"
        )

    first = launches()
    for name in ("gx1", "gx2"):
        await first.make(world.reserve(name))
    await first.forget_ended({("gx1", 1): 0, ("gx2", 1): 0}.keys())
    assert {path.name for path in folder.iterdir()} == {"gx1-1.json", "gx2-1.json"}
    await first.forget_ended({("gx2", 1): 0}.keys())
    assert {path.name for path in folder.iterdir()} == {"gx2-1.json"}
    for left in (folder / ".new-abc", tmp_path / "ssh" / "demo" / "alice" / ".new-def"):
        left.mkdir(parents=True)
        (left / "key").write_text("private")
    await launches().forget_ended({("gx2", 1)})
    assert [path.name for path in tmp_path.joinpath("ssh").rglob("*") if path.is_file()] == ["gx2-1.json"]


async def test_keys_are_made_in_a_private_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kill in the middle of it leaves must be found again: not in /tmp."""
    used: list[Path] = []

    def keygen(*arguments: str) -> str:
        used.append(Path(arguments[-1]).parent.parent)
        return ssh_keygen(*arguments)

    monkeypatch.setattr("gpudev_hub.ssh.keygen.ssh_keygen", keygen)
    world = World(tmp_path / "world")
    used.clear()
    await world.launches.make(world.reserve("gx1", gpus=8, nodes=2))
    assert set(used) == {world.folder / "launches"}


async def test_an_alias_leads_to_the_reservation_that_holds_the_name(tmp_path: Path) -> None:
    """One that is being stopped has lost it, though its server still listens."""
    world = World(tmp_path / "world")
    old = world.reserve("gx1", name="demo")
    new = world.reserve("gx2", name="demo")
    for record in (old, new):
        world.live.sights[record.id] = ServerSight(record.id, 1, Presence.PRESENT, sshd={0: ("127.0.0.1", 2)})
    world.live.reservations[old.id] = replace(old, state=State.STOPPING)
    hosts = (await world.access.hosts(OWNER)).hosts
    assert [(host.alias, host.id) for host in hosts] == [("gpu-demo", "gx2")]


async def test_local_directory(tmp_path: Path) -> None:
    ssh = tmp_path / ".ssh"
    ssh.mkdir()
    directory = LocalDirectory(OWNER.subject, ssh, tmp_path / "demo")
    assert await directory.keys(OWNER) == []
    keep_pair(ssh / "id_ed25519", "mine")
    keep_pair(ssh / "gpudev" / "id_ed25519", "made")
    (ssh / "friend.pub").write_text(new_pair("friend", tmp_path)[1])
    (ssh / "bad.pub").write_bytes(b"\xff\xfe")
    (ssh / "bad").touch()
    os.mkfifo(ssh / "pipe.pub")  # has no writer: opening it would never return
    (ssh / "pipe").touch()
    (ssh / "image").touch()
    with (ssh / "image.pub").open("wb") as image:
        image.truncate(1 << 30)
    lines = {(ssh / name).read_text().split()[1] for name in ("id_ed25519.pub", "gpudev/id_ed25519.pub")}
    tracemalloc.start()
    found = await directory.keys(OWNER)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert {key.blob for key in found} == lines
    assert peak < 4 << 20, "of a file of any size"
    assert await directory.identity_file(OWNER) is None
    demo = Owner("local:../eve", "../eve", "eve")
    identity = await directory.identity_file(demo)
    assert identity is not None
    assert identity.resolve().is_relative_to((tmp_path / "demo").resolve())
    (key,) = await directory.keys(demo)
    assert key.blob == identity.with_name("id_ed25519.pub").read_text().split()[1]


def test_certificates_that_do_not_count(tmp_path: Path) -> None:
    ca, other = HostCA(tmp_path / "ca"), HostCA(tmp_path / "other")
    _, public = new_pair("x", tmp_path)
    good = ca.sign(public, ["gx1"])
    assert certifies(good, ca.public, "gx1")
    assert not certifies(good, other.public, "gx1")
    assert not certifies(good, ca.public, "gx")
    assert not certifies(f"[127.0.0.1]:1 {public}", ca.public, "gx1")
    assert certifies(f"[127.0.0.1]:22 {good}", ca.public, "gx1")
    kind, blob = good.split()[:2]
    assert not certifies(f"{kind} {blob[:100]}", ca.public, "gx1")
    assert not certifies(f"{kind} ***", ca.public, "gx1")
    assert not certifies(f"{kind} ", ca.public, "gx1")
    assert not certifies("", ca.public, "gx1")


def test_a_certificate_with_one_changed_byte_does_not_count(tmp_path: Path) -> None:
    ca = HostCA(tmp_path / "ca")
    kind, text = ca.sign(new_pair("x", tmp_path)[1], ["gx1"]).split()[:2]
    blob = base64.b64decode(text)
    for at in range(len(blob)):
        changed = blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]
        assert not certifies(f"{kind} {base64.b64encode(changed).decode()}", ca.public, "gx1"), at
    assert certifies(f"{kind} {text}", ca.public, "gx1")


def test_a_certificate_that_only_names_our_ca_does_not_count(tmp_path: Path) -> None:
    """Another CA signed it, and the key that it names as its signer was replaced by ours."""
    ca, other = HostCA(tmp_path / "ca"), HostCA(tmp_path / "other")
    kind, text = other.sign(new_pair("x", tmp_path)[1], ["gx1"]).split()[:2]
    named = base64.b64decode(text).replace(
        base64.b64decode(other.public.blob), base64.b64decode(ca.public.blob)
    )
    forged = f"{kind} {base64.b64encode(named).decode()}"
    assert not certifies(forged, ca.public, "gx1")
    assert not certifies(forged, other.public, "gx1")


def test_a_users_certificate_does_not_count(tmp_path: Path) -> None:
    ca = HostCA(tmp_path / "ca")
    (tmp_path / "x.pub").write_text(new_pair("x", tmp_path)[1])
    ssh_keygen("-q", "-s", str(tmp_path / "ca" / "host_ca"), "-I", "x", "-n", "gx1", str(tmp_path / "x.pub"))
    assert not certifies((tmp_path / "x-cert.pub").read_text(), ca.public, "gx1")


@pytest.mark.integration
async def test_probe(world: World) -> None:
    (rank,) = await asyncio.to_thread(world.start, "gprobe")
    probe = SshdProbe(world.ca.public)
    assert await probe("127.0.0.1", rank.port, "gprobe")
    assert not await probe("127.0.0.1", rank.port, "gother")
    assert not await probe("127.0.0.1", 1, "gprobe")
    await asyncio.to_thread(world.stop, "gprobe")
    assert not await probe("127.0.0.1", rank.port, "gprobe")


async def test_a_rank_keeps_its_port_when_another_one_is_gone(tmp_path: Path) -> None:
    """The name of rank 0 must never lead to rank 1's sshd, which proves to be somebody else."""
    world = World(tmp_path)
    world.reserve("gx1", gpus=8, nodes=2)
    world.live.sights["gx1"] = ServerSight(
        "gx1", 1, Presence.PRESENT, complete=False, sshd={1: ("127.0.0.1", 20_001)}
    )
    (host,) = (await world.access.hosts(OWNER)).hosts
    assert (host.alias, host.rank, host.port, host.host_key_alias) == ("gpu-gx1-1", 1, 20_001, "gx1-1")


async def test_names_of_all_nodes_and_those_that_lead_nowhere(tmp_path: Path) -> None:
    """A reservation `x-1` keeps its name, also while it waits; the second node of `x` goes by the id then."""
    world = World(tmp_path)
    world.reserve("gx1", gpus=8, nodes=2, name="x")
    world.reserve("gx2", gpus=8, nodes=2, name="pair")
    world.reserve("gx3", name="x-1")
    world.change("gx3", state=State.QUEUED)
    for server in ("gx1", "gx2"):
        world.live.sights[server] = ServerSight(
            server, 1, Presence.PRESENT, sshd={0: ("127.0.0.1", 20_000), 1: ("127.0.0.1", 20_001)}
        )
    world.live.sights["gx2"] = replace(world.live.sights["gx2"], sshd={0: ("127.0.0.1", 20_002)})
    access = await world.access.hosts(OWNER)
    assert [(host.alias, host.id, host.rank) for host in access.hosts] == [
        ("gpu-x", "gx1", 0),
        ("gpu-gx1-1", "gx1", 1),
        ("gpu-pair", "gx2", 0),
    ]
    assert [(one.alias, one.id) for one in access.closed] == [("gpu-pair-1", "gx2"), ("gpu-x-1", "gx3")]
    assert (await world.access.hosts(Owner("local:bob", "bob", "bob"))).closed == []


async def test_a_key_opens_until_the_end_by_the_clock_of_the_server(tmp_path: Path) -> None:
    """A machine that slept for a night counts the reservation on, and its sshd reads another time."""
    world = World(tmp_path)
    keep_pair(world.home / ".ssh" / "id_ed25519", "mine")
    world.reserve("gx1")
    (key,) = await LocalDirectory(OWNER.subject, world.home / ".ssh", tmp_path).keys(OWNER)
    found = []
    for world.set_forward in (0, 8 * HOUR):
        (line,) = await world.access.authorized_keys("gx1", key.fingerprint)
        expiry, _, ends = line.removeprefix('expiry-time="').partition("ends=")
        read = datetime.strptime(expiry.partition('"')[0], "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
        assert int(ends) == read.timestamp()
        found.append(int(ends))
    assert found[1] - found[0] == 8 * 3600


@pytest.mark.parametrize("state", [State.QUEUED, State.STOPPING, State.ENDED])
async def test_access_is_closed_unless_live(tmp_path: Path, state: State) -> None:
    """Invariant 13: no reservation, no key."""
    world = World(tmp_path)
    keep_pair(world.home / ".ssh" / "id_ed25519", "mine")
    world.reserve("gx1")
    (key,) = await LocalDirectory(OWNER.subject, world.home / ".ssh", tmp_path).keys(OWNER)
    (line,) = await world.access.authorized_keys("gx1", key.fingerprint)
    assert key.line in line
    assert line.startswith('expiry-time="')
    assert await world.access.authorized_keys("gx2", key.fingerprint) == []
    assert await world.access.authorized_keys("gx1", "SHA256:" + "A" * 43) == []
    world.change("gx1", owner=Owner("local:other", "other", "other"))
    assert await world.access.authorized_keys("gx1", key.fingerprint) == []
    world.change("gx1", owner=OWNER, state=state)
    assert await world.access.authorized_keys("gx1", key.fingerprint) == []
    world.change("gx1", state=State.READY, hard_end=now() - 1)
    assert await world.access.authorized_keys("gx1", key.fingerprint) == []
