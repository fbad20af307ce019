"""The reservation service: every use case, over its adapters. ``wiring.py`` builds it, ``web`` offers it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from gpudev_hub.core.decisions.default_names import default_names
from gpudev_hub.core.decisions.extensions import is_repeated
from gpudev_hub.core.decisions.requests import same_request
from gpudev_hub.core.decisions.working_state import is_owner_unknown
from gpudev_hub.core.errors import NEW_REQUEST_ID, Code, Refused
from gpudev_hub.core.events import (
    End,
    Event,
    Extend,
    Mint,
    OperatorNode,
    OwnerKnown,
    Resume,
    Share,
    Submit,
    Unshare,
)
from gpudev_hub.core.model import Millis, Outcome, Owner, Reservation, State
from gpudev_hub.core.request import Ask, joinable, resolve
from gpudev_hub.core.views.availability import PoolOutlook, SizeOutlook
from gpudev_hub.turns import cancel

from .access import AccessControl
from .admission import Deciders, Gate
from .context import Adapters
from .cuts import NewCuts
from .limit_setting import LimitSetting
from .notices import Notice
from .questions import Github
from .reads import Reads, answering
from .runner import Runner


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the service does all of its work."""

    live: bool
    """False: it has stopped permanently (another service has taken over, or a bug)."""
    reasons: list[str] = field(default_factory=list)
    """What does not answer now; empty if all is well."""
    waiting: int = 0
    """Events not decided yet."""
    away: Mapping[str, Millis] = field(default_factory=dict)
    """For how long each dependency has not answered; 0: it answers."""


@dataclass(frozen=True, slots=True)
class News:
    """What the agent of a server does not know yet."""

    notices: list[Notice]
    cuts: NewCuts


class Service:
    """The service of one store. Call ``start``, use it, call ``stop``."""

    def __init__(self, adapters: Adapters, github: Github | None = None) -> None:
        """``github``: who may get in, if GitHub decides that."""
        self.policy = adapters.policy
        self.clock = adapters.clock
        self._hub = adapters.hub
        self._ids = adapters.ids
        self._runner = Runner(adapters)
        self._writer = self._runner.writer
        self.readiness = self._runner.readiness
        """Receives the reports of the servers' agents."""
        context = self._runner.context
        self.metrics = context.metrics
        self.outages = context.outages
        self._remembered = context.remembered
        self.view = context.view
        self.cuts = self._remembered.cuts
        """Connections to end; the bastion and the servers wait on it."""
        self.usage = self._remembered.usage
        self.access = AccessControl(self.view, self._writer.ask, adapters.clock, github)
        """Who may get in."""
        self.reads = Reads(self._remembered, adapters.store, adapters.cluster)
        self.gate = Gate(
            view=self.view,
            verdict=self.access.people.verdict,
            store=adapters.store,
            launches=adapters.launches,
            cluster=adapters.cluster,
            effects=self._runner.effects,
            deciders=Deciders(
                self.owner_seen, self._submit_minted, self.resume, self.mint, self.end, self._writer.ask
            ),
        )
        """Answers the Hub about servers that it starts, stops or deletes."""

    # Life

    async def start(self) -> None:
        """Take over the store, look at everything once, then continue by events.

        Raises ``StoreLocked``, ``StoreUnavailable``, ``StoreEmpty``, ``StoreBehind`` or ``ClockBehind``.
        """
        await self._runner.start()
        self.access.start()

    async def stop(self) -> None:
        """Finish the present commit, drop the rest, close the store."""
        await self.access.stop()
        await self._runner.stop()

    async def closed(self) -> None:
        """Return when the service has stopped. Raises what ended it: ``StaleEpoch``, or a bug's exception."""
        await self._runner.closed()

    async def reconcile(self) -> None:
        """Look at everything now, as every minute."""
        await self._runner.reconcile()

    # What people ask for

    async def submit(
        self, owner: Owner, ask: Ask, request_id: str | None = None, id: str | None = None
    ) -> Reservation:
        """Return a new reservation, durable by then; for a repeated ``request_id``, the same one.

        ``id``: an id issued to this owner by ``mint``; left out, one is made. Raises ``Refused``.
        """
        request = resolve(self.policy, ask, joinable(self.view.nodes.values()))
        ended = self._remembered.recent_request(owner.subject, request_id) if request_id is not None else None
        if ended is not None:
            if same_request(ended, request):
                return ended
            raise Refused(
                Code.REQUEST_ID_REUSED,
                f"The request id {request_id} was already used for reservation {ended.id}, which has ended.",
                NEW_REQUEST_ID,
            )
        self.owner_seen(owner.subject)
        new = id or self._new_id()
        decision = await self._writer.ask(Submit(new, owner, request, request_id, default_names(new)))
        assert decision.reservation is not None
        return decision.reservation

    async def end(self, id: str, actor: str, outcome: Outcome | None = None, reason: str = "") -> Reservation:
        """Cancel or release a reservation; an ended one stays as it is. Raises ``Refused``."""
        ended = await self._has_ended(id)
        return ended or await self._ask(End(id, actor, outcome, reason))

    async def extend(
        self, id: str, actor: str, by: Millis, request_id: str | None = None, reason: str = ""
    ) -> Reservation:
        """Extend a reservation by ``by`` milliseconds, all or nothing; once for each ``request_id``.

        Raises ``Refused``.
        """
        ended = await self._has_ended(id)
        if ended is not None and is_repeated(ended, request_id, by):
            return ended
        await self._refuse_ended(id)
        return await self._ask(Extend(id, actor, by, request_id, reason))

    async def resume(self, id: str, actor: str) -> Reservation:
        """Restart a server that its owner stopped. Raises ``Refused``."""
        await self._refuse_ended(id)
        return await self._ask(Resume(id, actor))

    async def share(self, id: str, actor: str, guest: Owner) -> Reservation:
        """Give ``guest``, who is known and allowed, access to the server. Raises ``Refused``."""
        await self._refuse_ended(id)
        return await self._ask(Share(id, actor, guest))

    async def unshare(self, id: str, actor: str, subject: str) -> Reservation:
        """Remove a guest, and end their connections. Raises ``Refused``."""
        await self._refuse_ended(id)
        return await self._ask(Unshare(id, actor, subject))

    async def known_to_hub(self, hub_user: str) -> bool:
        """Return whether the Hub has a user of this name. Raises ``Refused`` (``unavailable``)."""
        with answering():
            return await self._hub.knows(hub_user)

    async def mint(self, subject: str) -> str:
        """Return a new id for a spawn page of the subject."""
        self.owner_seen(subject)
        minted = self._new_id()
        await self._writer.ask(Mint(minted, subject))
        return minted

    async def operate_node(self, name: str, action: str, actor: str) -> None:
        """Apply ``drain``, ``undrain`` (which observes the node again) or ``lost``. Raises ``Refused``."""
        await self._writer.ask(OperatorNode(name, action, actor))
        if action == "undrain":
            await self._runner.reconcile()

    @property
    def limits(self) -> LimitSetting:
        """Limits that operators set at run time."""
        return LimitSetting(self.policy, self.view, self._writer.ask)

    def owner_seen(self, subject: str) -> None:
        """Place or start again what was blocked because the Hub did not know this owner."""
        for record in self.view.reservations.values():
            if record.owner.subject == subject and is_owner_unknown(record.blocked):
                self._writer.post(OwnerKnown(subject, known=True))
                return

    def logged_in(self, subject: str) -> None:
        """Let the Hub route again to the servers of an owner who has just logged in."""
        self.owner_seen(subject)
        for record in self.view.reservations.values():
            if record.state is State.READY and record.owner.subject == subject:
                self._runner.effects.poke(record.id)

    async def _ask(self, event: Event) -> Reservation:
        decision = await self._writer.ask(event)
        assert decision.reservation is not None
        return decision.reservation

    async def _submit_minted(self, owner: Owner, ask: Ask, id: str) -> Reservation:
        return await self.submit(owner, ask, id=id)

    def _new_id(self) -> str:
        """Return an id that nothing live has; the store refuses an id that was ever used."""
        while True:
            new = self._ids()
            if new not in self.view.minted and new not in self.view.reservations:
                return new

    async def _has_ended(self, id: str) -> Reservation | None:
        found = await self.reads.find(id)
        return found if found is not None and not found.live else None

    async def _refuse_ended(self, id: str) -> None:
        ended = await self._has_ended(id)
        if ended is not None:
            raise Refused(
                Code.WRONG_STATE,
                f"Reservation {id} has ended ({ended.outcome}) and can no longer be changed.",
                "",
            )

    # What servers ask

    async def notices(self, id: str, after: int, timeout: float) -> list[Notice]:
        """Return notices for the user of a server, later than ``after``; waits up to ``timeout`` seconds."""
        if id not in self.view.reservations:
            return []
        return await self._remembered.notices.wait(id, after, timeout)

    async def news(self, id: str, after: int, cut_after: int | None, timeout: float) -> News:
        """Return notices later than ``after`` and cuts later than ``cut_after``, for the agent of a server.

        Waits up to ``timeout`` seconds for either. ``cut_after`` ``None``: the agent does not handle cuts.
        """
        cuts = self.cuts.after(0 if cut_after is None else cut_after, id)
        if cut_after is None or cuts.cuts or cuts.missed:
            wait = timeout if cut_after is None else 0
            return News(await self.notices(id, after, wait), cuts)
        waiting = [
            asyncio.ensure_future(self.notices(id, after, timeout)),
            asyncio.ensure_future(self.cuts.wait(cut_after, timeout, id)),
        ]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(waiting)
        return News(await self.notices(id, after, 0), self.cuts.after(cut_after, id))

    # What there is

    def pools(self) -> list[PoolOutlook]:
        """Return the outlook of every pool."""
        return self.view.forecast.pools(self.clock.now())

    def availability(self, owner: Owner, hold: Millis) -> list[tuple[PoolOutlook, list[SizeOutlook]]]:
        """Return, per pool and size, what would become of a request by this owner now."""
        now, forecast = self.clock.now(), self.view.forecast
        return [(pool, forecast.sizes(owner, pool.pool, hold, now)) for pool in forecast.pools(now)]

    def health(self) -> Health:
        """Return whether everything works."""
        live = self._runner.live
        reasons = self.outages.reasons() if live else ["the reservation service has stopped"]
        away = self.outages.lasting(self.clock.now())
        return Health(live, reasons, self._writer.waiting, away)
