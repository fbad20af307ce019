"""The routes of the service, one method each, with timeouts, retries and typed errors.

Requests that are safe to retry are retried with back-off for `PATIENCE` seconds if there is no answer, a
broken answer, or an answer such as 503. Each request opens its own connection, so the object can be used from
any thread and after a fork.
"""

from __future__ import annotations

import math
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Protocol, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from gpudev import clock, network, wire
from gpudev.errors import (
    GpuDevError,
    InvalidHours,
    InvalidRequest,
    NetworkError,
    NotFound,
    Unavailable,
    UnexpectedAnswer,
    WrongState,
    from_answer,
)
from gpudev.foreign import harmless, plain, uncoloured
from gpudev.hours import EXAMPLES, read_hours
from gpudev.waiting import Notice

PATIENCE = 20.0
"""Seconds for which a request that is safe to retry is retried."""
TIMEOUT = 15.0
"""Timeout of one attempt in seconds, without the wait of a long poll."""
LONGEST_POLL = 25.0
"""Seconds that a long poll asks the service to wait."""

ALIAS = "gpu-"
"""Prefix of reservation names in SSH. People type it in other places too."""
PAST = 200
"""Most past reservations in one list."""

T = TypeVar("T")


class TokenKeeper(Protocol):
    """Knows the stored token, which is replaced from time to time (`gpudev.renewal`)."""

    def newer(self, token: str) -> str | None:
        """Return the stored token if it is another one than `token`, else None."""
        ...

    def renewed(self, token: str) -> str | None:
        """Return a successor of `token` if it is time for one, else None."""
        ...


class Api:
    """The reservation service of one hub, used as one user.

    ``patience`` is the number of seconds for which requests are retried, ``timeout`` the seconds for one
    attempt. ``tell`` is called with a line of text for the user if an answer takes long. ``transport``
    replaces the network. ``keeper`` renews the token.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        transport: httpx.BaseTransport | None = None,
        patience: float = PATIENCE,
        timeout: float = TIMEOUT,
        tell: Callable[[str], None] | None = None,
        keeper: TokenKeeper | None = None,
    ) -> None:
        self.url = url
        self._token = token
        self._keeper = keeper
        self._patience = patience
        self._timeout = timeout
        self._tell = tell
        self._http = network.client(
            f"{url}/services/gpudev/{wire.API}/",
            timeout=timeout,
            headers={"Accept": "application/json"},
            transport=transport,
        )

    def close(self) -> None:
        """Close the connections. The object cannot be used afterwards."""
        self._http.close()

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
        cursor: str | None = None
        while True:
            page = self._ask(
                wire.ReservationList,
                "GET",
                "reservations",
                params=_params(owner="all" if everyone else "me", ended=ended or None, cursor=cursor),
            )
            found += page.reservations
            cursor = page.next
            if not cursor or (ended and len(found) >= PAST):
                return found[:PAST] if ended else found

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
        items: list[wire.HistoryItem] = []
        cursor: str | None = None
        while True:
            page = self._ask(wire.History, "GET", _at(id, "history"), params=_params(cursor=cursor))
            items += page.items
            cursor = page.next
            if not cursor:
                return items

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
        return self._ask(wire.Usage, "GET", "usage", params=_usage(by, since, until, everyone))

    def usage_csv(
        self,
        *,
        by: wire.UsageBy = "day",
        since: str | None = None,
        until: str | None = None,
        everyone: bool = False,
    ) -> str:
        """Return the same as CSV, with lines that end in a line feed."""
        params = _usage(by, since, until, everyone)
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

    # Requests

    def _ask(
        self,
        kind: type[T],
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: msgspec.Struct | None = None,
    ) -> T:
        """Send one request, with retries."""
        return self._persist(lambda: self._once(kind, method, path, params=params, body=body))

    def _persist(self, attempt: Callable[[], T]) -> T:
        with Notice(self._tell, network.reached(self.url)) as notice:
            return persist(attempt, self._patience, notice)

    def _once(
        self,
        kind: type[T],
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: msgspec.Struct | None = None,
        timeout: float | None = None,
    ) -> T:
        answer = self._send(method, path, params=params, body=body, timeout=timeout)
        return _decode(kind, answer, self.url)

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: msgspec.Struct | None = None,
        timeout: float | None = None,
    ) -> httpx.Response:
        """Send one request and return the answer. Raises an error if the service refuses."""
        timeout = self._timeout if timeout is None else timeout
        used = self._token
        answer = self._exchange(method, path, params=params, body=body, timeout=timeout)
        if self._keeper is not None:
            if answer.status_code == HTTPStatus.UNAUTHORIZED and (newer := self._keeper.newer(used)):
                self._token = newer
                answer = self._exchange(method, path, params=params, body=body, timeout=timeout)
            elif answer.is_success and (renewed := self._keeper.renewed(used)):
                self._token = renewed
        if not answer.is_success:
            raise _refused(answer, self.url)
        return answer

    def _exchange(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None,
        body: msgspec.Struct | None,
        timeout: float,
    ) -> httpx.Response:
        """Send one request and return the answer, whatever it is."""
        headers = {"Authorization": f"token {self._token}"} if self._token else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            content = None if body is None else msgspec.json.encode(body)
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                f"The request contains {error.object!r}, which is not valid text."
            ) from error
        except TypeError as error:
            raise InvalidRequest(f"The request contains a value that cannot be sent: {error}.") from error
        try:
            answer = self._http.request(
                method,
                path,
                params=params,
                content=content,
                headers=headers,
                timeout=httpx.Timeout(timeout, connect=min(timeout, 5.0)),
            )
        except httpx.RequestError as error:
            raise network.failure(self.url, error) from error
        except (httpx.InvalidURL, UnicodeError) as error:
            raise network.no_address(self.url) from error
        clock.learn(answer.headers.get("Date"))
        return answer


def new_request_id() -> str:
    """Return a new request id, by which the service recognizes a retry."""
    return secrets.token_urlsafe(16)


def persist(attempt: Callable[[], T], patience: float, notice: Notice) -> T:
    """Return what `attempt` returns. After a `NetworkError`, retry with back-off for `patience` seconds."""
    until = time.monotonic() + patience
    for pause in pauses():
        try:
            return attempt()
        except NetworkError as error:
            notice.failed(error.message)
            pause = max(pause, error.retry_after)
            if time.monotonic() + pause > until:
                raise
            time.sleep(pause)
    raise AssertionError("pauses never end")


def pauses() -> Iterator[float]:
    """Yield the seconds to wait before each retry: growing to 5, with jitter."""
    longest = 0.2
    while True:
        yield longest * random.uniform(0.5, 1.0)  # noqa: S311
        longest = min(longest * 2, 5.0)


def _decode(kind: type[T], answer: httpx.Response, url: str) -> T:
    try:
        document = harmless(msgspec.json.decode(answer.content), colours=kind is wire.Logs)
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise UnexpectedAnswer(
            f"This version of gpudev does not understand the answer of {url}: {error}.",
            hint="Update the client: pip install --upgrade gpudev",
        ) from error
    except msgspec.DecodeError:
        raise _not_ours(answer, url) from None


def _refused(answer: httpx.Response, url: str) -> GpuDevError:
    try:
        refusal = msgspec.convert(harmless(msgspec.json.decode(answer.content)), wire.ErrorBody).error
    except msgspec.DecodeError:
        if answer.status_code in (401, 403):
            return from_answer(answer.status_code, "", f"{url} does not accept the token.", "")
        return _not_ours(answer, url)
    refused = from_answer(answer.status_code, refusal.code, refusal.message, refusal.hint)
    if isinstance(refused, NetworkError):
        refused.retry_after = _retry_after(answer)
    return refused


def _not_ours(answer: httpx.Response, url: str) -> Unavailable:
    """Return the error for an answer by the proxy or the hub while the service restarts (502, 503, 404)."""
    error = Unavailable(
        f"{network.reached(url)} answered {answer.status_code} {plain(answer.reason_phrase)}: the gpudev"
        " service is not available at this address.",
        hint="The service may be restarting: try again in a minute. If the error remains, check the address"
        " with: gpu-dev config get url",
    )
    error.retry_after = _retry_after(answer)
    return error


def _retry_after(answer: httpx.Response) -> float:
    try:
        return min(max(float(answer.headers.get("Retry-After", "0")), 0.0), 60.0)
    except ValueError:
        return 0.0


def _at(ref: str, *rest: str) -> str:
    if ref in ("", ".", ".."):
        raise NotFound(
            f"{ref!r} is not the name or id of a reservation.", hint="List yours with: gpu-dev list"
        )
    return "/".join(("reservations", quote(ref, safe=""), *rest))


def _user(login: str) -> str:
    if login in ("", ".", ".."):
        raise InvalidRequest(f"{login!r} is not the login of a user.")
    return quote(login, safe="")


def number_of_hours(hours: float | str) -> float:
    """Return hours from a number or a text such as ``90m``. Raises `InvalidHours`."""
    number = read_hours(hours) if isinstance(hours, str) else hours
    if not isinstance(number, int | float) or not math.isfinite(number):  # JSON has no such numbers
        raise InvalidHours(f"{hours!r} is not a length of time.", hint=f"Use a value such as {EXAMPLES}.")
    return number


def _params(**given: object) -> dict[str, str]:
    return {key: "true" if value is True else str(value) for key, value in given.items() if value is not None}


def _usage(by: wire.UsageBy, since: str | None, until: str | None, everyone: bool) -> dict[str, str]:
    return _params(by=by, since=since, until=until, owner="all" if everyone else "me")
