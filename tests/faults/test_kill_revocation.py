"""``kill -9`` of the service at every step of a revocation: the next life of it finishes what was begun."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from fake_github import FakeGithub, make_github
from gpudev import wire
from gpudev.api import Api
from gpudev_hub.core.access_model import Access, Person
from gpudev_hub.core.model import MINUTE, Outcome
from gpudev_hub.failpoints import BEFORE_COMMIT, BEFORE_EFFECT
from gpudev_hub.settings import LOOPBACK
from hub_users import wait_for
from ledger import Ledger, read_ledger
from service_process import ServiceProcess, SmallHub

pytestmark = pytest.mark.integration

ADA, BEN = 101, 102
GRACE = MINUTE // 5
POLICY = {"startup_seconds": 3600}


class TokenHub(SmallHub):
    """Its users have tokens: two of the person's own, and that of a server."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: dict[str, dict[str, str]] = {"ada": {}, "ben": {}}
        """Notes of tokens by id, by user."""
        self.dies_after = -1
        """So many tokens are deleted before the service dies; -1: it lives."""
        self.kill: Callable[[], int] = int

    def answer(self, method: str, path: list[str], token: str) -> tuple[int, object]:
        match [method, *path]:
            case ["GET", "users", user, "tokens"]:
                found = [
                    {"id": ref, "note": note, "oauth_client": "JupyterHub"}
                    for ref, note in self.tokens[user].items()
                ]
                return 200, {"api_tokens": found}
            case ["DELETE", "users", user, "tokens", ref]:
                del self.tokens[user][ref]
                self.dies_after -= 1
                if self.dies_after == 0:
                    self.kill()
                return 204, None
        return super().answer(method, path, token)


@pytest.fixture
def hub() -> Iterator[TokenHub]:
    hub = TokenHub()
    yield hub
    hub.close()


@pytest.fixture
def github(tmp_path: Path) -> Iterator[FakeGithub]:
    github = make_github(folder=tmp_path / "app")
    path = tmp_path / "app" / "github.json"
    wanted = {"revocation_grace_minutes": GRACE / MINUTE, "sweep_minutes": 1}
    path.write_text(json.dumps(json.loads(path.read_text()) | wanted))
    github.start()
    yield github
    github.stop()


def enter(service: ServiceProcess, number: int, login: str) -> None:
    """Log in, as the Hub does it for a user."""
    ports = json.loads((service.settings.state / "ports.json").read_text())
    answer = httpx.post(
        f"http://{LOOPBACK}:{ports['gate']}/gate/login",
        json={"github_id": number, "login": login},
        headers={"Authorization": f"Bearer {service.settings.secret('gate')}"},
        trust_env=False,
    )
    assert answer.json()["verdict"] == "allowed", answer.text


@pytest.mark.timeout(300)
def test_a_revocation_is_finished_by_the_next_life(tmp_path: Path, hub: TokenHub, github: FakeGithub) -> None:
    """The person is revoked once, queue and tokens are gone, the server ends after the grace from then."""
    service = ServiceProcess(tmp_path, hub, pool="1x8", policy=POLICY)
    service.environment["GPUDEV_GITHUB"] = str(tmp_path / "app" / "github.json")
    service.start()
    try:
        enter(service, ADA, "ada")
        enter(service, BEN, "ben")
        ada, ben = (Api(service.url, hub.token(user)) for user in ("ada", "ben"))
        running = ada.reserve(wire.ReserveRequest(gpus=8, hours=2, request_id="request-a"))
        waiting = ada.reserve(wire.ReserveRequest(gpus=8, hours=2, request_id="request-b"))
        other = ben.reserve(wire.ReserveRequest(gpus=8, hours=1, request_id="request-c"))
        assert (running.state, waiting.state, other.state) == ("starting", "queued", "queued")
        assert service.kill() == -9
        hub.tokens["ada"] = {"1": "", "2": "", "s": f"Server at /user/ada/{running.id}/"}
        hub.tokens["ben"] = {"3": ""}
        github.control.leave("pytorch", "metamates", "ada")
        # Each of these lives finds what the one before left, and dies a step later.
        for place, most in ((BEFORE_COMMIT, 3), (BEFORE_EFFECT, 2)):
            for at in range(1, most + 1):
                service.launch({"GPUDEV_FAILPOINT": place, "GPUDEV_FAILPOINT_AT": str(at)})
                assert ends(service) == 137, service.log()
        hub.dies_after, hub.kill = 1, service.kill
        service.launch()
        assert ends(service) == -9, service.log()
        assert len(hub.tokens["ada"]) == 2
        service.start()
        wait_for("the next of the queue", lambda: ben.reservation(other.id).state == "starting")
        wait_for("the last token", lambda: not hub.tokens["ada"])
        assert hub.tokens["ben"]
        assert service.stop() == 0
    finally:
        service.close()
    judge(asyncio.run(read_ledger(service.settings.database)), running.id, waiting.id)


def ends(service: ServiceProcess) -> int:
    wait_for("the kill", lambda: service.ended is not None)
    assert service.ended is not None
    return service.ended


def judge(ledger: Ledger, running: str, waiting: str) -> None:
    people = [e.change.record for e in ledger.history if isinstance(e.change.record, Person)]
    revoked = [person for person in people if person.access is Access.REVOKED]
    assert [person.login for person in revoked] == ["ada"], "revoked once, and nobody else"
    since = revoked[0].since
    queued, held = ledger.ended[waiting], ledger.ended[running]
    assert queued.outcome is held.outcome is Outcome.ACCESS_REVOKED
    assert queued.ended_at is not None
    assert held.ended_at is not None
    assert since <= queued.ended_at < since + GRACE <= held.ended_at
