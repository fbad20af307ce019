"""A real reservation service in a thread, for clients that block; every request goes through a proxy."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from fault_proxy import Answer, FaultProxy
from gpudev import wire
from gpudev.api import Api
from gpudev_hub.core.model import Node, Owner, State
from gpudev_hub.core.policy import Allowances, Policy, PoolSettings
from gpudev_hub.core.request import Ask
from gpudev_hub.service.readiness import Report
from web_site import PREFIX, Running, running

T = TypeVar("T")
OPERATE = ("custom:gpudev:reserve", "custom:gpudev:operate")
POLICY = Policy(
    pools=(PoolSettings("h100", gpus_per_node=8, images=("default",), label="NVIDIA H100", simulated=True),),
    allowances=Allowances(running_gpus=1000, queued_requests=1000),
)
NO_ACCESS = wire.SshAccess(
    known_hosts="@cert-authority * ssh-ed25519 AAAA", hosts=[], identity_file=None, accepted_keys=[]
)


def _owner(name: str) -> Owner:
    return Owner(f"local:{name}", name, name)


class LiveService(FaultProxy):
    """Alice's way to the service; ``token`` is hers, ``operators`` that of an operator."""

    user = "alice"
    token = "alices-token"
    operators = "olgas-token"

    run: Running

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._changes: dict[str, dict[str, Any]] = {}
        self.edit = self._edit
        self.agents = True
        """Whether servers come up by themselves."""
        self._in_the_way: list[str] = []

    def lead_to(self, run: Running) -> None:
        """Pass requests on to this service and its Hub."""
        self.run = run
        self.services = {PREFIX: urlsplit(run.url).netloc, "/hub/": urlsplit(run.hub.api).netloc}
        run.hub.person(self.token, self.user)
        run.hub.person(self.operators, "olga", scopes=OPERATE)

    def call(self, what: Coroutine[Any, Any, T]) -> T:
        """Do it where the service runs."""
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(20)

    # What happens at the service

    def reserve_as(self, name: str, gpus: int = 8, nodes: int | None = None, hours: float = 4) -> str:
        """The id of a new reservation of another user's."""
        ask = Ask(gpus=gpus, nodes=nodes, hours=hours)
        return self.call(self.run.service.submit(_owner(name), ask)).id

    def fill(self) -> None:
        """Bob takes all GPUs: what is reserved from now on waits."""
        self._in_the_way.append(self.reserve_as("bob", 8, nodes=2))
        self.call(self.run.until(self._in_the_way[0], lambda record: record.state is State.READY))

    def make_way(self) -> None:
        """Bob releases what he took."""
        for other in self._in_the_way:
            self.call(self.run.service.end(other, "local:bob", None))
            self.call(self.run.gone(other))
        self._in_the_way.clear()

    def make_ready(self, id: str) -> wire.Reservation:
        """Give way to a reservation that waits, and return it once its server answers."""
        self.make_way()
        self.call(self.run.until(id, lambda record: record.state is State.READY))
        return self.reservations[id]

    async def report(self) -> None:
        """The agents of all servers, which find them well."""
        service = self.run.service
        while True:
            for record in [*service.view.reservations.values()] if self.agents else ():
                if record.state is State.STARTING and record.attempt:
                    for rank in range(len(record.allocation)):
                        well = Report(True if rank == 0 else None, True, "")
                        service.readiness.report(record.id, record.attempt, rank, well)
            await asyncio.sleep(0.01)

    # What it says

    @property
    def reservations(self) -> dict[str, wire.Reservation]:
        """All of Alice's reservations, live and ended, as she sees them."""
        api = Api(self.run.url.removesuffix(PREFIX), self.token)
        try:
            records = [*api.reservations(ended=True), *api.reservations()]
        finally:
            api.close()
        document = msgspec.to_builtins(wire.ReservationList(reservations=records))
        self._edit(document)
        found = {r.id: r for r in msgspec.convert(document, wire.ReservationList).reservations}
        return dict(sorted(found.items()))

    @property
    def only(self) -> wire.Reservation:
        (record,) = self.reservations.values()
        return record

    def ended(self, id: str) -> wire.Reservation:
        """Alice's reservation, once it has ended."""
        self.call(self.run.gone(id))
        return self.reservations[id]

    def change(self, id: str, **values: Any) -> wire.Reservation:
        """Say this of a reservation from now on."""
        if "reason" in values:
            values.setdefault("reason_data", None)
        self._changes.setdefault(id, {}).update(msgspec.to_builtins(values))
        return self.reservations[id]

    def say(self, method: str, path: str, content: object, status: int = 200) -> None:
        """Answer this to all requests of the route."""
        self.instead[method, path] = lambda _: Answer(content, status)

    def refuse(self, status: int, code: str, message: str, hint: str = "") -> None:
        """Refuse every request."""
        error = wire.ErrorBody(error=wire.Error(code=code, message=message, hint=hint))
        for method in ("GET", "POST", "PUT", "DELETE"):
            self.say(method, "", error, status)

    def _edit(self, document: Any) -> None:
        if isinstance(document, dict):
            for record in document.get("reservations", [document]):
                record.update(self._changes.get(record.get("id"), {}))


@contextmanager
def live_service() -> Iterator[LiveService]:
    """The service and its proxy, until the end of the block."""
    started: list[LiveService] = []
    ready, over = threading.Event(), asyncio.Event()

    async def serve() -> None:
        nodes = [Node(f"node-{n}", "h100", 8, "here") for n in (1, 2)]
        service = LiveService()
        service.start()
        ids = (f"k{n}" for n in itertools.count(1))
        async with running(
            policy=POLICY, nodes=nodes, ids=lambda: next(ids), public_url=f"{service.url}/"
        ) as run:
            service.lead_to(run)
            started.append(service)
            agents = asyncio.ensure_future(service.report())
            ready.set()
            await over.wait()
            agents.cancel()
            service.stop()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    while not ready.wait(0.1):
        assert thread.is_alive(), "the service did not start"
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(20)
        loop.close()
