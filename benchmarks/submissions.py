"""Durable acknowledged submissions per second, over HTTP, from 16 clients, into a full pool, on SQLite.

The service runs in a separate process, with its real store, queue and HTTP server. Engine and Hub are in
memory, and limits are raised. ``python -m benchmarks.submissions [FOLDER]``: FOLDER chooses the disk; the
default is the folder for temporary files.
"""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

SUPPORT = Path(__file__).parents[1] / "tests" / "support"
CLIENTS = 16
EACH = 63
"""Submissions of each client. Together they fill the queue with a thousand requests."""
RUNS = 3
PATH = "/services/gpudev/api/v1/reservations"


async def serve(folder: Path) -> None:
    """Run the service until its standard input ends; print its port."""
    sys.path.insert(0, str(SUPPORT))
    from gpudev_hub.core.policy import Allowances
    from gpudev_hub.stores.sqlite.store import SqliteStore
    from web_site import POLICY, running

    logging.basicConfig(level=logging.WARNING)
    policy = replace(POLICY, allowances=Allowances(queued_requests=1_000_000))
    async with running(store=SqliteStore(folder / "service.sqlite"), policy=policy) as run:
        for n in range(CLIENTS):
            run.hub.person(f"token-{n}", f"user{n}")
        print(run.url.split(":")[2].split("/")[0], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


class Client:
    """One keep-alive connection that uses as little CPU time as possible, to leave it to the service."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def submit(self, **fields: object) -> float:
        """Submit a request; return the seconds until it was acknowledged."""
        body = json.dumps(fields)
        started = time.perf_counter()
        self._writer.write(
            f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: token {self._token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        answer = await self._reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 201"):
            raise RuntimeError(answer.decode())
        return time.perf_counter() - started

    def close(self) -> None:
        self._writer.close()


async def load(port: int) -> tuple[float, list[float]]:
    """Fill the pool, then submit from all clients at once; return submissions per second and latencies."""
    clients = [Client(port, f"token-{n}") for n in range(CLIENTS)]
    for client in clients:
        await client.connect()
    for client in clients[:2]:
        await client.submit(gpus=8, hours=24)

    async def one(client: Client) -> list[float]:
        return [await client.submit(gpus=(1, 2, 4, 8)[n % 4], hours=1 + n % 8) for n in range(EACH)]

    started = time.perf_counter()
    latencies = await asyncio.gather(*(one(client) for client in clients))
    seconds = time.perf_counter() - started
    for client in clients:
        client.close()
    return CLIENTS * EACH / seconds, sorted(latency for each in latencies for latency in each)


def measure(where: str | None) -> tuple[float, list[float]]:
    """Measure once, with a new service and a new store."""
    with tempfile.TemporaryDirectory(dir=where) as folder:
        command = [sys.executable, "-m", "benchmarks.submissions", "--serve", folder]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
            assert service.stdout is not None
            assert service.stdin is not None
            try:
                return asyncio.run(load(int(service.stdout.readline())))
            finally:
                service.stdin.close()


def main() -> None:
    """Measure three times, and print the run with the median."""
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(Path(sys.argv[2])))
        return
    runs = [measure(sys.argv[1] if len(sys.argv) > 1 else None) for _ in range(RUNS)]
    for rate, latencies in runs:
        p50, p99 = (latencies[int(len(latencies) * share)] * 1000 for share in (0.5, 0.99))
        print(f"{rate:6.0f} acknowledged/s   latency p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    rate = statistics.median(rate for rate, _ in runs)
    print(f"median of {RUNS}: {rate:.0f} acknowledged/s ({CLIENTS} clients, {CLIENTS * EACH} each run)")


if __name__ == "__main__":
    main()
