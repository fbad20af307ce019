"""Letting a claim run longer: how far it can, and making room for it within everybody's promise."""

from collections.abc import Callable
from dataclasses import replace

from .ledger import Demand, Ledger, Occupation
from .model import MINUTE, Millis, Place

#: When a queued request must have started at the latest.
PromiseOf = Callable[[str], Millis]
#: Places that one extension may move: it is made durable as a whole, and a store takes only so much at once.
MOST_MOVED = 32


def longest_extension(ledger: Ledger, key: str, now: Millis, limit: Millis) -> Millis:
    """The largest end <= `limit` that the claim can have with every placed demand held where it is.

    Never before the end it has; exactly that one on a node that is down.
    """
    claim = ledger.occupations[key]
    start = max(claim.end, now)
    longest = max(start, limit)
    for name in claim.nodes:
        track = ledger.holding(name)
        if track is None:
            return claim.end
        full = track.profile.first_above(start, longest, track.gpus - claim.gpus)
        longest = min(longest, track.until, longest if full is None else full)
    account = ledger.owners.get(claim.owner)
    if claim.counts and account is not None:
        conflict = account.first_conflict(claim.gpus * len(claim.nodes), start, longest)
        longest = longest if conflict is None else conflict
    return claim.end if longest <= start else longest


def in_the_way(ledger: Ledger, key: str, now: Millis, new_end: Millis) -> list[str]:
    """The placed demands, in queue order, that could not stay where they are if the claim ended then."""
    claim = ledger.occupations[key]
    if longest_extension(ledger, key, now, new_end) >= new_end:
        return []
    undo = _force(ledger, claim, new_end)
    lifted = [demand.key for demand, _ in undo]
    _restore(ledger, claim, undo)
    return lifted


def extend(
    ledger: Ledger, key: str, new_end: Millis, now: Millis, promise_of: PromiseOf, keep: bool = True
) -> dict[str, Place] | None:
    """All or nothing: the claim ends at `new_end`; whoever was in its way gets another place by his promise.

    Returns the moved places, or None when it is refused, and then nothing has changed. With `keep` false
    nothing has changed either way.
    """
    claim = ledger.occupations[key]
    if new_end <= claim.end:
        return {}
    tracks = [ledger.holding(name) for name in claim.nodes]
    if None in tracks:
        return None
    undo = _force(ledger, claim, new_end)
    # With the placed demands in the way gone, what is still too much is other claims, and they stay.
    granted = all(track is not None and track.fits(0, max(claim.end, now), new_end) for track in tracks)
    granted = granted and len(undo) <= MOST_MOVED
    moves: dict[str, Place] = {}
    for demand, _ in undo if granted else ():
        place = ledger.search(demand, max(now, demand.not_before), promise_of(demand.key))
        if place is None:
            granted = False
            break
        ledger.put(demand, place)
        moves[demand.key] = place
    if not (granted and keep):
        for moved, place in moves.items():
            ledger.lift(moved)
            ledger.loosen(place.nodes, place.start)
        _restore(ledger, claim, undo)
    else:
        for demand, old in undo:
            ledger.gain_place(demand, old)
    return moves if granted else None


def longest_grantable(
    ledger: Ledger, key: str, now: Millis, limit: Millis, promise_of: PromiseOf, step: Millis = MINUTE
) -> Millis:
    """The longest end <= `limit` found that `extend` grants in this state: whole steps past the present end.

    Found by trying: halving between what needs nobody moved, and the limit. Every answer was itself granted.
    """
    claim = ledger.occupations[key]
    longest = longest_extension(ledger, key, now, limit)
    if longest >= limit or extend(ledger, key, limit, now, promise_of, keep=False) is not None:
        return max(limit, claim.end)
    low, high = (longest - claim.end) // step, (limit - claim.end - 1) // step
    while low < high:
        middle = (low + high + 1) // 2
        end = claim.end + middle * step
        if extend(ledger, key, end, now, promise_of, keep=False) is not None:
            low, longest = middle, max(longest, end)
        else:
            high = middle - 1
    return longest


def _force(ledger: Ledger, claim: Occupation, new_end: Millis) -> list[tuple[Demand, Place]]:
    """Give the claim its new end and lift whoever no longer fits, which is enough to undo it."""
    ledger.vacate(claim.key)
    ledger.occupy(replace(claim, end=new_end))
    owner = claim.owner if claim.counts else None
    return ledger.evict(claim.nodes, owner, claim.end, new_end)


def _restore(ledger: Ledger, claim: Occupation, undo: list[tuple[Demand, Place]]) -> None:
    ledger.vacate(claim.key)
    ledger.occupy(claim)
    ledger.loosen(claim.nodes, claim.end)
    for demand, place in undo:
        ledger.put(demand, place)
