"""Time the planning of 1,000 mixed requests on 4 nodes of 8 GPUs, all of which are busy.

CPU time, medians and maxima over fresh plans. In `hours`, hold times are whole hours; in `minutes`, any
number of minutes. `capped` has 50 owners with at most 16 GPUs each; the other mixes never reach a limit.
``python -m benchmarks.plan``, or ``python -m benchmarks.plan NODES QUEUED ROUNDS`` for another size.
"""

import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from gpudev_hub.core.model import HOUR, MINUTE, Millis
from gpudev_hub.core.planning.plan import Demand, Plan, PlanNode

NODES, QUEUED, ROUNDS = map(int, sys.argv[1:]) if sys.argv[1:] else (4, 1_000, 9)
PROBES = 200
RELEASES = 4
SLICE_S = 0.015  # of the 20 ms, so that the current step can finish in time
SHAPES = ((1, 1), (2, 1), (4, 1), (8, 1), (8, 2))
WEIGHTS = (40, 10, 20, 20, 10)
LENGTHS: dict[str, Callable[[random.Random], Millis]] = {
    "hours": lambda rng: rng.randint(1, 8) * HOUR,
    "minutes": lambda rng: rng.randint(60, 480) * MINUTE,
}
OWNERS = {"": (200, 10**6), "capped": (50, 16)}


def busy_plan(rng: random.Random) -> Plan:
    """Return a plan in which every GPU is taken for up to 8 more hours."""
    plan = Plan(PlanNode(f"node-{n}", 8, "rack") for n in range(NODES))
    for node in range(NODES):
        for slot in range(8):
            end = rng.randint(1, 480) * MINUTE
            plan.occupy(f"{node}.{slot}", f"holder-{slot}", 1, (f"node-{node}",), 0, end)
    plan.compress(0, lambda: False)
    return plan


def queue(rng: random.Random, lengths: str, owners: int, cap: int) -> list[Demand]:
    demands = []
    for order in range(QUEUED):
        gpus, nodes = rng.choices(SHAPES, WEIGHTS)[0]
        length, owner = LENGTHS[lengths](rng), f"owner-{rng.randrange(owners)}"
        demands.append(Demand(f"r{order}", owner, gpus, nodes, length, cap, order))
    return demands


def milliseconds(work: Callable[..., object], *arguments: object) -> float:
    started = time.process_time()
    work(*arguments)
    return (time.process_time() - started) * 1_000


def insert(plan: Plan, demand: Demand) -> None:
    place = plan.earliest(demand, 0)
    assert place is not None
    plan.put(demand, place)


def insert_all(plan: Plan, demands: list[Demand]) -> None:
    for demand in demands:
        insert(plan, demand)


def passed(instant: float) -> bool:
    return time.perf_counter() >= instant


def cascade(plan: Plan, now: Millis) -> list[float]:
    """Run the cascade in slices of at most 20 ms; return the wall time of each slice."""
    slices = []
    done = False
    while not done:
        started = time.perf_counter()
        _, done = plan.compress(now, partial(passed, started + SLICE_S))
        slices.append((time.perf_counter() - started) * 1_000)
    return slices


def measure(lengths: str, owners: int, cap: int) -> dict[str, list[float]]:
    """Return milliseconds of each step, one figure a repetition."""
    times: dict[str, list[float]] = {"all": [], "one": [], "hole": [], "slice": [], "cascade": []}
    for round_ in range(ROUNDS):
        rng = random.Random(round_)
        plan, demands = busy_plan(rng), queue(rng, lengths, owners, cap)
        times["all"].append(milliseconds(insert_all, plan, demands))
        plan.compress(0, lambda: False)
        for n, demand in enumerate(rng.sample(demands, PROBES)):
            probe = replace(demand, key=f"probe-{n}", order=QUEUED)
            times["one"].append(milliseconds(insert, plan, probe))
            plan.lift(probe.key)
        plan.compress(0, lambda: False)
        for node in range(RELEASES):
            now = (node + 1) * MINUTE
            plan.vacate(f"{node}.{rng.randrange(8)}", now)
            times["hole"].append(milliseconds(plan.fill_holes, now))
            slices = cascade(plan, now)
            times["slice"].extend(slices)
            times["cascade"].append(sum(slices))
    return times


ROWS = {
    "all": (f"{QUEUED} requests into an empty queue", "20"),
    "one": ("one more into the full plan", "0.5"),
    "hole": ("early release: hole filled", "15"),
    "slice": ("cascade: one slice (wall)", "20"),
    "cascade": ("cascade: all of it (wall)", ""),
}


def main() -> None:
    print(f"{'ms, median (max)':<36} {'at most':>8}", end="")
    cases = [(lengths, label) for label in OWNERS for lengths in LENGTHS]
    for lengths, label in cases:
        print(f" {f'{lengths} {label}'.strip():>17}", end="")
    print()
    measured = {case: measure(case[0], *OWNERS[case[1]]) for case in cases}
    for row, (title, target) in ROWS.items():
        print(f"{title:<36} {target:>8}", end="")
        for case in cases:
            figures = measured[case][row]
            print(f" {f'{statistics.median(figures):.3g} ({max(figures):.3g})':>17}", end="")
        print()


if __name__ == "__main__":
    main()
