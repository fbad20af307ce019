"""What the service answers a bastion: the caller's own live servers, and nothing when in doubt."""

from __future__ import annotations

import asyncio
import base64
import logging
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gpudev_hub.core.model import Owner
from gpudev_hub.ssh.bastion import Bastion
from gpudev_hub.ssh.keys import PublicKey, RefusedKey, parse_line
from web_site import Running

SECRET = "the-bastions-secret"


def key(letter: bytes) -> PublicKey:
    kind = b"ssh-ed25519"
    blob = struct.pack(">I", len(kind)) + kind + struct.pack(">I", 32) + letter * 32
    return parse_line(f"ssh-ed25519 {base64.b64encode(blob).decode()}")


KEYS = {"alice": key(b"a"), "bob": key(b"b"), "nobody": key(b"n")}


class Directory:
    """The keys of people, some of them unreadable."""

    def __init__(self) -> None:
        self.lists: dict[str, list[PublicKey]] = {f"local:{n}": [KEYS[n]] for n in ("alice", "bob")}
        self.broken: set[str] = set()
        self.unknown: set[str] = set()
        self.asked = 0

    async def keys(self, owner: Owner) -> list[PublicKey]:
        self.asked += 1
        if owner.subject in self.broken:
            raise OSError("unreadable")
        return [] if owner.subject in self.unknown else self.lists.get(owner.subject, [])

    def known(self, owner: Owner) -> bool:
        return owner.subject not in self.unknown

    async def identity_file(self, owner: Owner) -> None:
        return None

    async def rejected(self, owner: Owner) -> list[RefusedKey]:
        return []


class Door:
    """A bastion in one test."""

    def __init__(self, run: Running) -> None:
        self.run = run
        self.directory = Directory()
        self.refused: dict[str, str] = {}
        self.ahead = 0
        self.bastion = Bastion(
            run.service.view,
            self.directory,
            now=lambda: run.service.clock.now() + self.ahead,
            on_machine=lambda at: at,
            refusal=lambda owner: self.refused.get(owner.subject, ""),
            let_in=run.service.cuts.let_in,
        )
        run.site.bastion, run.site.bastion_secret = self.bastion, SECRET

    async def keys(self, name: str) -> str:
        query = {"fingerprint": KEYS[name].fingerprint}
        async with self.run.gate(SECRET) as gate:
            answer = await gate.get("bastion/keys", params=query)
        assert answer.status_code == 200, answer.text
        return answer.text

    async def cuts(self, *connections: dict[str, Any], wait: float = 0) -> list[str]:
        body = {"instance": "b", "connections": list(connections), "wait": wait}
        async with self.run.gate(SECRET) as gate:
            answer = await gate.post("bastion/cuts", json=body)
        assert answer.status_code == 200, answer.text
        return answer.text.splitlines()

    async def tell(self, **event: Any) -> None:
        body = {"events": [{"at": 1_800_000_000, "instance": "b", "connection": "1-1", **event}]}
        async with self.run.gate(SECRET) as gate:
            answer = await gate.post("bastion/sessions", json=body)
        assert answer.status_code == 204, answer.text


def carried(name: str, *targets: str, id: str = "1-1") -> dict[str, Any]:
    return {"id": id, "fingerprint": KEYS[name].fingerprint, "targets": list(targets)}


@pytest.fixture
def door(run: Running) -> Door:
    return Door(run)


async def ready(run: Running, token: str, **fields: Any) -> str:
    async with run.client(token) as client:
        made = await client.post("api/v1/reservations", json={"gpus": 2, "hours": 1, **fields})
    assert made.status_code == 201, made.text
    found: str = made.json()["id"]
    await run.make_ready(found)
    return found


def target_of(run: Running, made: str, rank: int = 0) -> str:
    sight = run.service.view.sight(made)
    assert sight is not None
    host, port = sight.sshd[rank]
    return f"{host}:{port}"


async def test_only_the_bastions_secret_opens_its_routes(run: Running, door: Door) -> None:
    query = {"fingerprint": KEYS["alice"].fingerprint}
    for secret in (None, "the-gates-secret", SECRET + "x"):
        async with run.gate(secret) as gate:
            assert (await gate.get("bastion/keys", params=query)).status_code == 401
    async with run.gate() as gate:
        assert (await gate.get("bastion/keys", params=query)).status_code == 401, "the Hub's is not enough"
    async with run.gate(SECRET) as gate:
        answer = await gate.post("gate/mint", json={"subject": "local:alice"})
        assert answer.status_code == 401, "the bastion's does not open the Hub's routes"
    run.site.bastion_secret = ""
    async with run.gate(SECRET) as gate:
        assert (await gate.get("bastion/keys", params=query)).status_code == 401


async def test_without_a_bastion_nothing_is_answered(run: Running) -> None:
    run.site.bastion_secret = SECRET
    query = {"fingerprint": KEYS["alice"].fingerprint}
    async with run.gate(SECRET) as gate:
        assert (await gate.get("bastion/keys", params=query)).status_code == 404


async def test_a_key_opens_its_owners_servers_and_no_others(run: Running, door: Door) -> None:
    assert await door.keys("alice") == "", "no server yet"
    made = await ready(run, "alices", nodes=2, gpus=8)
    line = await door.keys("alice")
    for rank in (0, 1):
        assert f'permitopen="{target_of(run, made, rank)}"' in line
    assert line.startswith("restrict,port-forwarding,permitopen=")
    assert ',expiry-time="' in line
    assert line.endswith(f" {KEYS['alice'].line}\n")
    assert line.count("\n") == 1
    assert await door.keys("bob") == ""
    assert await door.keys("nobody") == ""


async def test_another_users_server_is_not_on_the_line(run: Running, door: Door) -> None:
    mine, theirs = await ready(run, "alices", gpus=1), await ready(run, "bobs", gpus=1, nodes=1)
    line = await door.keys("alice")
    assert line.count("permitopen=") == 1
    assert target_of(run, mine) in line
    assert mine != theirs


async def test_a_key_added_or_removed_a_moment_ago(run: Running, door: Door) -> None:
    made = await ready(run, "alices")
    assert await door.keys("alice")
    door.directory.lists["local:alice"] = []
    assert await door.keys("alice") == "", "removed: out at once"
    door.ahead += 3_000
    assert (await door.cuts(carried("alice", target_of(run, made))))[0].startswith("1-1 ")
    door.directory.lists["local:alice"] = [KEYS["nobody"]]
    door.ahead += 3_000
    assert await door.keys("nobody")


async def test_wrong_keys_read_the_directory_once_a_second(run: Running, door: Door) -> None:
    await ready(run, "alices")
    await asyncio.gather(*(door.keys("nobody") for _ in range(20)))
    assert door.directory.asked <= 2
    assert await door.keys("alice"), "meanwhile the right ones work"


async def test_a_person_without_access(run: Running, door: Door) -> None:
    made = await ready(run, "alices")
    assert await door.keys("alice")
    assert await door.cuts(carried("alice")) == []
    door.refused["local:alice"] = "alice left the team"
    assert await door.keys("alice") == ""
    assert await door.cuts(carried("alice", target_of(run, made))) == ["1-1 alice left the team"]


async def test_a_reason_can_be_repeated_in_json(run: Running, door: Door) -> None:
    await ready(run, "alices")
    door.refused["local:alice"] = 'left "the\nteam" \\ ' + "x" * 300
    (line,) = await door.cuts(carried("alice"))
    reason = line.partition(" ")[2]
    assert not set('"\\') & set(reason)
    await door.tell(event="cut", reason=reason)


async def test_a_cut_wakes_the_bastion(run: Running, door: Door) -> None:
    await ready(run, "alices")
    waiting = asyncio.create_task(door.cuts(carried("alice"), wait=8))
    await asyncio.sleep(0)
    door.refused["local:alice"] = "alice left the team"
    begun = asyncio.get_running_loop().time()
    while not waiting.done():
        run.service.cuts.add(1, "local:alice", None, 0)
        await asyncio.sleep(0.02)
    assert await waiting == ["1-1 alice left the team"]
    assert asyncio.get_running_loop().time() - begun < 7


async def test_unreadable_keys_end_nothing_and_hinder_nobody_else(run: Running, door: Door) -> None:
    await ready(run, "alices", gpus=1)
    await ready(run, "bobs", gpus=1)
    door.directory.broken.add("local:alice")
    assert await door.keys("bob")
    assert await door.keys("alice") == ""
    door.ahead += 3_000
    assert await door.cuts(carried("alice")) == []


async def test_keys_that_nobody_knows_yet_end_nothing(run: Running, door: Door) -> None:
    """A service that starts while GitHub is away knows no keys: that ends no connection."""
    await ready(run, "alices", gpus=1)
    door.directory.unknown.add("local:alice")
    assert await door.keys("alice") == ""
    assert await door.cuts(carried("alice")) == []
    door.directory.unknown.clear()
    door.directory.lists["local:alice"] = []
    door.ahead += 3_000
    assert len(await door.cuts(carried("alice"))) == 1


async def test_who_was_let_in_is_known_to_the_cuts(run: Running, door: Door) -> None:
    await ready(run, "alices")
    await door.keys("alice")
    run.service.cuts.add(10**6, "local:alice", None, 0)
    assert KEYS["alice"].fingerprint in run.service.cuts.after(0).cuts[-1].fingerprints


@pytest.fixture
def audit(caplog: pytest.LogCaptureFixture) -> Iterator[list[dict[str, Any]]]:
    entries: list[dict[str, Any]] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            entries.append(record.__dict__["fields"])

    handler, logger = Handler(), logging.getLogger("gpudev.audit")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield entries
    logger.removeHandler(handler)


async def test_the_audit_log_names_key_person_reservation_and_reason(
    run: Running, door: Door, audit: list[dict[str, Any]]
) -> None:
    made = await ready(run, "alices")
    target = target_of(run, made)
    await door.keys("alice")
    mine = KEYS["alice"].fingerprint
    await door.tell(event="opened", fingerprint=mine, address="192.0.2.7", port=5)
    await door.tell(event="asked", target=target)
    await door.tell(event="asked", target="169.254.169.254:80")
    await door.tell(event="denied", connection="", address="192.0.2.7", port=5, target="169.254.169.254:80")
    await door.tell(event="closed")
    await door.keys("nobody")
    strange = KEYS["nobody"].fingerprint
    await door.tell(event="refused", connection="", fingerprint=strange, address="192.0.2.8", port=6)
    opened, used, _, denied, closed, refused = audit
    assert (opened["subject"], opened["fingerprint"]) == ("local:alice", mine)
    assert (used["reservation"], used["address"], used["connection"]) == (made, "192.0.2.7", "b-1-1")
    assert (denied["subject"], denied["target"]) == ("local:alice", "169.254.169.254:80")
    assert closed["event"] == "closed"
    assert (refused["reason"], refused["address"]) == ("no running server's owner has this key", "192.0.2.8")
    assert "subject" not in refused
    async with run.client("alices") as alice:
        logs = (await alice.get(f"api/v1/reservations/{made}/logs")).json()["logs"]
    assert f"alice connected from 192.0.2.7 with the key {mine}" in logs["bastion"]
    assert "closed" in logs["bastion"]
    async with run.client("bobs") as bob:
        answer: httpx.Response = await bob.get(f"api/v1/reservations/{made}/logs")
        assert answer.status_code in (403, 404)


@pytest.mark.parametrize(
    "event",
    [
        {"event": "other"},
        {"event": "opened", "fingerprint": "SHA256:x"},
        {"event": "opened", "connection": "1-1\nforged"},
        {"event": "asked", "target": "x" * 301},
    ],
)
async def test_events_that_are_none(run: Running, door: Door, event: dict[str, Any]) -> None:
    body = {"events": [{"at": 1, "instance": "b", **event}]}
    async with run.gate(SECRET) as gate:
        assert (await gate.post("bastion/sessions", json=body)).status_code == 400
