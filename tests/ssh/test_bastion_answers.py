"""Which connections must end, decided from the state of the moment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from gpudev_hub.core.model import Presence, Reservation, State
from gpudev_hub.core.ports import ServerSight
from gpudev_hub.ssh.bastion import BastionConnection, BastionEvent, target
from gpudev_hub.ssh.keygen import keep_pair, public_of
from gpudev_hub.ssh.keys import parse_line
from ssh_world import OTHER, OWNER, World

FIRST, SECOND, THEIRS = "10.0.0.7:2201", "10.0.0.7:2202", "10.0.0.8:2200"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        keep_pair(world.home / ".ssh" / "id_ed25519", "mine")
        for number, name in enumerate(("first", "second"), 1):
            world.reserve(name)
            addresses = {0: ("10.0.0.7", 2200 + number)}
            world.live.sights[name] = ServerSight(name, 1, Presence.PRESENT, sshd=addresses)
        yield world


def fingerprint(world: World) -> str:
    return parse_line(public_of(world.home / ".ssh" / "id_ed25519").read_text().strip()).fingerprint


def ended(
    world: World, permitted: tuple[str, ...] = (FIRST, SECOND), **connections: tuple[str, ...]
) -> dict[str, str]:
    """Reasons by the id of those that must end, of connections with the targets that they were used for."""
    live = [
        BastionConnection(name, fingerprint(world), targets, permitted)
        for name, targets in connections.items()
    ]
    return {one.id: reason for one, reason in asyncio.run(world.bastion.to_end(live))}


def event(kind: Literal["opened", "asked", "closed"], **fields: Any) -> BastionEvent:
    return BastionEvent(0, "b", kind, "c", **fields)


def test_a_connection_ends_with_what_it_was_used_for(world: World) -> None:
    line = world.bastion_keys(fingerprint(world)).decode()
    assert [f'permitopen="{one}"' in line for one in (FIRST, SECOND)] == [True, True]
    carried: dict[str, tuple[str, ...]] = {
        "one": (FIRST,),
        "other": (SECOND,),
        "both": (FIRST, SECOND),
        "denied": ("169.254.169.254:80",),
        "idle": (),
    }
    assert not ended(world, **carried)
    assert not ended(world, (), new=())
    world.change("first", state=State.STOPPING)
    # What can still open the ended server's address and carries nothing ends, too.
    assert ended(world, **carried).keys() == {"one", "denied", "idle"}
    assert not ended(world, (SECOND,), later=(), used=(SECOND,))
    world.change("second", state=State.STOPPING)
    assert ended(world, **carried).keys() == carried.keys()


def test_a_connection_ends_when_another_persons_server_gets_its_address(world: World) -> None:
    """Also if a service that was restarted never knew whose address it was."""
    world.change("first", state=State.ENDED)
    assert not ended(world, used=(SECOND,), idle=())
    world.reserve("heir")
    world.live.sights["heir"] = ServerSight("heir", 1, Presence.PRESENT, sshd={0: ("10.0.0.7", 2201)})
    assert not ended(world, used=(SECOND,), idle=()), "the same person's"
    world.change("heir", owner=OTHER)
    found = ended(world, used=(SECOND,), both=(FIRST, SECOND), idle=())
    assert found.keys() == {"used", "both", "idle"}
    assert found["used"] == "an address that it could open belongs to another reservation now"
    assert not ended(world, (SECOND,), later=(SECOND,)), "it could never open that address"
    world.change("heir", state=State.ENDED)
    assert not ended(world, used=(SECOND,)), "nobody else's any more"


@pytest.fixture
def shared(world: World) -> Reservation:
    """A server of somebody else, who lists the same key."""
    own = world.home / ".ssh" / "id_ed25519"
    theirs = world.folder / "demo" / OTHER.hub_user / "id_ed25519"
    theirs.parent.mkdir(mode=0o700, parents=True)
    for one, copy in ((own, theirs), (public_of(own), public_of(theirs))):
        copy.write_bytes(one.read_bytes())
        copy.chmod(0o600)
    record = world.reserve("theirs", owner=OTHER)
    addresses = {0: ("10.0.0.8", 2200)}
    world.live.sights["theirs"] = ServerSight("theirs", 1, Presence.PRESENT, sshd=addresses)
    return record


def test_a_key_of_two_people_opens_the_servers_of_both(world: World, shared: Reservation) -> None:
    answer = world.bastion_keys(fingerprint(world)).decode()
    assert answer.count("\n") == 1, "sshd uses only the first line of a key"
    for one in (FIRST, SECOND, THEIRS):
        assert f'permitopen="{one}"' in answer
    carried: dict[str, tuple[str, ...]] = {"idle": (), "theirs": (THEIRS,), "own": (FIRST,)}
    permitted = (FIRST, SECOND, THEIRS)
    assert not ended(world, permitted, **carried)
    world.change("theirs", state=State.ENDED)
    assert ended(world, permitted, **carried).keys() == {"idle", "theirs"}
    assert "10.0.0.8" not in world.bastion_keys(fingerprint(world)).decode()


def test_the_log_names_whose_server_a_shared_key_was_used_for(
    world: World, shared: Reservation, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gpudev.audit")
    mine = fingerprint(world)
    world.bastion_keys(mine)
    world.bastion.record([event("opened", fingerprint=mine, address="192.0.2.1", port=5)])
    for asked in (THEIRS, FIRST):
        world.bastion.record([event("asked", target=asked)])
    said = [record.fields for record in caplog.records]  # type: ignore[attr-defined]
    assert [one["subject"] for one in said[1:]] == [OTHER.subject, OWNER.subject]
    assert OTHER.login in world.bastion.lines_of(shared.id)


def test_a_connection_that_is_used_often_is_told_once(world: World) -> None:
    world.bastion_keys(fingerprint(world))
    world.bastion.record([event("opened", fingerprint=fingerprint(world), address="192.0.2.1", port=5)])
    world.bastion.record([event("asked", target=FIRST)] * 50)
    world.bastion.record([event("closed")])
    assert len(world.bastion.lines_of("first").splitlines()) == 2


def test_an_invented_target_keeps_no_connection(world: World) -> None:
    """Whoever lost one of two servers could else keep the way to it by asking for a third that never was."""
    assert not ended(world, both=(FIRST, SECOND))
    world.change("first", state=State.ENDED)
    assert ended(world, x=(FIRST, "nowhere:1"), y=("nowhere:1", SECOND)).keys() == {"x"}


def test_a_restarted_service_ends_nothing_while_it_knows_no_server(world: World) -> None:
    world.live.sights.clear()
    assert world.bastion_keys(fingerprint(world)) == b""
    assert not ended(world, used=(FIRST,), idle=())


def test_targets_are_written_as_ssh_asks_for_them() -> None:
    assert target("10.0.0.7", 22) == "10.0.0.7:22"
    assert target("fd00::7", 22) == "[fd00::7]:22"
