"""The exact search for the earliest place of a demand.

Of nodes that are free equally early, ``NodeCapacity.preference`` decides which.
"""

from gpudev_hub.core.model import Millis, Place

from .capacity import NodeCapacity, OwnerCapacity
from .resource_profile import FOREVER
from .timetable import Demand, Timetable


def earliest_place(
    timetable: Timetable, demand: Demand, start: Millis, stop: Millis, lifted: tuple[str, ...] = ()
) -> Place | None:
    """Return the earliest place that starts in [start, stop], with everything in the timetable held.

    ``lifted``: nodes whose profile lacks a load that will come back (the place of a demand that is being
    improved). No bounds are recorded for them.
    """
    total, cap = demand.total, demand.cap
    if total > cap:
        return None
    account = timetable.owners.get(demand.owner)
    if account is not None:
        if account.never_binds(total, cap):
            account = None
        else:
            start = account.earliest(total, cap, demand.length, start, stop)
    if start > stop:
        return None
    find = _on_one_node if demand.nodes == 1 else _on_several_nodes
    return find(timetable, demand, start, stop, account, lifted)


def _on_one_node(
    timetable: Timetable,
    demand: Demand,
    start: Millis,
    stop: Millis,
    account: OwnerCapacity | None,
    lifted: tuple[str, ...],
) -> Place | None:
    gpus, length = demand.gpus, demand.length
    best: list[NodeCapacity] = []
    for name, node in timetable.up.items():
        if node.gpus < gpus or name in demand.excluded:
            continue
        last = stop if stop + length <= node.until else node.until - length
        t = node.earliest(gpus, length, start, last, name in lifted)
        while account is not None and t <= last:
            allowed = account.earliest(demand.total, demand.cap, length, t, last)
            if allowed == t:
                break
            t = node.earliest(gpus, length, allowed, last, name in lifted)
        if t < stop and t <= last:
            best, stop = [node], t
        elif t == stop and t <= last:
            best.append(node)
    if not best:
        return None
    end = stop + length
    if len(best) > 1:
        best.sort(key=lambda node: node.preference(stop, end))
    return Place(stop, end, (best[0].name,))


def _on_several_nodes(
    timetable: Timetable,
    demand: Demand,
    start: Millis,
    stop: Millis,
    account: OwnerCapacity | None,
    lifted: tuple[str, ...],
) -> Place | None:
    groups: dict[str, list[NodeCapacity]] = {}
    for name, node in timetable.up.items():
        if node.gpus >= demand.gpus and name not in demand.excluded:
            groups.setdefault(node.group, []).append(node)
    best: tuple[Millis, list[tuple[int, Millis, str]]] | None = None
    for group in groups.values():
        if len(group) < demand.nodes:
            continue
        t = _start_in_group(demand, group, start, stop, account, lifted)
        if t > stop:
            continue
        free = [node for node in group if node.fits(demand.gpus, t, t + demand.length)]
        choice = sorted(node.preference(t, t + demand.length) for node in free)[: demand.nodes]
        if best is None or (t, choice) < best:
            best = (t, choice)
            stop = t
    if best is None:
        return None
    t, choice = best
    return Place(t, t + demand.length, tuple(sorted(name for _, _, name in choice)))


def _start_in_group(
    demand: Demand,
    group: list[NodeCapacity],
    start: Millis,
    stop: Millis,
    account: OwnerCapacity | None,
    lifted: tuple[str, ...],
) -> Millis:
    """Return the first t in [start, stop] at which enough nodes of the group are free, else a later t."""
    gpus, length = demand.gpus, demand.length
    t = start
    firsts = [start - 1] * len(group)
    while True:
        for i, node in enumerate(group):
            if firsts[i] < t:
                last = min(stop, node.until - length)
                first = node.earliest(gpus, length, t, last, node.name in lifted)
                firsts[i] = first if first <= last else FOREVER
        common = sorted(firsts)[demand.nodes - 1]
        if common > stop:
            return FOREVER
        if common == t:
            if account is None:
                return t
            common = account.earliest(demand.total, demand.cap, length, t, stop)
            if common == t:
                return t
            if common > stop:
                return FOREVER
        t = common
