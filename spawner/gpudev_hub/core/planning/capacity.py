"""The load of a node and of an owner, indexed for quick search, and the room that was gained."""

from dataclasses import dataclass, field
from typing import Self

from gpudev_hub.core.model import MINUTE, Millis

from .resource_profile import FOREVER, Profile

_CLASS: Millis = 30 * MINUTE
"""Width of a class of lengths. A bound found for the shortest length of a class holds for the whole class.
Starts and ends are exact whatever the width."""


class NodeCapacity:
    """A node's load, with bounds that shorten the search for room."""

    __slots__ = ("_bounds", "gpus", "group", "holders", "name", "profile", "until")

    def __init__(self, name: str) -> None:
        self.name = name
        self.gpus = 0
        self.group = ""
        self.until: Millis = FOREVER
        self.profile = Profile()
        self.holders: dict[str, None] = {}
        """Keys of the occupations and placed demands on this node; a dict keeps their order."""
        self._bounds: dict[tuple[int, int], list[Millis]] = {}
        """``(GPUs, shortest length)`` of a class to ``[since, bound]``: no room in that interval."""

    def earliest(
        self, gpus: int, length: Millis, start: Millis, stop: Millis, lifted: bool = False
    ) -> Millis:
        """Return the first t in [start, stop] with room during [t, t + length), else a t after ``stop``.

        ``lifted``: the profile lacks a load that will come back, so bounds are neither used nor recorded.
        """
        if start > stop:
            return start
        most = self.gpus - gpus
        if lifted:
            return self.profile.earliest(start, length, most, stop)
        shortest = length // _CLASS * _CLASS or 1
        bound = self._bounds.get((gpus, shortest))
        if bound is None or start < bound[0]:
            bound = self._bounds[(gpus, shortest)] = [start, start]
        known = bound[1]
        if start <= known:
            if known > stop:
                return known
            start = bound[1] = self.profile.earliest(known, shortest, most, stop)
            if start > stop or shortest == length:
                return start
        return self.profile.earliest(start, length, most, stop)

    def loosen(self, start: Millis) -> None:
        """Lower the bounds after room was gained from ``start`` on."""
        for (_, shortest), bound in self._bounds.items():
            first = start - shortest + 1
            if bound[1] > first:
                bound[1] = max(first, bound[0])

    def fits(self, gpus: int, start: Millis, end: Millis) -> bool:
        """Return whether ``gpus`` fit all through [start, end)."""
        return end <= self.until and self.profile.peak(start, end) + gpus <= self.gpus

    def preference(self, start: Millis, end: Millis) -> tuple[int, Millis, str]:
        """Return a sort key for equally early nodes: smallest hole, nearest end of the running load, name."""
        free = self.gpus - self.profile.at(start)
        return free, abs(self.profile.idle_from(start) - end), self.name


class OwnerCapacity:
    """What an owner holds or has planned in a pool, and the caps (most GPUs at once) of their requests."""

    __slots__ = ("_caps", "profile", "total", "windows")

    def __init__(self) -> None:
        self.profile = Profile()
        self.total = 0
        """GPUs of all occupations that count and of all places, regardless of time."""
        self.windows: dict[str, tuple[Millis, Millis, int]] = {}
        """Key of a placed demand to ``(start, end, cap)``: the owner's limit during that time."""
        self._caps: dict[int, int] = {}
        """Cap to the number of windows with it. All are equal unless the owner's cap was changed."""

    def open_window(self, key: str, start: Millis, end: Millis, cap: int) -> None:
        """Record that ``cap`` holds during [start, end), the place of a demand."""
        self.windows[key] = (start, end, cap)
        self._caps[cap] = self._caps.get(cap, 0) + 1

    def close_window(self, key: str) -> None:
        cap = self.windows.pop(key)[2]
        self._caps[cap] -= 1
        if not self._caps[cap]:
            del self._caps[cap]

    def tightest(self, cap: int) -> int:
        """Return the least of ``cap`` and the caps of the placed demands."""
        return min(cap, min(self._caps)) if self._caps else cap

    def has_looser(self, cap: int) -> bool:
        """Return whether a placed demand has a cap above ``cap``."""
        return any(other > cap for other in self._caps)

    def never_binds(self, gpus: int, cap: int) -> bool:
        """Return whether no cap can delay a demand for ``gpus`` with this cap, wherever it is placed."""
        return self.total + gpus <= self.tightest(cap)

    def earliest(self, gpus: int, cap: int, length: Millis, start: Millis, stop: Millis) -> Millis:
        """Return the first t in [start, stop] from which caps allow ``gpus``, else a t after ``stop``."""
        t = start
        mixed = self.tightest(cap) < cap
        while t <= stop:
            t = self.profile.earliest(t, length, cap - gpus, stop)
            if t > stop or not mixed:
                break
            clear = t
            for first, last, other in self.windows.values():
                if other < cap:
                    passed = self.profile.last_above(max(t, first), min(t + length, last), other - gpus)
                    if passed is not None and passed > clear:
                        clear = passed
            if clear == t:
                break
            t = clear
        return t

    def fits(self, gpus: int, cap: int, start: Millis, end: Millis) -> bool:
        """Return whether caps allow ``gpus`` more all through [start, end)."""
        if self.profile.peak(start, end) + gpus > cap:
            return False
        return self.tightest(cap) == cap or self.first_conflict(gpus, start, end) is None

    def first_conflict(self, gpus: int, start: Millis, end: Millis) -> Millis | None:
        """Return the first instant of [start, end) at which ``gpus`` more pass the cap of a placed demand."""
        conflicts = (
            self.profile.first_above(max(start, first), min(end, last), cap - gpus)
            for first, last, cap in self.windows.values()
        )
        return min((t for t in conflicts if t is not None), default=None)


@dataclass(slots=True)
class Gains:
    """Room gained since it was last taken: for each node and owner, one interval that spans all of it."""

    nodes: dict[str, tuple[Millis, Millis]] = field(default_factory=dict)
    owners: dict[str, tuple[Millis, Millis, int]] = field(default_factory=dict)
    """The last number is the least that caps left the owner before. Demands for no more were not delayed."""

    def __bool__(self) -> bool:
        return bool(self.nodes or self.owners)

    def node(self, name: str, start: Millis, end: Millis) -> None:
        """Record that the node gained room during [start, end)."""
        known = self.nodes.get(name)
        self.nodes[name] = (start, end) if known is None else (min(start, known[0]), max(end, known[1]))

    def owner(self, owner: str, start: Millis, end: Millis, left: int) -> None:
        """Record that the owner, whose caps left ``left`` GPUs before, holds less during [start, end)."""
        known = self.owners.get(owner)
        self.owners[owner] = (
            (start, end, left)
            if known is None
            else (min(start, known[0]), max(end, known[1]), min(left, known[2]))
        )

    def add(self, others: Self) -> None:
        for name, interval in others.nodes.items():
            self.node(name, *interval)
        for owner, freed in others.owners.items():
            self.owner(owner, *freed)

    def take(self) -> Self:
        """Return all gains and forget them."""
        taken = type(self)(self.nodes, self.owners)
        self.nodes, self.owners = {}, {}
        return taken
