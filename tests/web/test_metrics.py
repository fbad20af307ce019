"""What a scraper gets on the listener for metrics, and what it does not get there."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from gpudev_hub.core.model import MINUTE, SECOND
from gpudev_hub.core.ports import StoreUnavailable
from gpudev_hub.ssh.bastion import Bastion
from memory_store import MemoryStore
from metric_samples import families, value
from organisation import Organisation, github
from web_site import Running, running

POOL = {"gpu_type": "simulated"}
RESERVATIONS = "api/v1/reservations"


async def test_the_listener_for_metrics_has_nothing_else(run: Running) -> None:
    async with httpx.AsyncClient(base_url=run.metrics_url, trust_env=False, timeout=20) as scraper:
        answer = await scraper.get("metrics")
        assert (answer.status_code, answer.headers["Content-Type"]) == (
            200,
            "text/plain; version=0.0.4; charset=utf-8",
        )
        for path in ("", "services/gpudev/metrics", "services/gpudev/pool", "health/live", "gate/admit"):
            assert (await scraper.get(path)).status_code == 404, path
        assert (await scraper.post("metrics")).status_code == 405
    async with run.gate() as gate:
        assert (await gate.get("metrics")).status_code == 404
    async with run.client() as anybody:
        assert (await anybody.get("metrics")).status_code == 401, "the public listener asks for a token"


async def test_a_reservation_is_counted_from_request_to_end(run: Running) -> None:
    async with run.client("alices") as alice:
        made = (await alice.post(RESERVATIONS, json={"gpus": 2, "hours": 1})).json()["id"]
        await run.make_ready(made)
        pair = await alice.post(RESERVATIONS, json={"gpus": 8, "nodes": 2})
        assert pair.status_code == 201
        text = await run.scrape()
        assert value(text, "gpudev_transitions_total", **POOL, before="starting", after="ready") == 1
        assert value(text, "gpudev_queue_wait_seconds_count", **POOL) == 1, "the pair still waits"
        assert value(text, "gpudev_start_seconds_count", **POOL) == 1
        assert value(text, "gpudev_queue_oldest_seconds", **POOL) > 0
        assert value(text, "gpudev_ended_total", **POOL, outcome="released") == 0
        await alice.delete(f"{RESERVATIONS}/{made}")
        await run.gone(made)
    text = await run.scrape()
    assert value(text, "gpudev_ended_total", **POOL, outcome="released") == 1
    for before, after, count in (("new", "queued", 2), ("queued", "starting", 2), ("stopping", "ended", 1)):
        assert value(text, "gpudev_transitions_total", **POOL, before=before, after=after) == count, before
    assert value(text, "gpudev_transitions_total", **POOL, before="starting", after="queued") == 0


async def test_without_a_queue_nobody_waits(run: Running) -> None:
    assert value(await run.scrape(), "gpudev_queue_oldest_seconds", **POOL) == 0


class Full(MemoryStore):
    """Takes no commit while it is full."""

    full = False

    async def commit(self, commit: object) -> None:
        if self.full:
            raise StoreUnavailable("disk full")
        await super().commit(commit)  # type: ignore[arg-type]


async def test_a_database_that_does_not_answer_is_seen() -> None:
    store = Full()
    async with running(store=store) as run, run.client("alices") as alice:
        run.hub.person("alices", "alice")
        parts = {"database", "hub", "cluster"}
        assert {value(await run.scrape(), "gpudev_away_seconds", part=part) for part in parts} == {0}
        store.full = True
        assert (await alice.post(RESERVATIONS, json={"gpus": 1})).status_code == 503
        assert value(await run.scrape(), "gpudev_away_seconds", part="database") > 0
        assert value(await run.scrape(), "gpudev_away_seconds", part="hub") == 0


async def test_bastions_that_work_are_counted_for_a_minute(run: Running) -> None:
    assert "gpudev_bastions" not in families(await run.scrape())
    now = 0
    run.site.bastion = Bastion(
        run.service.view,
        run.directory,
        now=lambda: now,
        on_machine=lambda at: at,
    )
    run.site.bastion_secret = "the-bastions-secret"
    async with run.gate("the-bastions-secret") as gate:
        for instance in ("a", "b", "a"):
            body: dict[str, Any] = {"instance": instance, "connections": []}
            assert (await gate.post("bastion/cuts", json=body)).status_code == 200
            now += 20 * SECOND
    assert value(await run.scrape(), "gpudev_bastions") == 2
    now += MINUTE - 40 * SECOND
    assert value(await run.scrape(), "gpudev_bastions") == 1
    now += MINUTE
    assert value(await run.scrape(), "gpudev_bastions") == 0


async def test_the_grace_of_access_is_told() -> None:
    async with running(github=github(Organisation())) as run:
        text = await run.scrape()
        assert value(text, "gpudev_access_grace_seconds") == pytest.approx(12 * 3600)
