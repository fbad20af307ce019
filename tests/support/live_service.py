"""A real reservation service in a thread, for clients that block; every request goes through a proxy."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
import pytest

from fault_proxy import Answer, FaultProxy
from gpudev import wire
from gpudev_hub.clock import Clock
from gpudev_hub.core.model import Node, Owner, Reservation, State
from gpudev_hub.core.policy import Allowances, Policy, PoolSettings
from gpudev_hub.core.request import Ask
from gpudev_hub.service.readiness import Report
from gpudev_hub.ssh.access import Access
from web_site import PREFIX, Running, running

T = TypeVar("T")
NOW = 1_893_495_600
"""1 January 2030, 11:00 UTC: the service's clock stands still, so that each time in a text is known."""
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
    """The service as alice reaches it. ``token`` is hers, ``operators`` is that of an operator."""

    user = "alice"
    token = "alices-token"
    operators = "olgas-token"

    run: Running

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._changes: dict[str, dict[str, Any]] = {}
        self.edit = self._edit
        self.now = lambda: NOW
        self.agents = True
        """Whether servers become ready without a call of the test."""
        self._in_the_way: list[str] = []

    def lead_to(self, run: Running) -> None:
        """Pass requests on to this service and its Hub."""
        self.run = run
        service = run.service
        run.site.access = Access(
            service.view,
            run.directory,
            known_hosts=NO_ACCESS.known_hosts,
            user="dev",
            now=service.clock.now,
            on_machine=service.clock.on_machine,
            allowed=lambda subject: service.access.people.verdict(subject).allowed,
        )
        self.services = {PREFIX: urlsplit(run.url).netloc, "/hub/": urlsplit(run.hub.api).netloc}
        run.hub.person(self.token, self.user)
        run.hub.person(self.operators, "olga", scopes=OPERATE)

    def configure(self, monkeypatch: pytest.MonkeyPatch, token: str | None = None) -> None:
        """Set the environment for commands that use this service, as alice or with this token."""
        monkeypatch.setenv("GPUDEV_URL", self.url)
        monkeypatch.setenv("GPUDEV_TOKEN", token or self.token)

    def call(self, what: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the service's loop; return its result."""
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(20)

    # What happens at the service

    def reserve_as(self, user: str, gpus: int = 8, **wanted: Any) -> str:
        """Reserve as another user; return the id once it waits or is ready. ``wanted``: fields of ``Ask``."""
        ask = Ask(gpus=gpus, nodes=wanted.pop("nodes", None), hours=wanted.pop("hours", 4))
        made = self.call(self.run.service.submit(_owner(user), replace(ask, **wanted)))
        return self.call(self.run.until(made.id, self._settled)).id

    def _settled(self, record: Reservation) -> bool:
        """Return whether a reservation stays as it is while the clock stands still."""
        waits = record.place is None or record.place.start > self.run.service.clock.now()
        return record.state is State.READY or (record.state is State.QUEUED and waits)

    def fill(self) -> None:
        """Reserve all GPUs as bob, so that later requests wait."""
        self._in_the_way.append(self.reserve_as("bob", 8, nodes=2))
        assert self.run.service.view.reservations[self._in_the_way[0]].state is State.READY

    def make_way(self) -> None:
        """Release the GPUs that bob reserved."""
        for other in self._in_the_way:
            self.call(self.run.service.end(other, "local:bob", None))
            self.call(self.run.gone(other))
        self._in_the_way.clear()

    def make_ready(self, id: str) -> wire.Reservation:
        """Make room for a waiting reservation. The next state that clients see is ready."""
        with self.hidden():
            self.make_way()
            self.call(self.run.until(id, lambda record: record.state is State.READY))
        return self.reservations[id]

    async def report(self) -> None:
        """Report, like the agents of all servers, that all parts answer."""
        service = self.run.service
        while True:
            for record in [*service.view.reservations.values()] if self.agents else ():
                if record.state is State.STARTING and record.attempt:
                    for rank in range(len(record.allocation)):
                        well = Report(True if rank == 0 else None, True, "")
                        service.readiness.report(record.id, record.attempt, rank, well)
            await asyncio.sleep(0.01)

    def let_go(self, id: str) -> None:
        """Let the first server of a reservation end that ``cluster.kept`` kept."""
        self.run.cluster.kept.remove(id)
        self.call(self.run.cluster.remove(id, 1))

    # What it says

    def get(self, path: str) -> Any:
        """Return the service's own answer to alice."""
        headers = [("Host", "localhost"), ("Authorization", f"token {self.token}")]
        _, _, content = self._forward("GET", f"{PREFIX}{wire.API}/{path}", headers, b"")
        return json.loads(content)

    @property
    def access(self) -> wire.SshAccess:
        """Return what alice's SSH client needs."""
        return msgspec.convert(self.get("ssh"), wire.SshAccess)

    @property
    def reservations(self) -> dict[str, wire.Reservation]:
        """Return all of alice's reservations, live and ended, as the API shows them."""
        found: list[Any] = []
        for path in ("reservations", "reservations?ended=true"):
            page = self.get(path)
            assert page["next"] is None
            found += page["reservations"]
        self._edit({"reservations": found})
        records = [msgspec.convert(record, wire.Reservation) for record in found]
        return {record.id: record for record in sorted(records, key=lambda record: record.id)}

    @property
    def only(self) -> wire.Reservation:
        (record,) = self.reservations.values()
        return record

    def ended(self, id: str) -> wire.Reservation:
        """Wait until alice's reservation has ended, and return it."""
        self.call(self.run.gone(id))
        return self.reservations[id]

    def change(self, id: str, **values: Any) -> wire.Reservation:
        """Change fields of a reservation in all later answers."""
        if "reason" in values:
            values.setdefault("reason_data", None)
        self._changes.setdefault(id, {}).update(msgspec.to_builtins(values))
        return self.reservations[id]

    def say(self, method: str, path: str, content: object, status: int = 200) -> None:
        """Give this answer to all requests of the route."""
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
def live_service(**options: Any) -> Iterator[LiveService]:
    """Run the service and its proxy until the end of the block. ``options`` are those of ``running``."""
    started: list[LiveService] = []
    ready, over = threading.Event(), asyncio.Event()
    options.setdefault("policy", POLICY)

    async def serve() -> None:
        nodes = [Node(f"node-{n}", "h100", 8, "here") for n in (1, 2)]
        clock = Clock(wall=lambda: NOW, monotonic=lambda: 0)
        service = LiveService()
        service.start()
        ids = (f"k{n}" for n in itertools.count(1))
        async with running(
            nodes=nodes, ids=lambda: next(ids), clock=clock, public_url=f"{service.url}/", **options
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
