"""An engine and a Hub in memory: servers that start at once and are gone at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection

from gpudev_hub.core.gate import Launch, SshMaterial
from gpudev_hub.core.model import Claim, Node, Presence, Reservation
from gpudev_hub.core.ports import ServerSight


class Machine:
    """``Cluster``, ``Hub`` and ``LaunchMaker`` in one."""

    def __init__(self, nodes: list[Node]) -> None:
        self.there = nodes
        """The nodes, as they are to be seen."""
        self.running: dict[tuple[str, int], ServerSight] = {}
        self.live: Callable[[str], Reservation | None] = lambda _: None
        self.revoked: list[str] = []
        """Users of the Hub whose tokens were deleted."""
        self.lasting = False
        """Whether servers that are to end stay."""
        self.users = {"alice", "bob", "olga", "carol", "dave"}
        self.shares: dict[tuple[str, str], set[str]] = {}
        """Guests by (owner, server)."""
        self.kept: set[str] = set()
        """Reservations whose servers stay, whoever ends them."""
        self._seen: asyncio.Queue[ServerSight] = asyncio.Queue()

    # Cluster

    async def nodes(self) -> list[Node]:
        return list(self.there)

    async def servers(self) -> list[ServerSight]:
        return list(self.running.values())

    async def look(self, claim: Claim) -> ServerSight:
        return self.running.get(claim.key) or ServerSight(*claim.key, presence=Presence.ABSENT)

    async def remove(self, id: str, attempt: int) -> None:
        if not self.lasting and id not in self.kept and self.running.pop((id, attempt), None) is not None:
            self._seen.put_nowait(ServerSight(id, attempt, Presence.ABSENT))

    async def forget_ended(self, held: Collection[tuple[str, int]]) -> None:
        """There is nothing left of anything."""

    async def watch(self) -> AsyncIterator[ServerSight]:
        while True:
            yield await self._seen.get()

    def hint(self, id: str, attempt: int) -> None:
        pass

    async def logs(self, id: str, attempt: int, lines: int) -> dict[str, str]:
        return {"jupyter": "serving\n", "sshd": "listening\n"}

    # Hub

    async def revoke_tokens(self, hub_user: str, keep: Collection[str]) -> None:
        self.revoked.append(hub_user)

    async def start(self, hub_user: str, launch_id: str) -> bool:
        record = self.live(launch_id)
        if record is not None and record.attempt:
            sight = ServerSight(
                record.id,
                record.attempt,
                Presence.PRESENT,
                jupyter=("127.0.0.1", 1),
                sshd={rank: ("127.0.0.1", 2 + rank) for rank in range(len(record.allocation))},
            )
            self.running[record.id, record.attempt] = sight
            self._seen.put_nowait(sight)
        return True

    async def stop(self, hub_user: str, server: str, *, forget: bool) -> bool:
        for key in list(self.running):
            if key[0] == server:
                await self.remove(*key)
        return True

    async def known_servers(self) -> set[str]:
        return {name for name, _ in self.running}

    async def knows(self, hub_user: str) -> bool:
        return hub_user in self.users

    async def guests(self, hub_user: str, server: str) -> frozenset[str] | None:
        return frozenset(self.shares.get((hub_user, server), ()))

    async def share(self, hub_user: str, server: str, guest: str) -> None:
        self.shares.setdefault((hub_user, server), set()).add(guest)

    async def unshare(self, hub_user: str, server: str, guest: str) -> None:
        self.shares[hub_user, server].discard(guest)

    # LaunchMaker

    async def make(self, reservation: Reservation) -> Launch:
        assert reservation.ends_at is not None
        return Launch(
            id=reservation.id,
            attempt=reservation.attempt,
            name=reservation.request.name,
            subject=reservation.owner.subject,
            hub_user=reservation.owner.hub_user,
            gpu_type=reservation.request.pool,
            gpus=reservation.request.shape.gpus,
            allocation=reservation.allocation,
            simulated=True,
            image=reservation.request.image,
            ends_at=reservation.ends_at,
            token="t",
            service_url="http://127.0.0.1/services/gpudev/",
            known_hosts="@cert-authority * ssh-ed25519 AAAA",
            ssh=(SshMaterial("private", "certificate"),),
        )


async def answers(host: str, port: int, alias: str) -> bool:
    """The probe: every sshd proves who it is."""
    return True
