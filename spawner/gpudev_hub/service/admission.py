"""The gate: may the Hub start this server, and where? May it stop it? What if it deletes it?"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from gpudev_hub.core.errors import TRY_AGAIN, Code, Refused
from gpudev_hub.core.events import Event, StopIntent
from gpudev_hub.core.gate import (
    Admission,
    AdmitRequest,
    Deleted,
    Failed,
    NameAsked,
    Started,
    StopAnswer,
    StopAsked,
    Verdict,
)
from gpudev_hub.core.ids import PREFIX
from gpudev_hub.core.model import HOUR, ClaimState, Owner, Reservation, State
from gpudev_hub.core.ports import Cluster, LaunchMaker, Store, StoreUnavailable
from gpudev_hub.core.request import Ask
from gpudev_hub.core.words import duration, gpus, listing, plain, sentence, size

from . import people
from .effects.perform import Effects
from .view import View

ANSWER_WITHIN: Final = 0.8
"""Seconds; a user of the Hub waits for the answer."""
PAGES: Final = "services/gpudev/reservations/"
"""Pages of reservations, under the Hub's base URL."""
ELSEWHERE: Final = (
    "Make a reservation in the browser, with `gpu-dev reserve`, "
    "or with POST services/gpudev/api/v1/reservations."
)
"""What to do if a name does not belong to a reservation."""

OPTIONS: Final = ("gpus", "nodes", "hours", "gpu_type", "name", "image")
"""Options of a request to start a server."""
FORM_AGAIN: Final = "Open the form for a new reservation again."
BUSY: Final = "The reservation service is busy."

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Deciders:
    """Functions with which the gate asks for decisions."""

    seen: Callable[[str], None]
    """Called when the Hub knows this subject."""
    submit: Callable[[Owner, Ask, str], Awaitable[Reservation]]
    """Makes a reservation with an id that was issued before."""
    resume: Callable[[str, str], Awaitable[Reservation]]
    mint: Callable[[str], Awaitable[str]]
    end: Callable[[str, str], Awaitable[Reservation]]
    """Cancels or releases a reservation for a subject."""
    ask: Callable[[Event], Awaitable[object]]


class Gate:
    """Decides which servers the Hub may start and stop, and hears which it started and deleted."""

    def __init__(
        self,
        *,
        view: View,
        verdict: Callable[[str], people.Verdict],
        store: Store,
        launches: LaunchMaker,
        cluster: Cluster,
        effects: Effects,
        deciders: Deciders,
    ) -> None:
        """``verdict``: returns whether a subject may use the service now."""
        self._verdict = verdict
        self._view = view
        self._store = store
        self._launches = launches
        self._cluster = cluster
        self._effects = effects
        self._deciders = deciders

    async def admit(self, asked: AdmitRequest) -> Admission:
        """Return whether, and where, this server may start, within ``ANSWER_WITHIN`` seconds."""
        self._deciders.seen(asked.subject)
        try:
            return await self._in_time(asked.server, self._admit(asked))
        except Refused as refused:
            if refused.code in (Code.UNAVAILABLE, Code.INTERNAL_ERROR):
                return self._later(asked.server, refused.message)
            if refused.code is Code.ACCESS_REVOKED:
                return Admission(Verdict.FORBIDDEN, refused.message, refused.hint)
            if refused.code is Code.WRONG_STATE:
                return Admission(Verdict.CONFLICT, refused.message, refused.hint, PAGES + asked.server)
            return Admission(Verdict.INVALID, refused.message, refused.hint)

    async def name(self, asked: NameAsked) -> Admission:
        """Return whether the Hub may create or start a server of this name: ``START`` for live reservations.

        This changes nothing; the rest is decided when the spawner asks.
        """
        record = self._view.reservations.get(asked.server)
        if record is not None and record.owner.subject == asked.subject:
            return self._stopping(record) if record.state is State.STOPPING else Admission(Verdict.START)
        return await self._in_time(asked.server, self._not_theirs(asked))

    async def _in_time(self, server: str, answer: Coroutine[Any, Any, Admission]) -> Admission:
        """Return this answer; ask the Hub to try again if it takes too long, or the store does not answer."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                return await answer
        except TimeoutError:
            return self._later(server, BUSY)
        except StoreUnavailable as error:
            return self._later(server, sentence(str(error)))

    async def _not_theirs(self, asked: NameAsked) -> Admission:
        return Admission(Verdict.REDIRECT, await self._why_not(asked.subject, asked.server), ELSEWHERE)

    async def _why_not(self, subject: str, server: str) -> str:
        """Return why the subject cannot start this server, which is not a live reservation of theirs."""
        if server in self._view.reservations:
            return f"Reservation {server} belongs to another user."
        minted = self._view.minted.get(server)
        if minted is not None and minted.subject == subject:
            return f"The id {server} has no reservation yet."
        ended = await self._store.find(server)
        if ended is not None and ended.owner.subject == subject:
            return f"Reservation {server} has ended ({ended.outcome})."
        return f"You have no reservation {server}."

    async def _admit(self, asked: AdmitRequest) -> Admission:
        record = self._view.reservations.get(asked.server)
        verdict = self._verdict(asked.subject)
        # During the grace, the service itself restarts servers of people who lost access.
        if not verdict.allowed and (asked.form or record is None or record.stopped_at is not None):
            return Admission(Verdict.FORBIDDEN, verdict.message, verdict.hint)
        if record is None:
            return await self._unknown(asked)
        if record.owner.subject != asked.subject:
            return await self._elsewhere(asked)
        if asked.form and asked.options and record.state in (State.QUEUED, State.STARTING):
            difference = differs(record, read_options(asked.options))
            if difference:
                return Admission(
                    Verdict.CONFLICT,
                    f"Reservation {record.id} is for {difference}.",
                    "Cancel it first, or make another reservation.",
                    PAGES + record.id,
                )
        try:
            return await self._known(record, asked.subject)
        except Refused as refused:
            if refused.code is not Code.NOT_FOUND:
                raise
            return await self._elsewhere(asked)  # it has ended meanwhile

    async def _known(self, record: Reservation, actor: str) -> Admission:
        if record.state is State.QUEUED:
            position = self._view.position(record.id)
            # A blocked reservation has no position, and its reason says "blocked".
            place = "is " if position is None else f"has place {position} in the queue: "
            why = plain(self._view.reason(record) or "", self._view.now())
            return Admission(
                Verdict.QUEUED,
                sentence(f"reservation {record.id} {place}{why}"),
                "The server starts automatically when its turn comes.",
                PAGES + record.id,
            )
        if record.state in (State.STARTING, State.READY) and record.stopped_at is not None:
            record = await self._deciders.resume(record.id, actor)
        claim = self._view.claim(record)
        if record.state in (State.STARTING, State.READY) and claim and claim.state is ClaimState.HELD:
            launch = await self._launches.make(record)
            return Admission(Verdict.START, launch=launch, location=PAGES + record.id)
        return self._stopping(record)

    async def _unknown(self, asked: AdmitRequest) -> Admission:
        """Answer for an id without a live reservation: new, or not usable."""
        minted = self._view.minted.get(asked.server)
        if asked.form and minted is not None and minted.subject == asked.subject:
            if asked.options is None:
                raise Refused(Code.INVALID_REQUEST, "The form sent no options.", FORM_AGAIN)
            owner = Owner(asked.subject, asked.hub_user, asked.login)
            record = await self._deciders.submit(owner, read_options(asked.options), asked.server)
            return await self._known(self._view.reservations.get(record.id, record), asked.subject)
        return await self._elsewhere(asked)

    async def _elsewhere(self, asked: AdmitRequest) -> Admission:
        message = await self._why_not(asked.subject, asked.server)
        if not asked.form:
            return Admission(Verdict.REDIRECT, message, ELSEWHERE)
        fresh = await self._deciders.mint(asked.subject)
        fields = {key: value for key, value in (asked.options or {}).items() if value is not None}
        location = f"hub/spawn/{quote(asked.hub_user, safe='')}/{fresh}"
        return Admission(Verdict.REDIRECT, message, ELSEWHERE, f"{location}?{urlencode(fields)}".rstrip("?"))

    async def stop_asked(self, ask: StopAsked) -> StopAnswer:
        """Return whether the Hub may stop this server. A stop by its user is recorded first."""
        record = self._view.reservations.get(ask.server)
        if record is not None and record.owner.subject != ask.subject:
            # A start under an id of another user was refused, and the Hub now cleans it up.
            log.warning("%s may not stop %s, which belongs to another user", ask.subject, record.id)
            return StopAnswer(stop=False)
        if record is None or record.state not in (State.STARTING, State.READY):
            return StopAnswer(stop=True)
        claim = self._view.claim(record)
        if claim is None or claim.state is ClaimState.RELEASING or record.stopped_at is not None:
            return StopAnswer(stop=True)
        if not ask.user or self._effects.hub.stopping(record.id):
            # Even if refused, the Hub treats it as stopped from now on.
            self._effects.starts.start_again(record.id, record.attempt)
            return StopAnswer(stop=False)
        await self._deciders.ask(StopIntent(record.id))
        return StopAnswer(stop=True)

    async def deleted(self, deleted: Deleted) -> None:
        """Cancel or release the reservation whose server its owner, or an administrator, deleted in the Hub.

        The service itself only deletes servers of ended reservations in the Hub.
        """
        record = self._view.reservations.get(deleted.server)
        if (
            record is not None
            and record.state in (State.QUEUED, State.STARTING, State.READY)
            and record.owner.subject == deleted.subject
        ):
            await self._deciders.end(record.id, deleted.subject)

    def started(self, started: Started) -> None:
        """Look at an attempt at once, because the engine has built its servers."""
        self._cluster.hint(started.server, started.attempt)

    def failed(self, failed: Failed) -> None:
        """Record that what the engine built for an attempt cannot start."""
        self._effects.starts.failed(failed.server, failed.attempt, failed.reason)

    @staticmethod
    def _stopping(record: Reservation) -> Admission:
        return Admission(
            Verdict.CONFLICT,
            f"The server of reservation {record.id} is stopping.",
            TRY_AGAIN,
            PAGES + record.id,
        )

    @staticmethod
    def _later(id: str, message: str) -> Admission:
        return Admission(Verdict.RETRY, message, TRY_AGAIN, PAGES + id)


def read_options(options: dict[str, object]) -> Ask:
    """Return the canonical options as a request. Raises ``Refused``."""
    unknown = options.keys() - set(OPTIONS)
    if unknown:
        raise Refused(
            Code.INVALID_REQUEST,
            f"Unknown options: {', '.join(sorted(unknown))}.",
            f"Use {listing(OPTIONS, 'and')}.",
        )
    try:
        return msgspec.convert(options, Ask)
    except msgspec.ValidationError as error:
        raise Refused(Code.INVALID_REQUEST, f"The options are not valid: {error}.", "") from error


def differs(record: Reservation, ask: Ask) -> str:
    """Return how the options differ from the reservation; empty: they do not."""
    request, shape = record.request, record.request.shape
    pairs = [
        (size(shape), gpus(ask.gpus or 0), ask.gpus not in (None, shape.gpus)),
        (f"{shape.nodes} nodes", f"{ask.nodes}", ask.nodes not in (None, shape.nodes)),
        (
            duration(request.hold),
            f"{ask.hours or 0:g} h",
            ask.hours is not None and round(ask.hours * HOUR) != request.hold - record.extended,
        ),
        (request.pool, f"{ask.gpu_type}", ask.gpu_type not in (None, request.pool)),
        (
            f"the name {request.name}",
            f"{ask.name}",
            ask.name not in (None, request.name, f"{PREFIX}{request.name}"),
        ),
        (f"the image {request.image}", f"{ask.image}", ask.image not in (None, request.image)),
    ]
    return "; ".join(f"{ours}, not {theirs}" for ours, theirs, other in pairs if other)
