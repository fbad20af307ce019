"""Effects of commits, by kind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from gpudev_hub.core.access_model import Access, Person
from gpudev_hub.core.commit import Commit
from gpudev_hub.core.effects import CutSessions, Effect, RevokeAccess, StartServer, StopServer, Tell, Warn
from gpudev_hub.core.events import Event
from gpudev_hub.core.model import Claim, Reservation, State
from gpudev_hub.service.context import Context
from gpudev_hub.service.observations import Observations

from .hub import HubCalls
from .revocations import Revocations
from .shares import HubShares
from .starts import Starts
from .stops import Stops
from .tasks import EffectTasks


class Effects:
    """Performs effects of commits, and continues them when something changes."""

    def __init__(self, context: Context, observations: Observations, post: Callable[[Event], None]) -> None:
        self._remembered = context.remembered
        self._readiness = observations.readiness
        self._tasks = tasks = EffectTasks(context.adapters.clock)
        self.hub = HubCalls(context)
        self.shares = HubShares(context, tasks)
        self.starts = Starts(context, self.hub, tasks, post, self._opened)
        self.stops = Stops(context, self.hub, tasks, observations.looked)
        self._revocations = Revocations(context, self.hub, tasks)

    def resume(self) -> None:
        """Continue after a restart with what the previous service may have left half done."""
        view = self._remembered.view
        for record in list(view.reservations.values()):
            if record.state is State.READY and record.stopped_at is None:
                # The previous service may have stopped in the middle of this start.
                self.starts.start(record.id, record.attempt)
        self.shares.check_all(everything=True)
        for person in view.people.values():
            if person.access is Access.REVOKED:
                self._revocations.revoke(person.subject)

    def perform(self, effects: Sequence[Effect]) -> None:
        """Perform effects that are durable now."""
        for effect in effects:
            match effect:
                case StartServer(id, attempt):
                    self.starts.start(id, attempt)
                case StopServer(id, attempt):
                    self.stops.stop(id, attempt, self._remembered.get(id))
                case Warn(id, minutes):
                    self._remembered.warn(id, minutes)
                case RevokeAccess(subject):
                    self._revocations.revoke(subject)
                case CutSessions(id, subject):
                    self._remembered.cut(id, subject)
                case Tell(id, message):
                    self._remembered.tell(id, message)

    def committed(self, commit: Commit, changed: Collection[Reservation]) -> None:
        """Look again at the records in a commit; ``changed``: its reservations, as they are now."""
        for change in commit.changes:
            if isinstance(change.record, Reservation):
                self.poke(change.record.id)
            elif isinstance(change.record, Claim):
                self.poke(change.record.reservation)
            elif isinstance(change.record, Person):
                self.shares.person_changed(change.record.subject)
        for record in changed:
            self.shares.changed(record)
            if not record.live:
                self.starts.forget(record.id)

    def poke(self, id: str) -> None:
        """Continue at once with the effects of a reservation."""
        self._tasks.poke(id)

    async def close(self) -> None:
        await self._tasks.close()

    def _opened(self, id: str, attempt: int) -> None:
        self._readiness.opened(id, attempt)
        record = self._remembered.view.reservations.get(id)
        if record is not None and record.guests:
            # The Hub may have created the server again, without its guests.
            self.shares.check(id)
