"""Random (actor, action, reservation) triples over the real API agree with the table of who may do what."""

from __future__ import annotations

import base64
import random
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from gpudev import wire
from gpudev_hub.core.events import AccessLost, PersonSeen
from gpudev_hub.core.model import Owner, Reservation, State
from gpudev_hub.core.permissions import MAY, WHEN, Action, Role, may, roles
from gpudev_hub.core.request import Ask
from gpudev_hub.ssh.access import Access
from gpudev_hub.ssh.keys import PublicKey, RefusedKey, fingerprint
from web_site import TOKENS, Running

API = wire.API
PEOPLE = {name: Owner(f"local:{name}", name, name) for name in ("alice", "bob", "carol", "olga")}
TOKEN_OF = {name: f"{name}s" for name in PEOPLE} | {"olga": "operators"}
SERVER = "its server"
STEPS = 300


class Directory:
    """One key for each person. Only its fingerprint matters."""

    async def keys(self, owner: Owner) -> list[PublicKey]:
        return [key_of(owner.subject)]

    def known(self, owner: Owner) -> bool:
        return True

    async def rejected(self, owner: Owner) -> list[RefusedKey]:
        return []

    async def identity_file(self, owner: Owner) -> Path | None:
        return None


def key_of(subject: str) -> PublicKey:
    return PublicKey("ssh-ed25519", base64.b64encode(subject.encode()).decode())


class World:
    """Reservations in every state, made when they are needed."""

    def __init__(self, run: Running, client: httpx.AsyncClient, seed: int) -> None:
        self.run = run
        self.client = client
        self.random = random.Random(seed)
        self.made: dict[State, str] = {}
        self.revoked = set(PEOPLE)
        """People who have no access now; at the start, nobody was seen yet."""
        self.access = Access(
            run.service.view,
            Directory(),
            known_hosts="",
            user="dev",
            now=run.service.clock.now,
            on_machine=lambda at: at,
            allowed=lambda subject: run.service.access.people.verdict(subject).allowed,
        )

    async def let_in(self) -> None:
        """Everybody may use the service."""
        now = self.run.service.clock.now()
        for name in sorted(self.revoked):
            seen = PersonSeen(PEOPLE[name].subject, name, name, (), operator=False, confirmed_at=now)
            await self.run.service._writer.ask(seen)
        self.revoked.clear()

    async def revoke(self, name: str) -> None:
        """Somebody may not any more."""
        await self.run.service._writer.ask(AccessLost(PEOPLE[name].subject, "left the team", "service"))
        self.revoked.add(name)

    async def find(self, id: str) -> Reservation:
        record = await self.run.service.reads.find(id)
        assert record is not None
        return record

    async def any(self, state: State) -> Reservation:
        """A reservation in this state, of anybody, with any guests."""
        record = await self.run.service.reads.find(self.made.get(state, "none"))
        again = state is not State.STOPPING and self.random.random() < 0.3
        if record is None or record.state is not state or again:
            if record is not None:
                await self.forget(record)
            record = await self.make(state)
            self.made[state] = record.id
        return record

    async def forget(self, record: Reservation) -> None:
        await self.run.service.end(record.id, record.owner.subject)
        await self.run.gone(record.id)

    async def make(self, state: State) -> Reservation:
        service, people = self.run.service, list(PEOPLE.values())
        owner = self.random.choice(people)
        # Two whole nodes wait for the one that is taken for a day; what is short starts before.
        size = Ask(gpus=8, nodes=2, hours=1) if state is State.QUEUED else Ask(gpus=1, hours=0.5)
        record = await service.submit(owner, size)
        for guest in self.random.sample(people, self.random.randrange(len(people))):
            if guest is not owner:
                await service.share(record.id, owner.subject, guest)
        if state in (State.READY, State.STOPPING, State.ENDED):
            await self.run.make_ready(record.id)
        elif state is State.STARTING:
            await self.run.until(record.id, lambda record: record.state is State.STARTING)
        if state is State.STOPPING:
            self.run.cluster.kept.add(record.id)
            await service.end(record.id, owner.subject)
        elif state is State.ENDED:
            await service.end(record.id, owner.subject)
            await self.run.gone(record.id)
        found = await service.reads.find(record.id)
        assert found is not None
        assert found.state is state, (found.state, state)
        return found

    async def status(self, actor: str, action: Action, record: Reservation) -> int:
        """What the API answers."""
        if actor == SERVER:
            token, at = TOKENS.make(record.id, record.attempt), f"{API}/servers/{record.id}"
        else:
            token, at = TOKEN_OF[actor], f"{API}/reservations/{record.id}"
        return (await self._ask(token, at, action, record)).status_code

    async def _ask(self, token: str, at: str, action: Action, record: Reservation) -> httpx.Response:
        sent: dict[str, Any] = {}
        match action:
            case Action.READ_LOGS:
                method, at = "GET", f"{at}/{self.random.choice(('logs', 'history'))}"
            case Action.EXTEND:
                method, at, sent = "POST", f"{at}/extend", {"json": {"hours": 0.02}}
            case Action.END:
                method = "DELETE"
            case Action.RESUME:
                method, at = "POST", f"{at}/resume"
            case Action.SHARE:
                method, at = "PUT", f"{at}/guests/dave"
            case Action.UNSHARE:
                login = self.random.choice([guest.login for guest in record.guests] or ["dave"])
                method, at = "DELETE", f"{at}/guests/{login}"
            case _:
                method = "GET"
        return await self.client.request(method, at, headers={"Authorization": f"token {token}"}, **sent)

    async def enters(self, actor: str, record: Reservation) -> tuple[bool, bool]:
        """Whether the actor's key opens the server, and whether the API shows them the way in."""
        mark = key_of(f"local:{actor}")
        lines = await self.access.authorized_keys(record.id, fingerprint(base64.b64decode(mark.blob)))
        shown = (
            await self._ask(TOKEN_OF[actor], f"{API}/reservations/{record.id}", Action.SEE, record)
        ).json()
        return bool(lines), shown.get("url") is not None


def expected(held: frozenset[Role], action: Action, record: Reservation, *, owner_revoked: bool) -> int:
    if not may(held, action):
        return 403
    if record.state not in WHEN[action]:
        return 409
    if owner_revoked and action in (Action.EXTEND, Action.RESUME):
        return 403
    return 200


@pytest.mark.parametrize("seed", range(2))
async def test_random_triples_agree_with_the_table(run: Running, seed: int) -> None:
    for name, token in TOKEN_OF.items():
        if name != "olga":
            run.hub.person(token, name)
    # The Hub lists no token, so that each outlives a revocation, and the service must refuse it.
    run.hub.models.clear()
    async with run.client() as client:
        await run.service.submit(PEOPLE["olga"], Ask(gpus=8, hours=20))
        world, seen = World(run, client, seed), Counter[tuple[str, str, str]]()
        refused = set[tuple[str, str]]()
        for _ in range(STEPS):
            await world.let_in()
            record = await world.any(world.random.choice(list(State)))
            actor, action = world.random.choice([*PEOPLE, SERVER]), world.random.choice(list(Action))
            for name in (actor, record.owner.login):
                if name != SERVER and world.random.random() < 0.2:
                    await world.revoke(name)
            # A revocation ends what waits.
            record = await world.find(record.id)
            owner_revoked = record.owner.login in world.revoked
            if actor == SERVER:
                if action not in MAY[Role.SERVER] or record.state is State.QUEUED:
                    continue  # it has no such address; a request that waits has no server
                held = frozenset({Role.SERVER})
            else:
                subject, allowed = PEOPLE[actor].subject, actor not in world.revoked
                held = roles(record, subject, operator=actor == "olga", allowed=allowed)
            about = (
                actor,
                sorted(held),
                action,
                record.state,
                record.owner.login,
                record.guests,
                world.revoked,
            )
            if action is Action.ENTER:
                enters = may(held, action) and record.state in WHEN[action]
                assert await world.enters(actor, record) == (enters, enters), about
            elif actor == SERVER and record.state is State.ENDED:
                assert await world.status(actor, action, record) == 403, about
            else:
                wanted = expected(held, action, record, owner_revoked=owner_revoked)
                assert await world.status(actor, action, record) == wanted, about
            seen.update((role, action, record.state) for role in held)
            if actor in world.revoked:
                refused.add((actor, action))
        assert len(seen) > 100, "most cells of the table"
        assert {action for _, action in refused} == set(Action)
        assert {actor for actor, _ in refused} == set(PEOPLE), "operators, too"
