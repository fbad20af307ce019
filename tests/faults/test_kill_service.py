"""``kill -9`` of the service under 16 submitters, at random instants and between any two of its steps."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from gpudev import wire
from gpudev.api import Api
from gpudev_hub.core.model import HOUR, SECOND, Claim, State
from gpudev_hub.failpoints import AFTER_COMMIT, BEFORE_ANSWER, BEFORE_COMMIT, BEFORE_EFFECT, PLACES
from hub_users import wait_for
from ledger import Ledger, read_ledger
from service_process import ServiceProcess, SmallHub
from stack import Stack

pytestmark = pytest.mark.integration

SUBMITTERS = 16
POLICY = {"limits": {"queued_requests": 1_000_000}, "startup_seconds": 3600}


class Wire(httpx.HTTPTransport):
    """The network, counting requests that got no answer."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        try:
            answer = super().handle_request(request)
            answer.read()
        except (httpx.ReadError, httpx.RemoteProtocolError):
            self.lost += request.method == "POST"
            raise
        return answer


@dataclass
class Submitter:
    """One user who asks, and cancels some of it again, with a log of his own of what he was told."""

    number: int
    url: str
    token: str
    subject: str
    asked: dict[str, wire.ReserveRequest] = field(default_factory=dict)
    told: dict[str, wire.Reservation] = field(default_factory=dict)
    """What was acknowledged, by request id."""
    cancelled: set[str] = field(default_factory=set)
    """Reservations whose cancellation was acknowledged."""
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        self.wire = Wire()
        self.chance = random.Random(self.number)
        # Several lives in a row may end before they answer anybody.
        self.api = Api(self.url, self.token, transport=self.wire, patience=300)

    def run(self, ending: threading.Event) -> None:
        try:
            while not ending.is_set():
                self.submit()
        except BaseException as error:
            self.failure = error
        finally:
            self.api.close()

    def submit(self) -> None:
        request_id = f"request-{self.number}-{len(self.asked)}"
        request = wire.ReserveRequest(
            gpus=self.chance.choice([1, 2, 4, 8]),
            hours=self.chance.choice([1, 2, 5]),
            name=f"n{len(self.asked)}-{self.number}",
            request_id=request_id,
        )
        self.asked[request_id] = request
        answer = self.api.reserve(request)
        assert answer.id not in {told.id for told in self.told.values()}, f"{answer.id} given twice"
        self.told[request_id] = answer
        if len(self.asked) % 3:
            self.api.release(answer.id)
            self.cancelled.add(answer.id)


class Crowd:
    """All submitters, each in a thread."""

    def __init__(self, submitters: list[Submitter]) -> None:
        self.submitters = submitters
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=submitter.run, args=(self._ending,), daemon=True)
            for submitter in submitters
        ]
        for thread in self._threads:
            thread.start()

    @property
    def told(self) -> int:
        """Acknowledgements so far."""
        for submitter in self.submitters:
            if submitter.failure is not None:
                raise AssertionError(f"submitter {submitter.number} failed") from submitter.failure
        return sum(len(submitter.told) for submitter in self.submitters)

    def end(self) -> None:
        """Let everybody finish what he has begun."""
        self._ending.set()
        for thread in self._threads:
            thread.join(90)
            assert not thread.is_alive()
        assert self.told


def judge(ledger: Ledger, submitters: list[Submitter]) -> None:
    """3: nothing acknowledged is lost, doubled or changed."""
    by_request = ledger.by_request()
    for submitter in submitters:
        for request_id, answer in submitter.told.items():
            request, record = submitter.asked[request_id], ledger.record(answer.id)
            assert record is not None, f"{answer.id} was acknowledged and is lost"
            assert by_request[submitter.subject, request_id] == answer.id
            assert record.owner.subject == submitter.subject
            assert (record.request.shape.gpus, record.request.name) == (request.gpus, request.name)
            assert request.hours is not None
            assert record.request.hold == request.hours * HOUR
            first = ledger.requested[answer.id].promise
            if answer.version == ledger.requested[answer.id].version and first is not None:
                assert answer.guaranteed_by is not None
                told = round(datetime.fromisoformat(answer.guaranteed_by).timestamp())
                assert abs(told * SECOND - first) <= SECOND
            if answer.id in submitter.cancelled:
                assert record.state in (State.STOPPING, State.ENDED), f"{answer.id} is not cancelled"
    ours = {submitter.subject for submitter in submitters}
    acknowledged = {answer.id for submitter in submitters for answer in submitter.told.values()}
    made = {record.id for record in ledger.requested.values() if record.owner.subject in ours}
    assert made == acknowledged, "made, and never told to anybody"


def quick() -> Iterator[float]:
    """Pauses of clients in a hurry: the service is killed before it could be idle."""
    while True:
        yield random.uniform(0.05, 0.2)


@pytest.fixture
def hub() -> Iterator[SmallHub]:
    hub = SmallHub()
    yield hub
    hub.close()


@pytest.mark.timeout(400)
def test_the_service_alone(tmp_path: Path, hub: SmallHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """3, 4, 12: 36 kills, half of them between two chosen steps, and more than 1,000 acknowledgements."""
    service = ServiceProcess(tmp_path, hub, policy=POLICY)
    chance = random.Random(20261124)
    furthest = {BEFORE_COMMIT: 20, AFTER_COMMIT: 20, BEFORE_ANSWER: 20, BEFORE_EFFECT: 8}
    lives = [(place, chance.randrange(1, furthest[place])) for place in PLACES for _ in range(5)]
    lives += [("", chance.randrange(10, 70)) for _ in range(16)]
    chance.shuffle(lives)
    service.start()
    monkeypatch.setattr("gpudev.service_client.pauses", quick)
    crowd = Crowd(
        [Submitter(n, service.url, hub.token(f"user{n}"), f"local:user{n}") for n in range(SUBMITTERS)]
    )
    try:
        service.kill()
        for place, at in lives:
            before = crowd.told
            service.launch({"GPUDEV_FAILPOINT": place, "GPUDEV_FAILPOINT_AT": str(at)} if place else {})
            if place:
                code = wait_for(f"the kill {place} {at}", lambda: service.ended, 60)
                assert code == 137, service.log()
            else:
                wait_for("acknowledgements", lambda b=before, a=at: crowd.told >= b + a, 60)  # type: ignore[misc]
                time.sleep(chance.random() / 10)
                assert service.kill() == -9
        service.start()
        wait_for("the rest of them", lambda: crowd.told >= 1000, 60)
        crowd.end()
        submitters = crowd.submitters
        assert sum(submitter.wire.lost for submitter in submitters) >= 30, "no answer was ever lost"
        for submitter in submitters[:4]:
            for request_id in random.Random(1).sample(sorted(submitter.told), 5):
                again = Api(service.url, submitter.token).reserve(submitter.asked[request_id])
                assert again.id == submitter.told[request_id].id
        assert service.stop() == 0
    finally:
        service.close()
    ledger = asyncio.run(read_ledger(service.settings.database))
    judge(ledger, submitters)
    started = {server for method, _, server in hub.asked if method == "POST"}
    records = (entry.change.record for entry in ledger.history)
    admitted = {record.reservation for record in records if isinstance(record, Claim)}
    assert started
    assert started <= admitted, "the Hub was asked to start what was never admitted"


@pytest.mark.timeout(300)
def test_with_the_real_hub(short_folder: Path) -> None:
    """3, 10: the same with everything around it, a server that runs all the time, and lost keep-alives."""
    policy = short_folder / "policy.json"
    policy.write_text(json.dumps(POLICY))
    stack = Stack(short_folder, environment={"GPUDEV_POLICY": str(policy)})
    chance = random.Random(4)
    try:
        stack.start()
        pair = stack.wait_state(stack.reserve(gpus=8, nodes=2)["id"], "ready")
        launcher = stack.launcher(pair["id"])
        users = ["alice", "bob", "carol", "dave"]
        for user in users:
            stack.token_for(user)
        crowd = Crowd(
            [
                Submitter(n, stack.url, stack.token_for(user), f"local:{user}")
                for n, user in enumerate(users * (SUBMITTERS // len(users)))
            ]
        )
        try:
            for _ in range(6):
                before = crowd.told
                wait_for("acknowledgements", lambda least=before + 15: crowd.told >= least)  # type: ignore[misc]
                time.sleep(chance.random() / 10)
                stack.kill("service")
        finally:
            crowd.end()
        assert stack.wait_state(pair["id"], "ready")["ends_at"] >= pair["ends_at"]
        assert stack.launcher(pair["id"]) == launcher
        assert stack.jupyter(pair) == 200
        stack.stop()
    finally:
        stack.close()
    ledger = asyncio.run(read_ledger(stack.settings.database))
    judge(ledger, crowd.submitters)
