"""The planner's rules once more, by brute force and with no code of the planner's.

Works on lists of what is taken: no profiles, no search structure, nothing remembered. Loads only grow at
starts and only fall at ends, so it is enough to look at the beginning of a window and at every start within
it, and an earliest start is either the first instant allowed or somebody's end.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpudev_hub.core.model import Millis, Place
from gpudev_hub.core.planning.plan import Demand, PlanNode

NEVER: Millis = 10**15


@dataclass(frozen=True)
class Taken:
    """A claim or a place: GPUs on nodes during [start, end)."""

    owner: str | None
    """None: counts against nobody's cap."""
    gpus: int
    nodes: tuple[str, ...]
    start: Millis
    end: Millis
    cap: int | None = None
    """For a place: the most that its owner may hold at any instant of it."""


def taken_by(demand: Demand, place: Place) -> Taken:
    return Taken(demand.owner, demand.gpus, place.nodes, place.start, place.end, demand.cap)


def load(taken: Iterable[Taken], node: str, at: Millis) -> int:
    return sum(t.gpus for t in taken if t.start <= at < t.end and node in t.nodes)


def held(taken: Iterable[Taken], owner: str, at: Millis) -> int:
    return sum(t.gpus * len(t.nodes) for t in taken if t.start <= at < t.end and t.owner == owner)


def instants(taken: Sequence[Taken], start: Millis, end: Millis) -> list[Millis]:
    return sorted({start, *(t.start for t in taken if start < t.start < end)})


def cap_allows(taken: Sequence[Taken], demand: Demand, start: Millis) -> bool:
    end = start + demand.length
    gpus = demand.gpus * demand.nodes
    own = [t for t in taken if t.owner == demand.owner]
    for at in instants(own, start, end):
        together = held(own, demand.owner, at) + gpus
        caps = [t.cap for t in own if t.cap is not None and t.start <= at < t.end]
        if together > min([demand.cap, *caps]):
            return False
    return True


def node_allows(node: PlanNode, taken: Sequence[Taken], demand: Demand, start: Millis) -> bool:
    end = start + demand.length
    if node.name in demand.excluded or (node.until is not None and end > node.until):
        return False
    there = [t for t in taken if node.name in t.nodes]
    return all(load(there, node.name, at) + demand.gpus <= node.gpus for at in instants(there, start, end))


def feasible(nodes: dict[str, PlanNode], taken: Sequence[Taken], demand: Demand, place: Place) -> bool:
    """Whether the demand may have this place beside everything taken."""
    return (
        place.end - place.start == demand.length
        and len(set(place.nodes)) == len(place.nodes) == demand.nodes
        and all(name in nodes for name in place.nodes)
        and len({nodes[name].group for name in place.nodes}) == 1
        and all(node_allows(nodes[name], taken, demand, place.start) for name in place.nodes)
        and cap_allows(taken, demand, place.start)
    )


def earliest(
    nodes: dict[str, PlanNode],
    taken: Sequence[Taken],
    demand: Demand,
    now: Millis,
    before: Millis = NEVER,
) -> Millis | None:
    """The earliest start, strictly before `before`, of a demand that is not among what is taken."""
    place = earliest_place(nodes, taken, demand, now, before)
    return None if place is None else place.start


def earliest_place(
    nodes: dict[str, PlanNode],
    taken: Sequence[Taken],
    demand: Demand,
    now: Millis,
    before: Millis = NEVER,
) -> Place | None:
    """The earliest place: on the fullest nodes, then where what runs ends next to its end, then by name."""
    for start in sorted({now, *(t.end for t in taken if now < t.end < before)}):
        if start >= before:
            break
        end = start + demand.length
        choices = []
        for group in {node.group for node in nodes.values()}:
            free = sorted(
                (
                    node.gpus - load(taken, node.name, start),
                    abs(idle_from(taken, node.name, start) - end),
                    node.name,
                )
                for node in nodes.values()
                if node.group == group and node_allows(node, taken, demand, start)
            )
            if len(free) >= demand.nodes and cap_allows(taken, demand, start):
                choices.append(free[: demand.nodes])
        if choices:
            return Place(start, end, tuple(sorted(name for _, _, name in min(choices))))
    return None


def idle_from(taken: Sequence[Taken], node: str, at: Millis) -> Millis:
    """The first instant from `at` on at which nothing is taken of the node."""
    there = [t for t in taken if node in t.nodes]
    return next(
        end for end in sorted({at, *(t.end for t in there if t.end > at)}) if not load(there, node, end)
    )


def longest_extension(
    nodes: dict[str, PlanNode], others: Sequence[Taken], claim: Taken, now: Millis, limit: Millis
) -> Millis:
    """The largest end up to `limit` that a claim can have beside all others, at least the end it has."""
    start = max(claim.end, now)
    if any(name not in nodes for name in claim.nodes):
        return claim.end
    untils = [until for name in claim.nodes if (until := nodes[name].until) is not None]
    limit = min([limit, *untils])
    for at in instants(others, start, limit) if start < limit else []:
        full = any(load(others, name, at) + claim.gpus > nodes[name].gpus for name in claim.nodes)
        caps = [
            t.cap for t in others if t.owner == claim.owner and t.cap is not None and t.start <= at < t.end
        ]
        capped = (
            claim.owner is not None
            and caps
            and held(others, claim.owner, at) + claim.gpus * len(claim.nodes) > min(caps)
        )
        if full or capped:
            return claim.end if at == start else at
    return max(claim.end, limit) if limit > start else claim.end
