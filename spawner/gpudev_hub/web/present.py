"""Convert records of the core to types of the API."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from urllib.parse import quote

import msgspec

from gpudev import wire
from gpudev.foreign import coloured
from gpudev.hours import EXAMPLES, read_hours
from gpudev_hub.core.commit import HistoryEntry
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.limits import quota
from gpudev_hub.core.limits.rules import limits_of
from gpudev_hub.core.model import HOUR, ClaimState, Millis, Node, Owner, Reservation, State
from gpudev_hub.core.permissions import WHEN, Action, Role, may, roles
from gpudev_hub.core.policy import Policy
from gpudev_hub.core.request import Ask
from gpudev_hub.core.sentences import Sentence, Text, because, say
from gpudev_hub.core.views.availability import PoolOutlook, SizeOutlook
from gpudev_hub.core.views.limits import Standing, in_words, standings
from gpudev_hub.core.views.ssh_aliases import aliases
from gpudev_hub.core.words import plain, printable
from gpudev_hub.origins import servers_of
from gpudev_hub.service.reads import ServerLogs
from gpudev_hub.service.view import View
from gpudev_hub.times import instant, rfc3339

from .auth import Identity
from .limit_view import limit
from .settings import WebSettings

LONGEST_HOURS = 100_000.0
"""More than any policy allows. Larger numbers of milliseconds could overflow."""


def millis(hours: float) -> Millis:
    """Return hours as a duration. Raises ``Refused`` for numbers that are not positive and finite."""
    if not math.isfinite(hours) or not 0 < hours <= LONGEST_HOURS:
        raise Refused(
            Code.INVALID_HOURS,
            f"{hours:g} is not a valid number of hours.",
            "Use a positive number, for example 4 or 0.5.",
        )
    return round(hours * HOUR)


def hours_of(text: str) -> float:
    """Return the hours in a form's field. Raises ``Refused`` for text that is not a length of time."""
    hours = read_hours(text)
    if hours is None:
        raise Refused(Code.INVALID_HOURS, f"{text[:20]!r} is not a length of time.", f"Use {EXAMPLES}.")
    return hours


def reason(text: str | None) -> str:
    """Return a reason on one line, without characters that control terminals or text direction."""
    return " ".join(printable(text or "").split())


def ask(body: wire.ReserveRequest) -> Ask:
    """Return a request as the core has it."""
    if body.hours is not None:
        millis(body.hours)
    return msgspec.convert(body, Ask, from_attributes=True)


@dataclass(frozen=True, slots=True)
class Presenter:
    """Converts stored state for users of the hub."""

    policy: Policy
    view: View
    settings: WebSettings
    home: Callable[[Owner], str]
    """Returns an owner's home on their servers."""

    def live(self, subject: str | None = None) -> list[Reservation]:
        """Return live reservations in queue order: a person's own, then those shared with them, or all."""
        found = list(self.view.reservations.values())
        if subject is not None:
            found = [r for r in found if r.owner.subject == subject or r.guest(subject) is not None]
        return sorted(found, key=lambda r: (subject is not None and r.owner.subject != subject, r.seq))

    def mine(self, record: Reservation, reader: Identity) -> bool:
        """Return whether the reader is the reservation's owner."""
        return record.owner.subject == reader.owner.subject

    def reservation(self, record: Reservation, reader: Identity) -> wire.Reservation:
        """Return a reservation. Only its owner and its guests get addresses and commands to connect."""
        pool = self.policy.pool(record.request.pool)
        mine = self.mine(record, reader)
        held = roles(record, reader.owner.subject, operator=reader.operator)
        url: str | None = None
        lab = mine or self.settings.lab_shared
        vscode: str | None = None
        ssh: list[str] = []
        if may(held, Action.ENTER) and record.state in WHEN[Action.ENTER]:
            url, vscode, ssh = self._ways_in(record, reader)
            url = url if lab else None
        queued = record.state is State.QUEUED
        # Other users get no details, which may quote output of the owner's programs.
        told = record if mine or reader.operator else replace(record, detail="", trouble="", notice="")
        reason = self.view.reason(told)
        return wire.Reservation(
            id=record.id,
            name=record.request.name,
            owner=record.owner.login,
            state=record.state.value,
            server=record.server.value if record.server is not None else None,
            gpus=record.request.shape.gpus,
            nodes=record.request.shape.nodes,
            total_gpus=record.request.shape.total_gpus,
            gpu_type=record.request.pool,
            image=record.request.image,
            hours=record.request.hold / HOUR,
            position=self.view.position(record.id) if queued else None,
            planned_start=instant(record.place.start) if queued and record.place is not None else None,
            guaranteed_by=instant(record.promise) if queued else None,
            likely_start=None,
            reason=None if reason is None else plain(reason, self.view.now()),
            reason_data=data_of(reason),
            created_at=rfc3339(record.created_at),
            starts_at=instant(record.ready_at),
            ends_at=instant(record.ends_at),
            outcome=record.outcome.value if record.outcome is not None else None,
            ended_at=instant(record.ended_at),
            url=url,
            ssh_command=ssh[0] if ssh else None,
            ssh_commands=ssh,
            vscode_url=vscode,
            allocation=[wire.NodeSlots(node=a.node, slots=list(a.slots)) for a in record.allocation],
            version=record.version,
            mine=mine,
            shared=Role.GUEST in held,
            guests=[
                wire.Guest(login=self.view.login_of(guest), since=rfc3339(guest.since))
                for guest in record.guests
                if held & {Role.OWNER, Role.GUEST, Role.OPERATOR}
            ],
            lab_shared=self.settings.lab_shared,
            simulated=pool.simulated,
        )

    def _ways_in(self, record: Reservation, reader: Identity) -> tuple[str, str, list[str]]:
        """Return addresses of JupyterLab and VS Code, and the SSH command of each node, for the reader."""
        subject = reader.owner.subject
        servers = servers_of(
            record.owner.hub_user, self.settings.public_url, subdomains=self.settings.subdomains
        )
        live = {**self.view.reservations, record.id: record}.values()
        names = aliases(
            (one for one in live if one.owner.subject == subject),
            (one for one in live if one.guest(subject) is not None),
        )[record.id]
        home = quote(self.home(record.owner))
        return (
            f"{servers}{record.id}/lab",
            f"vscode://vscode-remote/ssh-remote+{names[0]}{home}",
            [f"ssh {name}" for name in names],
        )

    def history(self, entries: Iterable[HistoryEntry], cursor: int | None) -> wire.History:
        """Return a page of changes of a reservation."""
        items = [
            wire.HistoryItem(
                at=rfc3339(entry.at),
                cause=plain(because(entry.change.cause.value, entry.change.detail), entry.at),
                cause_code=entry.change.cause.value,
                cause_data=data_of(entry.change.detail),
                actor=entry.change.actor,
                state=record.state.value,
                planned_start=instant(record.place.start) if record.place is not None else None,
                guaranteed_by=instant(record.promise),
                ends_at=instant(record.ends_at),
                detail=plain(record.detail, entry.at),
                detail_data=data_of(record.detail),
            )
            for entry in entries
            if isinstance(record := entry.change.record, Reservation)
        ]
        return wire.History(items=items, next=None if cursor is None else str(cursor))

    def logs(self, found: ServerLogs) -> wire.Logs:
        """Return the events of a server's start, one line each, and the ends of its logs."""
        events = [
            f"{one.at} {one.state}: {one.cause}" + (f" ({one.detail})" if one.detail else "")
            for one in self.history(found.events, None).items
        ]
        # JSON keeps control characters, so they are removed here for clients that write to a terminal.
        return wire.Logs(events=events, logs={source: coloured(text) for source, text in found.logs.items()})

    def availability(
        self, found: Iterable[tuple[PoolOutlook, list[SizeOutlook]]], hold: Millis, reader: Identity
    ) -> wire.Availability:
        """Return what is free now, and when the reader's request would start for each size."""
        return wire.Availability(
            hours=hold / HOUR,
            pools=[
                wire.PoolAvailability(
                    gpu_type=outlook.pool.name,
                    label=outlook.pool.label,
                    simulated=outlook.pool.simulated,
                    gpus_per_node=outlook.pool.gpus_per_node,
                    nodes_up=outlook.nodes_up,
                    gpus_total=outlook.gpus_total,
                    gpus_free=outlook.gpus_free,
                    queued=outlook.queued,
                    images=list(outlook.pool.images),
                    max_hours=limits_of(
                        self.policy, self.view, reader.owner.subject, outlook.pool.name
                    ).values.hold_per_request
                    / HOUR,
                    sizes=[
                        wire.SizeAvailability(
                            gpus=size.gpus,
                            nodes=size.nodes,
                            free_now=size.free_now,
                            earliest_start=instant(size.earliest_start),
                            longest_now=None if size.longest_now is None else size.longest_now / HOUR,
                            starts_now=size.starts_now,
                            reason=None if size.reason is None else plain(size.reason, self.view.now()),
                            reason_data=data_of(size.reason),
                            refused=None if size.refused is None else error_of(size.refused),
                            max_hours=size.longest / HOUR,
                        )
                        for size in sizes
                    ],
                )
                for outlook, sizes in found
            ],
        )

    def me(self, reader: Identity) -> wire.Me:
        """Return the reader with their limits."""
        subject = reader.owner.subject
        limits = limits_of(self.policy, self.view, subject, self.policy.pools[0].name).values
        own = [r for r in self.view.reservations.values() if r.owner.subject == subject]
        return wire.Me(
            user=reader.owner.hub_user,
            subject=subject,
            operator=reader.operator,
            max_hours=limits.hold_per_request / HOUR,
            max_hours_extended=limits.hold_with_extensions / HOUR,
            max_running_gpus=limits.running_gpus,
            max_queued=limits.queued_requests,
            running_gpus=sum(
                claim.gpus
                for claim in self.view.claims.values()
                if claim.subject == subject and claim.state is ClaimState.HELD
            ),
            queued=sum(r.state is State.QUEUED for r in own),
            gpu_types=[pool.name for pool in self.policy.pools],
            gpu_hours=quota.gpu_hours(own),
            max_gpu_hours=limits.gpu_hours,
            limits=self.limits(subject),
        )

    def standings(self, subject: str) -> list[Standing]:
        """Return every limit of a person, with what is used and left."""
        return standings(self.policy, self.view, subject, self.view.now())

    def limits(self, subject: str) -> list[wire.Limit]:
        """Return every limit of a person for the API."""
        return [limit(one) for one in self.standings(subject)]

    def limits_in_words(self, subject: str) -> list[str]:
        """Return every limit of a person in words."""
        return [in_words(one) for one in self.standings(subject)]

    def timeline(self, reader: Identity) -> wire.Timeline:
        """Return who holds which GPUs until when, and who waits."""
        now = self.view.now()
        return wire.Timeline(
            now=rfc3339(now), pools=[self._pool(pool.name, reader, now) for pool in self.policy.pools]
        )

    def _pool(self, name: str, reader: Identity, now: Millis) -> wire.TimelinePool:
        pool = self.policy.pool(name)
        bars: dict[str, list[wire.TimelineBar]] = {
            node.name: [] for node in self.view.nodes.values() if node.pool == name
        }
        for claim in self.view.claims.values():
            record = self.view.reservations.get(claim.reservation)
            if claim.pool == name and record is not None:
                start = record.admitted_at if record.admitted_at is not None else now
                end = max(claim.hard_end, now)
                for part in claim.allocation:
                    if part.node in bars:
                        bars[part.node].append(self._bar(record, len(part.slots), reader, start, end))
        waiting = [one for one in self.live() if one.state is State.QUEUED and one.request.pool == name]
        for record in waiting:
            if record.place is not None:
                for node in record.place.nodes:
                    if node in bars:
                        start, end = record.place.start, record.place.end
                        bars[node].append(self._bar(record, record.request.shape.gpus, reader, start, end))
        return wire.TimelinePool(
            gpu_type=name,
            label=pool.label,
            simulated=pool.simulated,
            nodes=[_node(self.view.nodes[node], bars[node]) for node in sorted(bars)],
            waiting=[self.reservation(record, reader) for record in waiting],
        )

    def _bar(
        self, record: Reservation, gpus: int, reader: Identity, start: Millis, end: Millis
    ) -> wire.TimelineBar:
        return wire.TimelineBar(
            id=record.id,
            name=record.request.name,
            owner=record.owner.login,
            mine=self.mine(record, reader),
            gpus=gpus,
            nodes=record.request.shape.nodes,
            state=record.state.value,
            start=rfc3339(start),
            end=rfc3339(end),
        )


def data_of(text: Text | None) -> wire.Sentence | None:
    """Return a text for the API, ``None`` if it is empty."""
    if isinstance(text, Sentence):
        return _data(text)
    return _data(say("text", text=text)) if text else None


def _data(sentence: Sentence) -> wire.Sentence:
    return wire.Sentence(
        code=sentence.code,
        template=sentence.template,
        params={
            name: printable(value) if isinstance(value, str) else _data(value)
            for name, value in sentence.values.items()
            if not isinstance(value, int)
        },
        instants={name: rfc3339(at) for name, at in sentence.values.items() if isinstance(at, int)},
    )


def _node(node: Node, bars: list[wire.TimelineBar]) -> wire.TimelineNode:
    return wire.TimelineNode(
        name=node.name,
        status=node.status.value,
        gpus=node.gpus,
        bars=sorted(bars, key=lambda bar: (bar.start, bar.id)),
        reason=node.drained_for or None,
        until=instant(node.until),
    )


def error_of(refused: Refused) -> wire.Error:
    """Return a refusal for the API."""
    return wire.Error(
        code=refused.code.value,
        message=refused.message,
        hint=refused.hint,
        longest_hours=msgspec.UNSET if refused.longest_hours is None else refused.longest_hours,
    )
