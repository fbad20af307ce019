"""Effect of faults on the queue: run a trace through `decide` without faults, with flaps, and with silences.

Run ``python -m benchmarks.trouble TRACE.csv [REQUESTS]``. The trace is a pod list as published by Alibaba
(cluster-trace-gpu-v2023). Each row that used GPUs for half an hour or more becomes a request. Requests come
in the order of `creation_time`, stretched so that servers use 90 % of the pool. The time of use is
`deletion_time - scheduled_time`, at most 20 h. The hold time is 1 to 3 times that, in whole hours, at most
24. Shared GPUs count as one. One in four requests for 8 GPUs becomes a request for two whole nodes. There are
200 owners without limits, and a pool of 4 nodes with 8 GPUs. A server is ready 90 s after its start, and gone
20 s after its release.

In a flap, one node is down for 60 s, every 12 h. In a silence, the cluster does not answer for three minutes,
every 12 h: its nodes are unknown after two minutes, and seen again after three. The benchmark compares
planned starts before and after each fault, except those that come during the fault.
"""

from __future__ import annotations

import csv
import heapq
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from gpudev_hub.core.decisions.decide import decide, next_due
from gpudev_hub.core.decisions.working_state import WorkingState
from gpudev_hub.core.effects import StartServer, StopServer
from gpudev_hub.core.events import (
    Compress,
    End,
    Event,
    NodesObserved,
    NodeUnknown,
    Outage,
    ServerObserved,
    ServerReady,
    Submit,
    Tick,
)
from gpudev_hub.core.model import (
    HOUR,
    MINUTE,
    SECOND,
    Millis,
    Node,
    NodeStatus,
    Owner,
    Presence,
    Request,
    Reservation,
    Shape,
)
from gpudev_hub.core.policy import Allowances, Policy, PoolSettings

NODES, GPUS, LOAD = 4, 8, 0.9
REQUESTS = 1_500
EVERY: Millis = 12 * HOUR
FLAP: Millis = 60 * SECOND
SILENCE: Millis = 3 * MINUTE
PATIENCE: Millis = 2 * MINUTE
STARTS_IN: Millis = 90 * SECOND
STOPS_IN: Millis = 20 * SECOND
OWNERS = 200
SHORTEST = 1800.0
"""Seconds of use. Rows with less are left out."""
BEGIN: Millis = 1_800_000_000_000
POOL = PoolSettings("h100", GPUS, ("base",), startup=10 * MINUTE, teardown=5 * MINUTE)
POLICY = Policy((POOL,), allowances=Allowances(running_gpus=10**6, queued_requests=10**6))


@dataclass(frozen=True)
class Ask:
    """A request, and how long its server is used."""

    at: Millis
    shape: Shape
    hold: Millis
    used: Millis
    owner: str


def read(path: Path, count: int) -> list[Ask]:
    """Return a random sample of the trace, stretched in time to the pool's load."""
    rng = random.Random(1)
    rows: list[tuple[float, Shape, Millis]] = []
    with path.open() as lines:
        for row in csv.DictReader(lines):
            gpus = int(row["num_gpu"] or 0)
            if gpus and row["scheduled_time"] and row["deletion_time"]:
                used = float(row["deletion_time"]) - float(row["scheduled_time"])
                if used < SHORTEST:
                    continue
                length = round(min(used, 20 * 3600)) * SECOND
                shape = Shape(GPUS, 2) if gpus == GPUS and rng.random() < 0.25 else Shape(gpus)
                rows.append((float(row["creation_time"]), shape, length))
    rows = sorted(rng.sample(rows, min(count, len(rows))), key=lambda row: row[0])
    work = sum(shape.total_gpus * used for _, shape, used in rows)
    stretch = work / (NODES * GPUS * LOAD) / (rows[-1][0] - rows[0][0])
    asks = []
    for created, shape, used in rows:
        hold = min(24, -(-round(used * rng.uniform(1, 3)) // HOUR)) * HOUR
        at = BEGIN + round((created - rows[0][0]) * stretch)
        asks.append(Ask(at, shape, max(hold, used), used, f"local:user-{rng.randrange(OWNERS)}"))
    return asks


@dataclass
class Played:
    """The results of a run."""

    waits: list[Millis] = field(default_factory=list)
    broken: int = 0
    """Requests that started after their first guaranteed start."""
    troubles: int = 0
    compared: int = 0
    later: int = 0
    most_later: Millis = 0
    seconds: float = 0


class Player:
    """Plays the trace through the core, with a simulated cluster."""

    def __init__(self, asks: list[Ask]) -> None:
        self.world = WorkingState(POLICY)
        self.now = BEGIN - HOUR
        self.nodes = tuple(Node(f"node-{n}", "h100", GPUS, "rack") for n in range(1, NODES + 1))
        self.seen = Played()
        self.asks = {f"r{n}": ask for n, ask in enumerate(asks, 1)}
        self.guaranteed: dict[str, Millis | None] = {}
        self.started: set[str] = set()
        self._later: list[tuple[Millis, int, Callable[[], None]]] = []
        self._count = 0
        self.do(NodesObserved(self.nodes))
        for ref, ask in self.asks.items():
            self.after(ask.at, lambda ref=ref, ask=ask: self.submit(ref, ask))  # type: ignore[misc]

    def after(self, at: Millis, then: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._later, (at, self._count, then))

    def do(self, event: Event) -> None:
        """Decide an event, fill freed time, and carry out the effects."""
        decision = decide(self.world, event, self.now)
        effects = decision.effects
        while not self.world.settled():
            decision = decide(self.world, Compress(1000), self.now)
            effects += decision.effects
        self.world.drain()
        for effect in effects:
            if isinstance(effect, StartServer):
                self.starts(effect.id, effect.attempt)
            elif isinstance(effect, StopServer):
                key = (effect.id, effect.attempt)
                self.after(self.now + STOPS_IN, lambda key=key: self.gone(*key))  # type: ignore[misc]

    def submit(self, ref: str, ask: Ask) -> None:
        owner = Owner(ask.owner, ask.owner, ask.owner)
        self.do(Submit(ref, owner, Request(ask.shape, "h100", ask.hold, "base")))
        record = self.world.reservations[ref]
        self.guaranteed[ref] = record.promise

    def starts(self, ref: str, attempt: int) -> None:
        if ref not in self.started:
            self.started.add(ref)
            self.seen.waits.append(self.now - self.asks[ref].at)
            promise = self.guaranteed.get(ref)
            self.seen.broken += promise is not None and self.now > promise
        self.after(self.now + STARTS_IN, lambda: self.ready(ref, attempt))

    def ready(self, ref: str, attempt: int) -> None:
        self.do(ServerObserved(ref, attempt, Presence.PRESENT))
        self.do(ServerReady(ref, attempt))
        self.after(self.now + self.asks[ref].used, lambda: self.release(ref))

    def release(self, ref: str) -> None:
        if ref in self.world.reservations:
            self.do(End(ref, "service"))

    def gone(self, ref: str, attempt: int) -> None:
        if (ref, attempt) in self.world.claims:
            self.do(ServerObserved(ref, attempt, Presence.ABSENT))

    def planned(self) -> dict[str, Reservation]:
        return {r.id: r for r in self.world.queued()}

    def flap(self, name: str) -> None:
        self.seen.troubles += 1
        before = self.planned()
        down = tuple(replace(n, status=NodeStatus.DOWN) if n.name == name else n for n in self.nodes)
        self.do(NodesObserved(down))
        self.after(self.now + FLAP, lambda: self.over(before, FLAP))

    def silence(self) -> None:
        self.seen.troubles += 1
        before = self.planned()

        def unknown() -> None:
            for node in self.nodes:
                self.do(NodeUnknown(node.name))

        self.after(self.now + PATIENCE, unknown)
        self.after(self.now + SILENCE, lambda: self.over(before, SILENCE))

    def over(self, before: dict[str, Reservation], length: Millis) -> None:
        if length == SILENCE:
            self.do(Outage(self.now - SILENCE, self.now, "the cluster"))
        self.do(NodesObserved(self.nodes))
        after = self.planned()
        for ref, old in before.items():
            new = after.get(ref)
            if new is None or old.place is None or old.place.start <= self.now:
                continue
            self.seen.compared += 1
            late = 10**12 if new.place is None else new.place.start - old.place.start
            self.seen.later += late > 0
            self.seen.most_later = max(self.seen.most_later, late)

    def play(self) -> Played:
        begun = time.process_time()
        while self._later:
            at = self._later[0][0]
            due = next_due(self.world, self.now)
            if due is not None and due < at:
                self.now = max(self.now, due)
                self.do(Tick())
                continue
            self.now = max(self.now, at)
            heapq.heappop(self._later)[2]()
        self.seen.seconds = time.process_time() - begun
        return self.seen


def with_flaps(player: Player, end: Millis) -> None:
    for n, at in enumerate(range(BEGIN + EVERY, end, EVERY)):
        name = player.nodes[n % NODES].name
        player.after(at, lambda name=name: player.flap(name))  # type: ignore[misc]


def with_silences(player: Player, end: Millis) -> None:
    for at in range(BEGIN + EVERY, end, EVERY):
        player.after(at, player.silence)


CASES: dict[str, Callable[[Player, Millis], None]] = {
    "no faults": lambda _player, _end: None,
    "a node away for 60 s, each 12 h": with_flaps,
    "the cluster silent for 3 min, each 12 h": with_silences,
}


def main() -> None:
    asks = read(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else REQUESTS)
    days = (asks[-1].at - BEGIN) / HOUR / 24
    print(f"{len(asks)} requests in {days:.0f} days, {NODES} nodes of {GPUS} GPUs, load {LOAD}")
    print(
        f"{'':<42} {'mean wait':>9} {'p95':>7} {'longest':>8} {'after guarantee':>16}  planned starts later"
    )
    for title, trouble in CASES.items():
        player = Player(asks)
        trouble(player, asks[-1].at)
        seen = player.play()
        hours = sorted(wait / HOUR for wait in seen.waits)
        most = seen.most_later / HOUR
        later = f"{seen.later} of {seen.compared}, by {most:.2f} h" if seen.troubles else ""
        print(
            f"{title:<42} {statistics.fmean(hours):>7.2f} h {hours[len(hours) * 95 // 100]:>5.1f} h "
            f"{hours[-1]:>6.1f} h {f'{seen.broken} of {len(hours)}':>16}  {later} ({seen.seconds:.0f} s CPU)"
        )


if __name__ == "__main__":
    main()
