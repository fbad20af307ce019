"""The routes of the service, one method each."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from numbers import Real
from typing import TypeVar
from urllib.parse import quote

from gpudev import wire
from gpudev.errors import InvalidHours, InvalidRequest, NotFound, WrongState
from gpudev.foreign import uncoloured
from gpudev.hours import EXAMPLES, read_hours
from gpudev.service_client import ServiceClient

LONGEST_POLL = 25.0
"""Seconds that a long poll asks the service to wait."""

ALIAS = "gpu-"
"""Prefix of reservation names in SSH. People type it in other places too."""
PAST = 200
"""Most past reservations in one list."""

P = TypeVar("P", wire.ReservationList, wire.History)


class Api(ServiceClient):
    """The reservation service of one hub, used as one user."""

    def _pages(self, kind: type[P], path: str, **given: object) -> Iterator[P]:
        cursor: str | None = ""
        while cursor is not None:
            page = self._ask(kind, "GET", path, params=_params(**given, cursor=cursor or None))
            yield page
            cursor = page.next or None

    # Reading

    def me(self) -> wire.Me:
        """Return the user that the token belongs to, with their limits."""
        return self._ask(wire.Me, "GET", "me")

    def limits(self) -> wire.Limits:
        """Return your limits, with what is used and left."""
        return self._ask(wire.Limits, "GET", "me/limits")

    def availability(self, hours: float | None = None) -> wire.Availability:
        """Return what is free now and when each size could start for `hours`."""
        return self._ask(wire.Availability, "GET", "availability", params=_params(hours=hours))

    def reservations(self, *, everyone: bool = False, ended: bool = False) -> list[wire.Reservation]:
        """Return live reservations, or the last `PAST` ended ones: yours, or everyone's."""
        found: list[wire.Reservation] = []
        owner = "all" if everyone else "me"
        for page in self._pages(wire.ReservationList, "reservations", owner=owner, ended=ended or None):
            found += page.reservations
            if ended and len(found) >= PAST:
                return found[:PAST]
        return found

    def reservation(self, ref: str) -> wire.Reservation:
        """Return a reservation by id, or by the name (also ``gpu-NAME``) of one of your live reservations."""
        try:
            return self._ask(wire.Reservation, "GET", _at(ref))
        except NotFound:
            if not ref.startswith(ALIAS):
                raise
        return self._ask(wire.Reservation, "GET", _at(ref.removeprefix(ALIAS)))

    def poll(self, id: str, version: int, wait: float) -> wire.Reservation:
        """Return the reservation if its version is not `version`, or after `wait` seconds. No retries."""
        return self._once(
            wire.Reservation,
            "GET",
            _at(id),
            params=_params(wait=f"{wait:.3f}", version=version),
            timeout=wait + self._timeout,
        )

    def logs(self, id: str) -> wire.Logs:
        """Return start events and the last log lines of Jupyter and sshd."""
        return self._ask(wire.Logs, "GET", _at(id, "logs"))

    def history(self, id: str) -> list[wire.HistoryItem]:
        """Return every change of the reservation, oldest first."""
        return [item for page in self._pages(wire.History, _at(id, "history")) for item in page.items]

    def github_check(self) -> wire.GithubCheck:
        """Return every fact about GitHub that the hub relies on (for operators)."""
        return self._ask(wire.GithubCheck, "GET", "github-check")

    def doctor(self) -> wire.Doctor:
        """Return every fact about the installation (for operators)."""
        return self._ask(wire.Doctor, "GET", "doctor")

    def ssh(self) -> wire.SshAccess:
        """Return the servers that you can connect to, and how."""
        return self._ask(wire.SshAccess, "GET", "ssh")

    def usage(
        self,
        *,
        by: wire.UsageBy = "day",
        since: str | None = None,
        until: str | None = None,
        everyone: bool = False,
    ) -> wire.Usage:
        """Return GPU-hours, waits and early releases of these UTC days: yours, or everyone's (operators)."""
        params = _params(by=by, since=since, until=until, owner="all" if everyone else "me")
        return self._ask(wire.Usage, "GET", "usage", params=params)

    def usage_csv(self, found: wire.Usage) -> str:
        """Return the usage of the same groups, days and owner as CSV, with lines that end in a line feed."""
        params = _params(by=found.by, since=found.since, until=found.until, owner=found.owner)
        answer = self._persist(lambda: self._send("GET", "usage.csv", params=params))
        return uncoloured(answer.text)

    # Writing

    def reserve(self, request: wire.ReserveRequest) -> wire.Reservation:
        """Request a reservation. With a ``request_id``, a retry never makes a second one."""
        return self._ask(wire.Reservation, "POST", "reservations", body=request)

    def release(self, id: str, reason: str | None = None) -> wire.Reservation:
        """Cancel or release a reservation. Needs the id: at a retry, a name may mean another reservation.

        `reason`: why an operator ends it; the owner reads it.
        """
        try:
            return self._ask(wire.Reservation, "DELETE", _at(id), params=_params(reason=reason))
        except WrongState:
            # It has already ended, or the answer to an earlier attempt was lost.
            record = self.reservation(id)
            if record.state in ("stopping", "ended"):
                return record
            raise

    def extend(self, id: str, hours: float, reason: str | None = None) -> wire.Reservation:
        """Add `hours` to the hold time. A retry never extends twice.

        `reason`: why an operator extends it; the owner reads it.
        """
        body = wire.ExtendRequest(hours=hours, request_id=new_request_id(), reason=reason)
        return self._ask(wire.Reservation, "POST", _at(id, "extend"), body=body)

    def share(self, id: str, login: str) -> wire.Reservation:
        """Give another user access to the server of a reservation until it ends."""
        return self._ask(wire.Reservation, "PUT", _at(id, "guests", _user(login)))

    def unshare(self, id: str, login: str) -> wire.Reservation:
        """End another user's access to the server of a reservation."""
        return self._ask(wire.Reservation, "DELETE", _at(id, "guests", _user(login)))

    def operate_node(self, name: str, action: wire.NodeAction) -> None:
        """Drain or undrain a node, or mark it as lost. For operators."""
        body = wire.NodeRequest(action=action)
        self._persist(lambda: self._send("POST", f"nodes/{quote(name, safe='')}", body=body))

    def people(self) -> wire.People:
        """Return everybody who has logged in with GitHub, and their access. For operators."""
        return self._ask(wire.People, "GET", "people")

    def confirm_revocations(self, subjects: list[str]) -> wire.People:
        """Let these people lose access although they are many at once. For operators."""
        body = wire.RevocationsRequest(subjects=subjects)
        return self._ask(wire.People, "POST", "people/revocations", body=body)

    def limit_rules(self) -> wire.LimitRules:
        """Return all limits that are set. For operators."""
        return self._ask(wire.LimitRules, "GET", "limits")

    def set_limits(self, body: wire.SetLimitsRequest) -> wire.LimitsChanged:
        """Set limits of a scope; those that are left out stay. For operators."""
        return self._ask(wire.LimitsChanged, "PUT", "limits", body=body)

    def clear_limits(
        self, scope: str, gpu_type: str | None = None, limit: str | None = None, reason: str | None = None
    ) -> wire.LimitsChanged:
        """Clear one limit of a scope, or all of them. For operators."""
        params = _params(scope=scope, gpu_type=gpu_type, limit=limit, reason=reason)
        return self._ask(wire.LimitsChanged, "DELETE", "limits", params=params)

    def timeline(self) -> wire.Timeline:
        """Return the nodes, held and planned GPUs with their owners, and the queue."""
        return self._ask(wire.Timeline, "GET", "timeline")


def new_request_id() -> str:
    """Return a new request id, by which the service recognizes a retry."""
    return secrets.token_urlsafe(16)


def _at(ref: str, *rest: str) -> str:
    if ref in ("", ".", ".."):
        raise NotFound(
            f"{ref!r} is not the name or id of a reservation.", hint="List yours with: gpu-dev list"
        )
    return "/".join(("reservations", quote(ref, safe=""), *rest))


def _user(login: str) -> str:
    if login in ("", ".", ".."):
        raise InvalidRequest(
            f"{login!r} is not the login of a user.", hint="Give the login of a user of this hub."
        )
    return quote(login, safe="")


def number_of_hours(hours: float | str) -> float:
    """Return hours from a number or a text such as ``90m``. Raises `InvalidHours`."""
    number: object = read_hours(hours) if isinstance(hours, str) else hours
    if isinstance(number, bool) or not isinstance(number, Real) or not math.isfinite(number):
        # JSON has no such numbers.
        raise InvalidHours(f"{hours!r} is not a length of time.", hint=f"Use a value such as {EXAMPLES}.")
    return float(number)


def _params(**given: object) -> dict[str, str]:
    return {key: "true" if value is True else str(value) for key, value in given.items() if value is not None}
