"""One node's and one owner's load with what makes searching it quick, and the account of room gained."""

from dataclasses import dataclass, field
from typing import Self

from gpudev_hub.core.model import MINUTE, Millis

from .resource_profile import FOREVER, Profile

#: Lengths are put into classes of half an hour: what was learnt for the shortest length of a class is a lower
#: bound for all of them. Starts and ends are exact whatever this is.
_CLASS: Millis = 30 * MINUTE


class NodeCapacity:
    """A node: its load, and per class of demands an instant before which there is no room."""

    __slots__ = ("_bounds", "gpus", "group", "holders", "name", "profile", "until")

    def __init__(self, name: str) -> None:
        self.name = name
        self.gpus = 0
        self.group = ""
        self.until: Millis = FOREVER
        self.profile = Profile()
        #: Keys of the occupations and placed demands on this node (a dict for its steady order).
        self.holders: dict[str, None] = {}
        #: (GPUs, shortest length of a class) -> [since, bound]: no room for the class in [since, bound).
        self._bounds: dict[tuple[int, int], list[Millis]] = {}

    def earliest(
        self, gpus: int, length: Millis, start: Millis, stop: Millis, lifted: bool = False
    ) -> Millis:
        """The first t in [start, stop] with room for `gpus` during [t, t + length), else some t past `stop`.

        `lifted`: the profile lacks a load that will come back, so bounds are neither used nor learnt.
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
        """Room was gained from `start` on: windows that reach past it may be free now."""
        for (_, shortest), bound in self._bounds.items():
            first = start - shortest + 1
            if bound[1] > first:
                bound[1] = max(first, bound[0])

    def fits(self, gpus: int, start: Millis, end: Millis) -> bool:
        """Whether there is room for `gpus` all through [start, end)."""
        return end <= self.until and self.profile.peak(start, end) + gpus <= self.gpus

    def preference(self, start: Millis, end: Millis) -> tuple[int, Millis, str]:
        """Among equally early nodes the least wins: smallest hole, then nearest end of what is running."""
        free = self.gpus - self.profile.at(start)
        return free, abs(self.profile.idle_from(start) - end), self.name


class OwnerCapacity:
    """An owner: what he holds and is going to hold in the pool, and the caps of his queued requests."""

    __slots__ = ("_caps", "profile", "total", "windows")

    def __init__(self) -> None:
        self.profile = Profile()
        #: GPUs of all his occupations that count and all his places together, at whatever time.
        self.total = 0
        #: Key of a placed demand -> (start, end, cap): all through it the owner holds at most `cap`.
        self.windows: dict[str, tuple[Millis, Millis, int]] = {}
        #: Cap -> how many windows have it. All the same, except after the owner's cap was changed.
        self._caps: dict[int, int] = {}

    def open_window(self, key: str, start: Millis, end: Millis, cap: int) -> None:
        """A demand was placed: its cap holds all through [start, end)."""
        self.windows[key] = (start, end, cap)
        self._caps[cap] = self._caps.get(cap, 0) + 1

    def close_window(self, key: str) -> None:
        """The demand is no longer placed."""
        cap = self.windows.pop(key)[2]
        self._caps[cap] -= 1
        if not self._caps[cap]:
            del self._caps[cap]

    def tightest(self, cap: int) -> int:
        """The least of this cap and those of the placed demands."""
        return min(cap, min(self._caps)) if self._caps else cap

    def has_looser(self, cap: int) -> bool:
        """Whether a placed demand has a cap above this one."""
        return any(other > cap for other in self._caps)

    def never_binds(self, gpus: int, cap: int) -> bool:
        """Whether no cap can delay a demand for so many GPUs with this cap, wherever it is placed."""
        return self.total + gpus <= self.tightest(cap)

    def earliest(self, gpus: int, cap: int, length: Millis, start: Millis, stop: Millis) -> Millis:
        """The first t in [start, stop] from which caps allow so many GPUs, else some t past `stop`."""
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
        """Whether caps allow so many GPUs more all through [start, end)."""
        if self.profile.peak(start, end) + gpus > cap:
            return False
        return self.tightest(cap) == cap or self.first_conflict(gpus, start, end) is None

    def first_conflict(self, gpus: int, start: Millis, end: Millis) -> Millis | None:
        """The first instant of [start, end) at which `gpus` more would pass the cap of a placed demand."""
        conflicts = (
            self.profile.first_above(max(start, first), min(end, last), cap - gpus)
            for first, last, cap in self.windows.values()
        )
        return min((t for t in conflicts if t is not None), default=None)


@dataclass(slots=True)
class Gains:
    """Where room was gained since somebody last looked: per node and per owner one interval around it all."""

    nodes: dict[str, tuple[Millis, Millis]] = field(default_factory=dict)
    #: The last number is the least that caps had left him before: who needs no more was not delayed.
    owners: dict[str, tuple[Millis, Millis, int]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.nodes or self.owners)

    def node(self, name: str, start: Millis, end: Millis) -> None:
        """The node gained room during [start, end)."""
        known = self.nodes.get(name)
        self.nodes[name] = (start, end) if known is None else (min(start, known[0]), max(end, known[1]))

    def owner(self, owner: str, start: Millis, end: Millis, left: int) -> None:
        """The owner, whose caps had `left` GPUs left for him before, holds less during [start, end)."""
        known = self.owners.get(owner)
        self.owners[owner] = (
            (start, end, left)
            if known is None
            else (min(start, known[0]), max(end, known[1]), min(left, known[2]))
        )

    def add(self, others: Self) -> None:
        """Those others too."""
        for name, interval in others.nodes.items():
            self.node(name, *interval)
        for owner, freed in others.owners.items():
            self.owner(owner, *freed)

    def take(self) -> Self:
        """All of it; nothing is left here."""
        taken = type(self)(self.nodes, self.owners)
        self.nodes, self.owners = {}, {}
        return taken
