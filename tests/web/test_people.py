"""Who may use the hub: refusals everywhere, the operators' list and release, GitHub's deliveries, metrics."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gpudev_hub.core.access_model import Access
from gpudev_hub.core.gate import Entry
from gpudev_hub.service.sweep import Sweep
from gpudev_hub.web.auth import OPERATE, RESERVE
from gpudev_hub.web.pages import pages
from organisation import Organisation, github
from web_site import Running, running

API = "api/v1"
SECRET = "shared with GitHub"


@asynccontextmanager
async def site(people: int = 10) -> AsyncIterator[tuple[Running, Organisation]]:
    """People p1 … of whom p1 is an operator; their tokens are t1 …"""
    org = Organisation()
    for number in range(1, people + 1):
        org.join(number, f"p{number}")
    async with running(pages(), github=github(org), webhook_secret=SECRET) as run:
        for number in range(1, people + 1):
            answer = await run.service.access.people.login(number, f"p{number}")
            assert answer.verdict is Entry.ALLOWED
            scopes = (RESERVE, OPERATE) if number == 1 else (RESERVE,)
            run.hub.person(f"t{number}", f"p{number}", scopes=scopes)
        yield run, org


def sweep_of(run: Running) -> Sweep:
    assert run.service.access.sweep is not None
    return run.service.access.sweep


def revoked(run: Running) -> set[str]:
    return {p.login for p in run.service.view.people.values() if p.access is Access.REVOKED}


async def test_whoever_lost_access_is_refused_on_every_route_with_the_reason() -> None:
    async with site() as (run, org), run.client("t2") as ben:
        assert (await ben.get(f"{API}/me")).json()["user"] == "p2"
        org.push.remove(2)
        await sweep_of(run).once()
        for path in (f"{API}/me", f"{API}/reservations", "pool", "metrics"):
            answer = await ben.get(path)
            assert answer.status_code == 403, path
            assert "no push permission on pytorch/pytorch" in answer.text
        error = (await ben.post(f"{API}/reservations", json={"gpus": 1})).json()["error"]
        assert (error["code"], error["hint"]) == ("access_revoked", "Ask #gpu-help.")


async def test_a_user_of_the_hub_who_never_came_by_github_gets_nothing() -> None:
    async with site() as (run, _):
        run.hub.person("old", "from-before")
        async with run.client("old") as client:
            answer = await client.get(f"{API}/me")
            assert answer.status_code == 403
            assert "not logged in to this hub with GitHub" in answer.text


async def test_a_server_is_shared_by_login_and_only_with_people_who_have_access() -> None:
    async with site() as (run, org), run.client("t2") as ben:
        made = (await ben.post(f"{API}/reservations", json={"gpus": 1, "request_id": "request-1"})).json()
        await run.make_ready(made["id"])
        run.hub.users |= {"p3", "p4"}
        org.accounts[3] = "renamed"
        org.push.remove(4)
        await sweep_of(run).once()
        shared = await ben.put(f"{API}/reservations/{made['id']}/guests/renamed")
        assert [guest["login"] for guest in shared.json()["guests"]] == ["renamed"]
        refused = await ben.put(f"{API}/reservations/{made['id']}/guests/p4")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
        assert "p4 may not use this hub." in refused.text
        # The old login, which keeps being the Hub's name, and a user of the Hub from before GitHub.
        run.hub.users.add("from-before")
        for name in ("p3", "from-before"):
            unknown = await ben.put(f"{API}/reservations/{made['id']}/guests/{name}")
            assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")
            assert f"This hub has no user '{name}'." in unknown.text


async def test_operators_see_everybody_and_release_a_mass_revocation_knowingly() -> None:
    async with site() as (run, org), run.client("t1") as olga, run.client("t2") as ben:
        org.team -= {7, 8, 9, 10}
        await sweep_of(run).once()
        found = (await olga.get(f"{API}/people")).json()
        assert [p["login"] for p in found["people"] if p["held"]] == ["p10", "p7", "p8", "p9"]
        assert "4 people would lose access at once" in found["problems"][0]
        assert "4 people would lose access at once" in (await olga.get("operator")).text
        ready = (await olga.get("health/ready")).json()
        assert ready["ok"] is True
        assert "4 people would lose access at once" in ready["warnings"][0]
        text = (await olga.get("metrics")).text
        for line in ("gpudev_access_brake 1", "gpudev_access_held 4", 'gpudev_people{access="allowed"} 10'):
            assert line in text
        assert (await ben.get(f"{API}/people")).status_code == 403
        body = {"subjects": ["github:7", "github:8", "github:9", "github:10"]}
        assert (await ben.post(f"{API}/people/revocations", json=body)).status_code == 403
        more = await olga.post(f"{API}/people/revocations", json={"subjects": ["github:2", "github:7"]})
        assert (more.status_code, more.json()["error"]["code"]) == (409, "wrong_state")
        assert revoked(run) == set()
        after = (await olga.post(f"{API}/people/revocations", json=body)).json()
        assert revoked(run) == {"p7", "p8", "p9", "p10"}
        assert after["problems"] == []
        p7 = next(p for p in after["people"] if p["login"] == "p7")
        assert (p7["access"], p7["reason"]) == ("revoked", "not a member of pytorch/metamates")
        history, _ = await run.service.reads.history(None, 0, 1000)
        actors = {e.change.actor for e in history if e.change.cause == "access_revoked"}
        assert actors == {"github:1"}, "the operator who released it"


async def until(condition: Callable[[], bool]) -> None:
    """Return when this holds, within ten seconds."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {
        "X-Hub-Signature-256": f"sha256={digest}",
        "X-GitHub-Event": "membership",
        "Content-Type": "application/json",
    }


async def test_a_signed_delivery_hastens_the_look_at_one_person() -> None:
    async with site() as (run, org), run.client() as github_:
        await asyncio.sleep(0.05)
        org.team.remove(2)
        body = json.dumps(
            {"action": "removed", "member": {"id": 2, "login": "x"}, "filler": "x" * 60_000}
        ).encode()
        answer = await github_.post("github/webhook", content=body, headers=signed(body))
        assert answer.status_code == 204
        await until(lambda: revoked(run) == {"p2"})


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"X-Hub-Signature-256": "sha256=00"}, 401),
        ({"X-Hub-Signature-256": ""}, 401),
        ({"X-Hub-Signature-256": "sha256=\u00e9"}, 401),
        (signed(b"other"), 401),
        (signed(b"{}", "another secret"), 401),
    ],
)
async def test_deliveries_that_are_not_signed_are_refused(change: dict[str, str], status: int) -> None:
    async with site() as (run, org), run.client() as stranger:
        org.team.remove(2)
        body = json.dumps({"member": {"id": 2}}).encode()
        headers: dict[str, Any] = {**signed(body), **change}
        headers = {name: value.encode() for name, value in headers.items()}
        answer = await stranger.post("github/webhook", content=body, headers=headers)
        assert answer.status_code == status
        assert 2 not in org.asked[10:]


async def test_a_delivery_says_nothing_that_is_believed_and_junk_is_refused() -> None:
    async with site() as (run, _), run.client() as github_:
        for body, status in (
            (b'{"member": {"id": 2}, "action": "removed"}', 204),
            (b'{"member": {"id": 77777}}', 204),
            (b'{"zen": "x"}', 204),
            (b'{"member": {"id": "2"}}', 400),
            (b"not json", 400),
        ):
            assert (
                await github_.post("github/webhook", content=body, headers=signed(body))
            ).status_code == status
        body = b"x" * (600 * 1024)
        answer = await github_.post("github/webhook", content=body, headers=signed(body))
        assert answer.status_code == 413
        assert "The body has 614400 bytes; the limit is 524288." in answer.json()["error"]["message"]
        await asyncio.sleep(0.05)
        assert revoked(run) == set()
        assert "github:77777" not in run.service.view.people


async def test_without_a_secret_no_delivery_is_taken() -> None:
    async with running() as run, run.client() as client:
        answer = await client.post("github/webhook", content=b"{}", headers=signed(b"{}", ""))
        assert answer.status_code == 404
        assert run.service.access.problems() == []


async def test_hints_do_not_sweep_more_often_than_every_minute() -> None:
    async with site() as (run, org):
        await asyncio.sleep(0.05)
        listed = org.listed
        for number in range(500):
            sweep_of(run).hint(1000 + number)
        sweep_of(run).hint(None)
        await asyncio.sleep(0.1)
        assert org.listed == listed
