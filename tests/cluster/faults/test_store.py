"""Faults of the table (down, slow, taken over by another service), and clocks that jump."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from checks import (
    CONVERGED,
    all_ready,
    asked_until_acknowledged,
    nft_table,
    one_owner_each,
    ready,
    the_only_one,
    uids,
    untouched,
)
from cluster_stack import ADDRESS, ClusterStack
from dynamodb_proxy import Fault
from harness.debian import faketime
from hub_users import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), pytest.mark.usefixtures("clean")]

NEW_SERVICE = {8100: 8110, 8101: 8111}
"""Ports of the second service, by the port of the first."""


def test_dynamodb_is_away_for_a_while(stack: ClusterStack) -> None:
    """11: requests are refused with the reason. Servers continue, and earlier requests are kept."""
    record, _ = all_ready(stack, alice={"gpus": 8}, bob={"gpus": 8})
    waiting = stack.reserve("carol", gpus=8)
    before = uids(stack, record["id"])
    newcomer = stack.newcomer()
    stack.token_for("dave")
    with closing(stack.browser()) as known, closing(stack.browser()) as unknown:
        stack.faults.down()
        try:
            with stack.client("dave") as client:
                refused = client.post("reservations", json={"gpus": 1, "hours": 1})
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "unavailable"
            known.log_in("dave")
            assert known.name() == "dave"
            page = unknown.log_in(newcomer)
            assert page.status_code == 503
            assert f"The login of {newcomer} could not be saved." in page.text
            assert stack.jupyter(record) == 200, "who works is not disturbed"
            assert stack.record(waiting["id"], "carol")["state"] == "queued", "reading needs no store"
            # End a server while nothing can be written.
            stack.cluster.api.delete(
                f"/api/v1/namespaces/gpudev-servers/pods/{next(iter(before))}"
            ).raise_for_status()
            wait_for("it gone", lambda: not uids(stack, record["id"]), CONVERGED)
        finally:
            stack.faults.up()
    after = stack.wait_state(record["id"], "ready", "alice", 2 * CONVERGED)
    assert after["allocation"] == record["allocation"]
    assert stack.record(waiting["id"], "carol")["guaranteed_by"] == waiting["guaranteed_by"]
    mine = stack.api("GET", "reservations", None, "dave")["reservations"]
    assert [r["state"] for r in mine if r["state"] != "ended"] == []
    one_owner_each(stack)


def test_dynamodb_refuses_for_a_while(stack: ClusterStack) -> None:
    """A retried request makes one reservation; servers are not affected."""
    running = ready(stack, "bob", gpus=2)
    before = uids(stack, running["id"])
    for user, fault in (("alice", Fault.THROTTLED), ("carol", Fault.CONFLICT), ("dave", Fault.LOST)):
        stack.faults.next(fault, 4)
        record = asked_until_acknowledged(stack, user, fault.name)
        assert stack.faults.left < 4, "the test is about requests that were refused"
        stack.faults.heal()
        stack.wait_state(record["id"], "ready", user, CONVERGED)
        the_only_one(stack, record)
        untouched(stack, running, before)
        one_owner_each(stack)


def test_an_old_service_wakes_up_beside_a_new_one(stack: ClusterStack) -> None:
    """4: it can write nothing, changes nothing that the new service made, and ends."""
    first = ready(stack, "alice", gpus=8)
    before = uids(stack, first["id"])
    stack.send("service", signal.SIGSTOP)
    try:
        with _led_to_the_new_one():
            stack.start_part(
                "service-2",
                settings={
                    "public_port": NEW_SERVICE[8100],
                    "gate_port": NEW_SERVICE[8101],
                    "metrics_port": 8112,
                },
            )
            wait_for(
                "the new service",
                lambda: stack.answers("service-2"),
                CONVERGED,
            )
            second = ready(stack, "bob", gpus=8)
            others = uids(stack, second["id"])
            waiting = stack.reserve("carol", gpus=8)
            stack.send("service", signal.SIGCONT)
            wait_for("the old one's end", lambda: not stack.runs("service"), CONVERGED)
            untouched(stack, first, before)
            untouched(stack, second, others)
            assert stack.record(waiting["id"], "carol")["planned_start"] == waiting["planned_start"]
            one_owner_each(stack)
    finally:
        stack.kill("service")
        stack.end_extra("service-2")
    stack.start_part("service")
    stack.wait_until_up()
    untouched(stack, first, before)
    untouched(stack, second, others)


@contextmanager
def _led_to_the_new_one() -> Iterator[None]:
    """Redirect the first service's ports to the second service, like a Service of Kubernetes."""
    leads = [f"ip daddr {ADDRESS} tcp dport {a} dnat to {ADDRESS}:{b}" for a, b in NEW_SERVICE.items()]
    with nft_table(
        ("type nat hook output priority -90", *leads), ("type nat hook prerouting priority -110", *leads)
    ):
        yield


@pytest.fixture
def clock(stack: ClusterStack) -> Iterator[Path]:
    """Run the service with its own clock. The file has the difference to the machine's clock."""
    offset = stack.folder / "clock"
    offset.write_text("+0")
    stack.kill("service")
    stack.start_part(
        "service",
        {
            "LD_PRELOAD": str(faketime()),
            "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        },
    )
    stack.wait_until_up()
    yield offset
    stack.restart("service")


def test_the_wall_clock_jumps(stack: ClusterStack, clock: Path) -> None:
    """9: while the service runs, nothing ends too early and nothing starts too late."""
    record = ready(stack, gpus=2, hours=0.0167)
    before = uids(stack, record["id"])
    for offset in ("+300", "-300"):
        clock.write_text(offset)
        off = stack.told_time() - datetime.now(UTC)
        assert abs(off - timedelta(seconds=int(offset))) < timedelta(seconds=30), "the clock did not jump"
        untouched(stack, record, before)
        other = ready(stack, "bob", gpus=2)
        away = datetime.fromisoformat(other["starts_at"]) - datetime.now(UTC)
        assert abs(away) < timedelta(seconds=30)
        stack.end(other["id"], "bob")
    ends = datetime.fromisoformat(record["ends_at"])
    ended = stack.wait_state(record["id"], "ended", "alice", 240)
    assert ended["outcome"] == "expired"
    assert datetime.now(UTC) >= ends
