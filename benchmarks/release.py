"""Time each step from a release to the next READY, on the whole stack: hub, proxy, service, JupyterLab, sshd.

One reservation holds a pool of one GPU, and another waits. The first is released, and the second becomes
ready. Some steps are not in the history. They are read from the machine: the end of the old server's last
process (pidfds), the times at which the new server's specification and record were written, and the first
answer of JupyterLab at its own port. ``python -m benchmarks.release [ROUNDS]``
"""

from __future__ import annotations

import json
import os
import select
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import httpx

from hub_users import wait_for
from stack import Stack, running_stack

ROUNDS = 12
STEPS = {
    "stop": "release requested → the old server's last process has ended",
    "gone": "→ the end is observed, and decided on",
    "commit": "→ committed with the next start, and reported to waiting clients",
    "asked": "→ the Hub was asked, has asked the gate, and starts the server",
    "launcher": "→ the launcher runs",
    "jupyter": "→ JupyterLab answers at its port",
    "ready": "→ the Hub routes to it, sshd is probed, READY",
    "all": "release → next READY",
}
LOOK = 0.005
"""Seconds between two polls."""


def gone_at(pids: Iterable[int]) -> float:
    """Wait for these processes; return the wall time at which the last one ended."""
    descriptors = []
    for pid in pids:
        with suppress(ProcessLookupError):
            descriptors.append(os.pidfd_open(pid))
    for descriptor in descriptors:
        select.select([descriptor], [], [])
        os.close(descriptor)
    return time.time()


def first_answer(folder: Path, base: str) -> float:
    """Wait for any answer of the JupyterLab in this rank's folder; return the wall time."""
    record = folder / "record.json"
    wait_for("a record", record.exists)
    port = json.loads(record.read_text())["jupyter_port"]
    with httpx.Client(trust_env=False, timeout=5) as client:
        while True:
            with suppress(httpx.TransportError):
                client.get(f"http://127.0.0.1:{port}{base}/api")
                return time.time()
            time.sleep(LOOK)


def decided_at(client: httpx.Client, id: str, cause: str) -> float:
    """Return the wall time of a reservation's first change for this cause."""
    items = client.get(f"reservations/{id}/history", params={"limit": 50}).json()["items"]
    at = next(item["at"] for item in items if item["cause"].partition(":")[0] == cause)
    return datetime.fromisoformat(at).timestamp()


def hand_over(stack: Stack, client: httpx.Client, old: str) -> tuple[str, dict[str, float]]:
    """Release ``old`` while a request waits; return the request's id, and milliseconds of each step."""
    waiting = stack.reserve(gpus=1)
    new = waiting["id"]
    folder = stack.settings.servers / f"{new}-1" / "0"
    old_processes = list(stack.server_processes(old))
    base = f"/user/{stack.user}/{new}"
    with ThreadPoolExecutor(3) as watchers:
        gone = watchers.submit(gone_at, old_processes)
        told = watchers.submit(left_the_queue, stack, new, waiting["version"])
        answered = watchers.submit(first_answer, folder, base)
        asked = time.time()
        client.delete(f"reservations/{old}").raise_for_status()
        stack.wait_state(new, "ready")
        marks = [
            asked,
            gone.result(),
            decided_at(client, new, "admitted"),
            told.result(),
            (folder / "private" / "spec.json").stat().st_mtime,
            (folder / "record.json").stat().st_mtime,
            answered.result(),
            decided_at(client, new, "ready"),
        ]
    spans = [(after - before) * 1000 for before, after in pairwise(marks)]
    return new, dict(zip(STEPS, [*spans, (marks[-1] - marks[0]) * 1000], strict=True))


def left_the_queue(stack: Stack, id: str, version: int) -> float:
    """Return the wall time at which the waiting client learns that its server starts."""
    with stack.client() as client:
        while True:
            now = client.get(f"reservations/{id}", params={"wait": 20, "version": version}).json()
            if now["state"] != "queued":
                return time.time()
            version = now["version"]


def measure(rounds: int) -> list[dict[str, float]]:
    """Return milliseconds of each step, one record a round. An extra first round warms the disk cache."""
    with (
        tempfile.TemporaryDirectory(prefix="gd-", ignore_cleanup_errors=True) as folder,
        running_stack(Path(folder), pool="1x1") as stack,
        stack.client() as client,
    ):
        holder = stack.wait_state(stack.reserve(gpus=1)["id"], "ready")["id"]
        found = []
        for _ in range(rounds + 1):
            holder, steps = hand_over(stack, client, holder)
            found.append(steps)
        client.delete(f"reservations/{holder}")
        stack.wait_state(holder, "ended")
    return found[1:]


def main() -> None:
    """Print a table: milliseconds of each step, median and maximum."""
    found = measure(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
    print(f"{f'ms, {len(found)} rounds':<70} {'median':>7} {'most':>7}")
    for step, text in STEPS.items():
        times = [steps[step] for steps in found]
        print(f"{text:<70} {statistics.median(times):>7.0f} {max(times):>7.0f}")


if __name__ == "__main__":
    main()
