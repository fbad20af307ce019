"""The committed state, for everybody who reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gpudev_hub.core.commit import Change, Snapshot
from gpudev_hub.core.live_state import LiveState
from gpudev_hub.core.model import Claim, Guest, Millis, Presence, Reservation, State
from gpudev_hub.core.policy import Policy
from gpudev_hub.core.ports import ServerSight
from gpudev_hub.core.sentences import Text
from gpudev_hub.core.views.availability import Forecast
from gpudev_hub.core.views.reasons import Outlook


class View(LiveState):
    """Live records as of the last commit, and the last observations of their servers."""

    def __init__(self, policy: Policy, now: Callable[[], Millis]) -> None:
        super().__init__()
        self._policy = policy
        self.now = now
        """The service's clock."""
        self.n = 0
        """Number of the last commit."""
        self.at: Millis = 0
        """Time of the last commit."""
        self.sights: dict[tuple[str, int], ServerSight] = {}
        """Servers that were last observed present, by (reservation, attempt)."""
        self._outlook: Outlook | None = None
        self._forecast: Forecast | None = None

    def load(self, snapshot: Snapshot) -> None:
        self.n, self.at = snapshot.n, snapshot.at
        self.take_tables(snapshot)
        self._outlook = self._forecast = None

    def advance(self, n: int, at: Millis, changes: Iterable[Change]) -> None:
        self.n, self.at = n, at
        self._outlook = self._forecast = None
        for change in changes:
            self.apply(change.record, gone=change.gone)

    def see(self, sight: ServerSight) -> None:
        """Remember where a server is; forget it when it is gone, but not while it is unknown."""
        key = (sight.id, sight.attempt)
        if sight.presence is Presence.PRESENT:
            self.sights[key] = sight
        elif sight.presence is Presence.ABSENT:
            self.sights.pop(key, None)

    def get(self, ref: str, subject: str | None = None) -> Reservation | None:
        """Return the live reservation with that id, or one with that name that the subject owns or shares.

        Their own come first, then those that are not being stopped, then the latest.
        """
        found = self.reservations.get(ref)
        if found is not None or subject is None:
            return found
        named = (r for r in self.reservations.values() if r.request.name == ref)
        usable = (r for r in named if r.owner.subject == subject or r.guest(subject) is not None)
        return max(
            usable,
            key=lambda r: (r.owner.subject == subject, r.state is not State.STOPPING, r.seq),
            default=None,
        )

    def login_of(self, guest: Guest) -> str:
        """Return the guest's present login if known; it may have changed since the server was shared."""
        person = self.people.get(guest.subject)
        return guest.login if person is None else person.login

    def claim(self, record: Reservation) -> Claim | None:
        """Return the claim of the current attempt."""
        return self.claims.get((record.id, record.attempt))

    @property
    def outlook(self) -> Outlook:
        """Reasons and positions; valid until the next commit."""
        if self._outlook is None:
            self._outlook = Outlook(self._policy, self)
        return self._outlook

    @property
    def forecast(self) -> Forecast:
        """A dry run of requests made now; valid until the next commit."""
        if self._forecast is None:
            self._forecast = Forecast(self.outlook)
        return self._forecast

    def position(self, id: str) -> int | None:
        """Return the position in the queue of its pool (1 = next); ``None`` if not queued, or blocked."""
        return self.outlook.position(id)

    def reason(self, record: Reservation) -> Text | None:
        """Return why it waits, or its latest message; for an ended reservation, why it ended."""
        return self.outlook.explain(record, self.now() if record.ended_at is None else record.ended_at)

    def sight(self, id: str) -> ServerSight | None:
        """Return the last sight of the current attempt's server; ``None`` while it is not observed."""
        record = self.reservations.get(id)
        return None if record is None else self.sights.get((id, record.attempt))
