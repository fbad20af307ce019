"""The committed state, for everybody who reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gpudev_hub.core.availability import Forecast
from gpudev_hub.core.commit import Change, Snapshot
from gpudev_hub.core.model import Claim, Millis, MintedId, Node, Policy, Presence, Reservation, State
from gpudev_hub.core.ports import ServerSight
from gpudev_hub.core.reasons import Outlook


class View:
    """Live records as of the last commit, and what was last seen of their servers."""

    def __init__(self, policy: Policy, now: Callable[[], Millis]) -> None:
        self._policy = policy
        self.now = now
        """The service's clock."""
        self.n = 0
        """Number of the last commit."""
        self.at: Millis = 0
        """Time of the last commit."""
        self.reservations: dict[str, Reservation] = {}
        self.claims: dict[tuple[str, int], Claim] = {}
        self.minted: dict[str, MintedId] = {}
        self.nodes: dict[str, Node] = {}
        self.sights: dict[tuple[str, int], ServerSight] = {}
        """Servers that were last seen present, by (reservation, attempt)."""
        self._outlook: Outlook | None = None
        self._forecast: Forecast | None = None

    def load(self, snapshot: Snapshot) -> None:
        """Show a snapshot from now on."""
        self.n, self.at = snapshot.n, snapshot.at
        self.reservations = dict(snapshot.reservations)
        self.claims = dict(snapshot.claims)
        self.minted = dict(snapshot.minted)
        self.nodes = dict(snapshot.nodes)
        self._outlook = self._forecast = None

    def apply(self, n: int, at: Millis, changes: Iterable[Change]) -> None:
        """Show what a commit changed."""
        self.n, self.at = n, at
        self._outlook = self._forecast = None
        for change in changes:
            match change.record:
                case Reservation() as record:
                    if change.gone:
                        self.reservations.pop(record.id, None)
                    else:
                        self.reservations[record.id] = record
                case Claim() as claim:
                    if change.gone:
                        self.claims.pop(claim.key, None)
                    else:
                        self.claims[claim.key] = claim
                case MintedId() as minted:
                    if change.gone:
                        self.minted.pop(minted.id, None)
                    else:
                        self.minted[minted.id] = minted
                case Node() as node:
                    if change.gone:
                        self.nodes.pop(node.name, None)
                    else:
                        self.nodes[node.name] = node

    def see(self, sight: ServerSight) -> None:
        """Remember where a server is; one that is gone is forgotten, one that is unknown is not."""
        key = (sight.id, sight.attempt)
        if sight.presence is Presence.PRESENT:
            self.sights[key] = sight
        elif sight.presence is Presence.ABSENT:
            self.sights.pop(key, None)

    def get(self, ref: str, subject: str | None = None) -> Reservation | None:
        """The live reservation of that id, or the subject's of that name.

        Of two with the name, the one that is not being stopped, else the latest.
        """
        found = self.reservations.get(ref)
        if found is not None or subject is None:
            return found
        mine = (r for r in self.reservations.values() if r.owner.subject == subject)
        named = (r for r in mine if r.request.name == ref)
        return max(named, key=lambda r: (r.state is not State.STOPPING, r.seq), default=None)

    def claim(self, record: Reservation) -> Claim | None:
        """The claim of the current attempt."""
        return self.claims.get((record.id, record.attempt))

    @property
    def outlook(self) -> Outlook:
        """The records as a whole; good until the next commit."""
        if self._outlook is None:
            self._outlook = Outlook(self._policy, self.reservations, self.claims, self.nodes)
        return self._outlook

    @property
    def forecast(self) -> Forecast:
        """What would become of requests made now; good until the next commit."""
        if self._forecast is None:
            self._forecast = Forecast(self.outlook)
        return self._forecast

    def position(self, id: str) -> int | None:
        """Place in the queue of its pool, 1 = next; ``None`` if it is not queued, or blocked."""
        return self.outlook.position(id)

    def reason(self, record: Reservation) -> str | None:
        """In words: why it waits, or the latest thing worth telling; or, of one that has ended, why."""
        return self.outlook.explain(record, self.now() if record.ended_at is None else record.ended_at)

    def sight(self, id: str) -> ServerSight | None:
        """Where the server of the current attempt listens; ``None`` while it is not seen."""
        record = self.reservations.get(id)
        return None if record is None else self.sights.get((id, record.attempt))
