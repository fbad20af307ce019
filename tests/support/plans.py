"""Reads from a plan for tests."""

from __future__ import annotations

from gpudev_hub.core.model import Millis, Place
from gpudev_hub.core.planning import extension
from gpudev_hub.core.planning.plan import Demand, Plan


def placed_in(plan: Plan) -> list[tuple[Demand, Place]]:
    """Return all placed demands in queue order."""
    return list(plan.timetable.in_order(plan.timetable.placed))


def free_on(plan: Plan, name: str, at: Millis) -> int:
    """Return the node's free GPUs at that instant; 0 on a node that is down or has ended."""
    node = plan.timetable.up.get(name)
    return 0 if node is None or at >= node.until else max(0, node.gpus - node.profile.at(at))


def longest_extension(plan: Plan, key: str, now: Millis, limit: Millis) -> Millis:
    """Return the latest end <= ``limit`` of the claim with all demands held; at least its present end."""
    return extension.longest_extension(plan.timetable, key, now, limit)
