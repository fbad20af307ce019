"""Extensions of claims: how far a claim can run, and how demands give way within their promises."""

from dataclasses import replace

from gpudev_hub.core.model import MINUTE, Millis, Place

from .list_scheduling import Arrangement, PromiseOf, Wanted, arrange
from .timetable import Demand, Occupation, Timetable


def longest_extension(timetable: Timetable, key: str, now: Millis, limit: Millis) -> Millis:
    """Return the latest end <= ``limit`` that the claim can have with every placed demand held.

    It is never before the present end, and exactly the present end on a node that is down.
    """
    claim = timetable.occupations[key]
    start = max(claim.end, now)
    longest = max(start, limit)
    for name in claim.nodes:
        node = timetable.holding(name)
        if node is None:
            return claim.end
        full = node.profile.first_above(start, longest, node.gpus - claim.gpus)
        longest = min(longest, node.until, longest if full is None else full)
    account = timetable.owners.get(claim.owner)
    if claim.counts and account is not None:
        conflict = account.first_conflict(claim.gpus * len(claim.nodes), start, longest)
        longest = longest if conflict is None else conflict
    return claim.end if longest <= start else longest


def extend(
    timetable: Timetable, key: str, new_end: Millis, now: Millis, promise_of: PromiseOf, keep: bool = True
) -> Arrangement | None:
    """Let the claim end at ``new_end``, all or nothing; demands in its way get places by their promises.

    Younger demands give way to those, within their own promises (``list_scheduling``). If refused, nothing
    changes: the result names the obstacle, or is ``None`` if no demand is in the way. With ``keep`` false,
    nothing changes either way.
    """
    claim = timetable.occupations[key]
    if new_end <= claim.end:
        return Arrangement({})
    nodes = [timetable.holding(name) for name in claim.nodes]
    if None in nodes:
        return None
    undo = _force(timetable, claim, new_end)
    # The demands in the way are lifted by now. What still exceeds the node are other claims, which stay.
    granted = all(node is not None and node.fits(0, max(claim.end, now), new_end) for node in nodes)
    arranged = Arrangement({}) if granted else None
    if granted and undo:
        wanted = [Wanted(demand, latest=promise_of(demand.key), left=place) for demand, place in undo]
        arranged = arrange(timetable, wanted, now, promise_of, keep=keep)
    if arranged is None or arranged.obstacle is not None or not keep:
        _restore(timetable, claim, undo)
    return arranged


def longest_grantable(
    timetable: Timetable, key: str, now: Millis, limit: Millis, promise_of: PromiseOf, step: Millis = MINUTE
) -> Millis:
    """Return the latest end <= ``limit`` that bisection finds ``extend`` to grant now.

    It tries whole steps past the present end, between the longest end that moves no demand and ``limit``.
    """
    claim = timetable.occupations[key]
    longest = longest_extension(timetable, key, now, limit)

    def granted(end: Millis) -> bool:
        found = extend(timetable, key, end, now, promise_of, keep=False)
        return found is not None and found.obstacle is None

    if longest >= limit or granted(limit):
        return max(limit, claim.end)
    low, high = (longest - claim.end) // step, (limit - claim.end - 1) // step
    while low < high:
        middle = (low + high + 1) // 2
        end = claim.end + middle * step
        if granted(end):
            low, longest = middle, max(longest, end)
        else:
            high = middle - 1
    return longest


def _force(timetable: Timetable, claim: Occupation, new_end: Millis) -> list[tuple[Demand, Place]]:
    """Give the claim its new end, and lift the demands that no longer fit; the result allows to undo it."""
    timetable.vacate(claim.key)
    timetable.occupy(replace(claim, end=new_end))
    owner = claim.owner if claim.counts else None
    return timetable.evict(claim.nodes, owner, claim.end, new_end)


def _restore(timetable: Timetable, claim: Occupation, undo: list[tuple[Demand, Place]]) -> None:
    timetable.vacate(claim.key)
    timetable.occupy(claim)
    timetable.loosen(claim.nodes, claim.end)
    for demand, place in undo:
        timetable.put(demand, place)
