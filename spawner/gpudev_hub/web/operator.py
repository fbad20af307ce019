"""Pages for operators: held GPUs, the queue, nodes and limits.

Each action has a page that says what will happen to whom.
"""

from __future__ import annotations

from typing import get_args
from urllib.parse import quote

from gpudev import wire
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.limits.rules import effective
from gpudev_hub.core.model import Outcome, Reservation, State
from gpudev_hub.times import instant

from .auth import Identity
from .limit_view import ordered, rule
from .operator_view import NodeUse, end_effects, node_uses, own_limits, people
from .page import Page
from .people import problems
from .present import hours_of, millis, reason

LONGEST_REASON = 300
ACTIONS: tuple[wire.NodeAction, ...] = get_args(wire.NodeAction)


class OperatorPage(Page):
    """A page that only operators can read and use."""

    here = "operator"

    async def prepare(self) -> None:
        """Raise ``Refused`` (``forbidden``) for everyone who is not an operator."""
        await super().prepare()
        if self.identity is not None and not self.identity.operator:
            raise Refused(
                Code.FORBIDDEN,
                f"This page is for operators; {self.identity.owner.login} is not an operator.",
                "Ask an operator of this hub.",
            )

    def given_reason(self) -> str:
        """Return the reason in the form. Raises ``Refused`` if it is missing or too long."""
        found = reason(self.get_argument("reason", ""))
        if not found:
            raise Refused(
                Code.INVALID_REQUEST, "The reason is missing.", "Enter a reason. The owner reads it."
            )
        if len(found) > LONGEST_REASON:
            raise Refused(
                Code.INVALID_REQUEST,
                f"The reason has {len(found)} characters; the maximum is {LONGEST_REASON}.",
                "Shorten the reason.",
            )
        return found


def changed(what: str) -> Refused:
    """Return the refusal of a confirmation on a page that is out of date."""
    return Refused(
        Code.WRONG_STATE,
        f"{what} has changed since you opened this page. Nothing was done.",
        "Read what the action does now, and confirm again.",
    )


class Operator(OperatorPage):
    """``/operator``: the overview."""

    async def get(self) -> None:
        service = self.site.service
        live = self.site.presenter.live()
        logins = service.limits.people()
        held = [record for record in live if record.state is not State.QUEUED]
        self.show(
            "operator.html",
            held=[
                (self.shown(record), instant(record.admitted_at))
                for record in sorted(held, key=lambda record: (record.ends_at or 0, record.seq))
            ],
            waiting=[self.shown(record) for record in live if record.state is State.QUEUED],
            pools=service.pools(),
            problems=problems(service),
            nodes=node_uses(service.view),
            people=[
                (
                    person,
                    self.site.presenter.me(Identity(person, operator=False)),
                    self.site.presenter.limits_in_words(person.subject),
                )
                for person in people(service.policy, live)
            ],
            own_limits=own_limits(service.policy, service.view),
            everyone=effective(
                service.policy, service.view.limits, (), "", service.policy.pools[0].name
            ).values,
            rules=[rule(one, logins) for one in ordered(service.view.limits.values())],
        )


class OperateReservation(OperatorPage):
    """``/operator/reservations/ID``: end or extend it, with a reason."""

    async def find(self, id: str) -> Reservation:
        record = await self.site.service.reads.find(id)
        if record is None:
            raise Refused(Code.NOT_FOUND, f"There is no reservation {id[:64]}.", "See the operator page.")
        self.reservation = record.id
        return record

    async def get(self, id: str) -> None:
        self._render(await self.find(id))

    def _render(self, record: Reservation, error: Refused | None = None) -> None:
        shown = self.shown(record)
        self.show(
            "operate_reservation.html",
            409 if error else 200,
            s=shown,
            since=instant(record.admitted_at),
            effects=end_effects(shown.r),
            confirmed=record.state.value,
            typed={name: self.get_argument(name, "")[: LONGEST_REASON * 2] for name in ("hours", "reason")},
            asked=self.get_argument("action", ""),
            error=error,
        )

    async def post(self, id: str) -> None:
        """``action``: ``end`` or ``extend``."""
        record = await self.find(id)
        service, actor = self.site.service, self.person.owner.subject
        try:
            why = self.given_reason()
            if self.get_argument("action", "") == "extend":
                by = millis(hours_of(self.get_argument("hours", "")))
                await service.extend(record.id, actor, by, reason=why)
            elif self.get_argument("action", "") == "end":
                if self.get_argument("confirmed", "") != record.state.value:
                    raise changed(f"Reservation {record.id}")
                mine = record.owner.subject == actor
                await service.end(record.id, actor, None if mine else Outcome.ENDED_BY_OPERATOR, why)
            else:
                raise Refused(Code.INVALID_REQUEST, "The action is missing.", "Choose End or Extend.")
        except Refused as refused:
            self._render(await self.find(record.id), refused)
            return
        self.redirect(f"{self.root}operator/reservations/{record.id}", status=303)


class OperateNode(OperatorPage):
    """``/operator/nodes/NAME``: drain it, undrain it, mark it as lost."""

    def find(self, name: str) -> NodeUse:
        for use in node_uses(self.site.service.view):
            if use.node.name == name:
                return use
        raise Refused(Code.NOT_FOUND, f"There is no node {name[:64]}.", "See the operator page.")

    async def get(self, name: str) -> None:
        self._render(name)

    def _render(self, name: str, error: Refused | None = None) -> None:
        use = self.find(name)
        self.show(
            "operate_node.html",
            409 if error else 200,
            use=use,
            until=instant(use.node.until),
            effects={action: use.effects(action) for action in ACTIONS},
            error=error,
        )

    async def post(self, name: str) -> None:
        """``action``: ``drain``, ``undrain`` or ``lost``."""
        use = self.find(name)
        try:
            action = self.get_argument("action", "")
            if action not in ACTIONS:
                raise Refused(Code.INVALID_REQUEST, "The action is missing.", "Choose one of those below.")
            if self.get_argument("confirmed", "") != use.fingerprint:
                raise changed(f"What runs on {use.node.name}")
            await self.site.service.operate_node(use.node.name, action, self.person.owner.subject)
        except Refused as refused:
            self._render(name, refused)
            return
        self.redirect(f"{self.root}operator/nodes/{quote(use.node.name, safe='')}", status=303)
