"""Checks that must hold for servers whatever happens to other parts. Numbers are those of the invariants."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cluster_users import ClusterUsers
from gpudev_hub.cluster.labels import ATTEMPT
from hub_users import wait_for

CONVERGED = 60.0
"""Seconds until the state must be as expected, on two cores that all parts share."""


def uids(stack: ClusterUsers, id: str) -> dict[str, str]:
    """Return the uids of a reservation's pods by name."""
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in stack.pods(id)}


def attempts(stack: ClusterUsers, record: dict[str, Any]) -> set[int]:
    """Return the attempts of which a reservation has pods."""
    return {int(pod["metadata"]["labels"][ATTEMPT]) for pod in stack.pods(record["id"])}


def ready(stack: ClusterUsers, user: str = "alice", **ask: object) -> dict[str, Any]:
    """Reserve, and wait until the server is ready."""
    return stack.wait_state(stack.reserve(user, **ask)["id"], "ready", user)


def all_ready(stack: ClusterUsers, **asks: dict[str, int]) -> list[dict[str, Any]]:
    """Reserve for several users at once, and wait until all servers are ready."""
    asked = [(stack.reserve(user, **ask)["id"], user) for user, ask in asks.items()]
    return [stack.wait_state(reservation, "ready", user) for reservation, user in asked]


def untouched(stack: ClusterUsers, record: dict[str, Any], before: dict[str, str]) -> None:
    """Check that pods and reservation are the same as before, and that Jupyter answers."""
    after = stack.wait_state(record["id"], "ready", record["owner"], CONVERGED)
    assert uids(stack, record["id"]) == before
    assert after["allocation"] == record["allocation"]
    assert after["ends_at"] == record["ends_at"]
    wait_for("Jupyter through the proxy", lambda: stack.jupyter(after, record["owner"]) == 200, CONVERGED)


def one_owner_each(stack: ClusterUsers) -> None:
    """1: check that no slot has two owners, and that pods, bound or not, fit the GPUs of their node."""
    slots: Counter[tuple[str, int]] = Counter()
    for record in stack.api("GET", "reservations?owner=all")["reservations"]:
        for part in record["allocation"] or ():
            slots.update((part["node"], slot) for slot in part["slots"])
    assert set(slots.values()) <= {1}, slots
    held: Counter[str] = Counter()
    for pod in stack.pods():
        if pod["status"]["phase"] not in ("Succeeded", "Failed"):
            held[_planned_on(pod)] += int(
                pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
            )
    assert all(count <= 8 for count in held.values()), held


def _planned_on(pod: dict[str, Any]) -> str:
    affinity = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    node: str = affinity["nodeSelectorTerms"][0]["matchFields"][0]["values"][0]
    assert pod["spec"].get("nodeName", node) == node
    return node


def history(stack: ClusterUsers, id: str, user: str) -> list[dict[str, Any]]:
    """Return the history of a reservation."""
    found: list[dict[str, Any]] = stack.api("GET", f"reservations/{id}/history", None, user)["items"]
    return found


def failed_starts(stack: ClusterUsers, record: dict[str, Any]) -> list[str]:
    """Return the causes of a reservation's failed starts."""
    causes = [entry["cause"] for entry in history(stack, record["id"], record["owner"])]
    return [cause for cause in causes if cause.startswith("start_failed")]


def again(stack: ClusterUsers, record: dict[str, Any], before: dict[str, str]) -> dict[str, Any]:
    """Wait until all pods of a reservation are new and it is ready; return it."""

    def look() -> dict[str, Any] | None:
        found = stack.record(record["id"], record["owner"])
        now = uids(stack, record["id"])
        fresh = len(now) == len(before) and not set(now.values()) & set(before.values())
        return found if found["state"] == "ready" and fresh else None

    return wait_for(f"{record['id']} again", look, 2 * CONVERGED)


def asked_until_acknowledged(stack: ClusterUsers, user: str, word: str) -> dict[str, Any]:
    """Reserve 2 GPUs, and retry with the same request id until the request is acknowledged."""
    ask = {"gpus": 2, "hours": 1, "request_id": f"{word}-{time.monotonic_ns()}"}

    def asked() -> dict[str, Any] | None:
        with stack.client(user) as client:
            answer = client.post("reservations", json=ask)
        return answer.json() if answer.status_code in (200, 201) else None

    return wait_for("an answer", asked, CONVERGED)


def the_only_one(stack: ClusterUsers, record: dict[str, Any]) -> None:
    """3: check that the retried request made one reservation."""
    mine = stack.api("GET", "reservations", None, record["owner"])["reservations"]
    assert [r["id"] for r in mine if r["state"] != "ended"] == [record["id"]]


@contextmanager
def nft_table(*chains: Sequence[str]) -> Iterator[None]:
    """Apply nftables rules in the cluster's network. Each argument has the lines of one chain."""
    lines = ["table ip gpudev_test {"]
    for number, rules in enumerate(chains):
        lines += [f"chain chain{number} {{", *rules, "}"]
    subprocess.run(["nft", "-f", "-"], input="\n".join([*lines, "}\n"]), text=True, check=True)
    try:
        yield
    finally:
        subprocess.run(["nft", "delete", "table", "ip", "gpudev_test"], check=True)
