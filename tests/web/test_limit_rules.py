"""Limits over HTTP: operators set them, everybody sees their own, and nothing gets over them."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import httpx
import pytest

from dynamodb_local import DynamoDBLocal
from gpudev.cli.app import main
from gpudev_hub.core.limits.quota import budgets
from gpudev_hub.core.model import HOUR, State
from gpudev_hub.core.ports import Store
from gpudev_hub.stores.dynamodb.store import DynamoStore
from gpudev_hub.stores.sqlite.store import SqliteStore
from gpudev_hub.web.pages import pages
from web_site import POLICY, Running, running

OPERATE = ("custom:gpudev:reserve", "custom:gpudev:operate")


def people(run: Running) -> None:
    run.hub.person("alices", "alice")
    run.hub.person("operators", "olga", scopes=OPERATE)


async def put(
    client: httpx.AsyncClient, scope: str, gpu_type: str | None = None, **limits: float
) -> httpx.Response:
    body = {"scope": scope, "limits": limits, "gpu_type": gpu_type, "reason": "a test"}
    return await client.put("api/v1/limits", json={k: v for k, v in body.items() if v is not None})


async def test_operators_set_and_clear_limits_and_people_see_theirs(run: Running) -> None:
    async with run.client("operators") as olga, run.client("alices") as alice:
        assert (await put(alice, "default", running_gpus=1)).status_code == 403
        assert (await alice.get("api/v1/limits")).status_code == 403
        assert (await put(olga, "default", running_gpus=4, gpu_hours_week=20)).json()["warnings"] == []
        assert (await put(olga, "person:local:alice", hours_per_request=2.5)).status_code == 200
        rules = (await olga.get("api/v1/limits")).json()
        assert [(rule["scope"], rule["limits"]) for rule in rules["rules"]] == [
            ("default", {"running_gpus": 4, "gpu_hours_week": 20}),
            ("person:local:alice", {"hours_per_request": 2.5}),
        ]
        assert rules["rules"][0]["set_by"] == "local:olga"
        assert rules["rules"][0]["reason"] == "a test"
        assert rules["base"]["running_gpus"] == 16
        await alice.post("api/v1/reservations", json={"gpus": 4, "hours": 2})
        mine = {one["name"]: one for one in (await alice.get("api/v1/me/limits")).json()["limits"]}
        assert mine["running_gpus"]["left"] == 0
        assert mine["running_gpus"]["source"] == "default"
        week = mine["gpu_hours_week"]
        assert (week["used"], week["reserved"], week["left"], week["limit"]) == (0, 8, 12, 20)
        assert week["renews_at"].endswith("T00:00:00Z")
        assert mine["hours_per_request"]["source"] == "person:local:alice"
        assert (await alice.get("api/v1/me")).json()["limits"] == [*mine.values()]
        refused = await alice.post("api/v1/reservations", json={"gpus": 1, "hours": 3})
        assert refused.json()["error"]["code"] == "quota_exceeded"
        lowered = (await put(olga, "person:alice", running_gpus=1)).json()
        assert lowered["rule"]["login"] == "alice"
        assert lowered["warnings"] == [
            "alice holds 4 GPUs in simulated; the limit is now 1.",
            "Their reservations continue. New requests wait or are refused until the use is below the limit.",
        ]
        cleared = await olga.delete(
            "api/v1/limits", params={"scope": "person:alice", "limit": "running_gpus"}
        )
        assert cleared.json()["rule"]["limits"] == {"hours_per_request": 2.5}
        assert (await olga.delete("api/v1/limits", params={"scope": "person:alice"})).json()["rule"] is None
        assert (await olga.delete("api/v1/limits", params={"scope": "person:local:alice"})).status_code == 200
    history, _ = await run.service.reads.history(None, 0, 1000)
    causes = [
        (e.change.cause, e.change.detail, e.change.actor)
        for e in history
        if e.change.cause.startswith("limits")
    ]
    assert causes == [
        *[("limits_set", "a test", "local:olga")] * 3,
        *[("limits_cleared", "", "local:olga")] * 2,
    ]


@pytest.mark.parametrize(
    ("scope", "gpu_type", "limits", "words"),
    [
        ("default", "a100", {"running_gpus": 1}, "There is no GPU type 'a100'."),
        ("team:o/x", None, {"running_gpus": 1}, "There is no team 'o/x' in the settings."),
        ("person:nobody", None, {"running_gpus": 1}, "No user is called 'nobody'."),
        ("person:github:9", None, {"running_gpus": 1}, "No user has the subject 'github:9'."),
        ("all", None, {"running_gpus": 1}, "Limits cannot be set for 'all'."),
        ("default", None, {}, "No limit was given."),
        ("default", None, {"running_gpus": -1}, "running_gpus"),
        ("default", None, {"hours_per_request": 0}, "hours_per_request"),
    ],
)
async def test_what_makes_no_sense_is_refused_in_words(
    run: Running, scope: str, gpu_type: str | None, limits: dict[str, float], words: str
) -> None:
    async with run.client("operators") as olga:
        answer = await put(olga, scope, gpu_type, **limits)
        assert answer.status_code in (400, 404)
        assert words in answer.json()["error"]["message"]
        assert (await olga.get("api/v1/limits")).json()["rules"] == []


async def test_limits_and_what_was_spent_outlive_the_service(tmp_path: Path) -> None:
    path = tmp_path / "service.sqlite"
    async with running(store=SqliteStore(path)) as run:
        people(run)
        async with run.client("operators") as olga, run.client("alices") as alice:
            await put(olga, "default", gpu_hours_week=20)
            made = (await alice.post("api/v1/reservations", json={"gpus": 2, "hours": 1})).json()
            await run.make_ready(made["id"])
            await alice.delete(f"api/v1/reservations/{made['id']}")
            await run.gone(made["id"])
            before = dict(run.service.view.limits), dict(run.service.view.spending)
    assert before[1]["local:alice", "simulated"].week_gpu_ms > 0
    async with running(store=SqliteStore(path)) as again:
        assert (again.service.view.limits, again.service.view.spending) == before


async def test_pages_show_every_limit(tmp_path: Path) -> None:
    async with running(pages()) as run:
        people(run)
        async with run.client("operators") as olga, run.client("alices") as alice:
            await put(olga, "default", gpu_hours_week=20)
            await alice.post("api/v1/reservations", json={"gpus": 4, "hours": 2})
            home = " ".join((await alice.get("")).text.split())
            assert "GPU-hours this week" in home
            assert "8 of 20" in home
            assert "12 left, renews" in home
            assert "· default" in home
            operator = (await olga.get("operator")).text
            assert "GPU-hours this week: 8 of 20, 12 left" in operator
            asked = {"subject": "local:alice", "login": "alice", "server": "res-9"}
            async with run.gate() as gate:
                picker = (await gate.post("gate/picker", json=asked)).json()
            assert "GPU-hours this week: 8 of 20, 12 left" in picker["limits"]
            feed = (await alice.get("picker?hours=1")).json()
            assert feed["limits"] == picker["limits"]


async def nothing_gets_over(store: Store) -> None:
    """64 requests of one person at the same time, some of them retried."""
    async with running(store=store, policy=POLICY) as run:
        people(run)
        async with run.client("operators") as olga, run.client("alices") as alice:
            await put(olga, "default", running_gpus=4, queued_requests=9, gpu_hours_week=30, gpu_hours=25)
            bodies = [
                {"gpus": (1, 2, 4)[n % 3], "hours": 1 + n % 2, "request_id": f"request-{n % 48:04}"}
                for n in range(64)
            ]
            answers = await asyncio.gather(
                *(alice.post("api/v1/reservations", json=body, timeout=60) for body in bodies)
            )
        codes = Counter(answer.status_code for answer in answers)
        assert codes.keys() == {201, 409}
        refused = [answer.json()["error"] for answer in answers if answer.status_code == 409]
        assert {error["code"] for error in refused} == {"quota_exceeded"}
        view, now = run.service.view, run.service.clock.now()
        live = [r for r in view.reservations.values() if r.owner.subject == "local:alice"]
        assert {answer.json()["id"] for answer in answers if answer.status_code == 201} == {
            r.id for r in live
        }
        held = sum(r.request.shape.total_gpus for r in live if r.state is not State.QUEUED)
        assert held <= 4
        assert sum(r.state is State.QUEUED for r in live) <= 9
        for budget in budgets(POLICY, view, "local:alice", "simulated", live, now):
            assert budget.use.total <= budget.limit * HOUR
        assert sum(r.request.shape.total_gpus * r.request.hold for r in live) <= 25 * HOUR


async def test_nothing_gets_over_any_limit_on_sqlite(tmp_path: Path) -> None:
    await nothing_gets_over(SqliteStore(tmp_path / "service.sqlite"))


@pytest.mark.dynamodb
async def test_nothing_gets_over_any_limit_on_dynamodb(dynamodb: DynamoDBLocal) -> None:
    await nothing_gets_over(DynamoStore(dynamodb.table(), dynamodb.client()))


async def test_the_command_line_shows_and_changes_limits(
    run: Running, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPUDEV_URL", run.url.removesuffix("/services/gpudev/"))

    async def command(token: str, *args: str) -> tuple[int, str, str]:
        monkeypatch.setenv("GPUDEV_TOKEN", token)
        code = await asyncio.to_thread(main, list(args))
        said = capfd.readouterr()
        return code, " ".join(said.out.split()), " ".join(said.err.split())

    async with run.client("alices") as alice:
        await alice.post("api/v1/reservations", json={"gpus": 4, "hours": 2})
    limits = ("admin", "limits")
    code, out, err = await command(
        *("operators", *limits, "set", "person:alice", "--running-gpus", "2", "--gpu-hours-week", "10"),
        *("--hours-per-request", "90m", "--reason", "a loan"),
    )
    assert (code, out) == (
        0,
        "Limits of person:alice: running_gpus 2, hours_per_request 1.5, gpu_hours_week 10",
    )
    assert "Warning: alice holds 4 GPUs in simulated; the limit is now 2." in err
    assert "Their reservations continue." in err
    code, out, _ = await command("operators", *limits, "show")
    assert code == 0
    assert "person:alice all running_gpus 2 local:olga a loan" in out
    code, out, _ = await command("alices", "quota")
    assert code == 0
    assert "GPUs at once simulated 4 2 0 your own" in out
    assert "GPU-hours this week all 0 + 8 reserved 10 2, renews" in out
    assert "longest request all 1 h 30 min your own" in out
    assert "longest reservation with extensions all 48 h default" in out
    code, out, err = await command("alices", *limits, "show")
    assert (code, out) == (5, "")
    code, _, err = await command("operators", *limits, "set", "team:no/team", "--running-gpus", "2")
    assert code == 3
    assert "There is no team 'no/team' in the settings." in err
    code, _, err = await command("operators", *limits, "set", "default")
    assert code == 2
    assert "No limit was given." in err
    code, out, _ = await command("operators", *limits, "clear", "person:alice")
    assert (code, out) == (0, "The limits of person:alice are cleared.")
