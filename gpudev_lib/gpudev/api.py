"""The service's routes, one method each, with time-outs, retries and typed errors.

A request that may be repeated is repeated with back-off while nothing, something broken or "not now" is
answered, for `PATIENCE` seconds. Each request has a connection of its own, so that the object can be used
from any thread and after a fork.
"""

from __future__ import annotations

import math
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar
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
from gpudev.foreign import harmless, plain
from gpudev.hours import EXAMPLES, read_hours
from gpudev.waiting import Notice

PATIENCE = 20.0
"""Seconds for which a request that may be repeated is repeated."""
TIMEOUT = 15.0
"""Seconds that one attempt may take, the wait that a long poll asks for not counted."""
LONGEST_POLL = 25.0
"""Seconds that one long poll asks the service to wait."""

ALIAS = "gpu-"
"""What reservations are called in SSH, and people type elsewhere, too."""
PAST = 200
"""How many past reservations are listed at most; history has no end."""

T = TypeVar("T")


class Api:
    """One hub's reservation service, as one user.

    ``patience`` is how many seconds requests that may be repeated are repeated for, ``timeout`` how many one
    attempt may take; ``tell`` takes a line for people whenever they have waited for an answer for a while;
    ``transport`` replaces the network.
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
    ) -> None:
        self.url = url
        self._patience = patience
        self._timeout = timeout
        self._tell = tell
        self._http = network.client(
            f"{url}/services/gpudev/{wire.API}/",
            timeout=timeout,
            headers={"Authorization": f"token {token}", "Accept": "application/json"},
            transport=transport,
        )

    def close(self) -> None:
        """Give up what the client holds; it cannot be used afterwards."""
        self._http.close()

    # Reading

    def me(self) -> wire.Me:
        """Who the token belongs to, with limits."""
        return self._ask(wire.Me, "GET", "me")

    def availability(self, hours: float | None = None) -> wire.Availability:
        """What is free now and, for a hold of `hours`, when each size could start."""
        return self._ask(wire.Availability, "GET", "availability", params=_params(hours=hours))

    def reservations(self, *, everyone: bool = False, ended: bool = False) -> list[wire.Reservation]:
        """All live reservations, or the last `PAST` past ones; yours, or everyone's."""
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
        """One reservation by id, or by the name of a live one of yours, also as ``gpu-NAME``."""
        try:
            return self._ask(wire.Reservation, "GET", _at(ref))
        except NotFound:
            if not ref.startswith(ALIAS):
                raise
        return self._ask(wire.Reservation, "GET", _at(ref.removeprefix(ALIAS)))

    def poll(self, id: str, version: int, wait: float) -> wire.Reservation:
        """The reservation once its version is not `version`, or after `wait` seconds. Not repeated."""
        return self._once(
            wire.Reservation,
            "GET",
            _at(id),
            params=_params(wait=f"{wait:.3f}", version=version),
            timeout=wait + self._timeout,
        )

    def logs(self, id: str) -> wire.Logs:
        """Start events and last lines of Jupyter and sshd."""
        return self._ask(wire.Logs, "GET", _at(id, "logs"))

    def history(self, id: str) -> list[wire.HistoryItem]:
        """Every change in the reservation's life, oldest first. All pages."""
        items: list[wire.HistoryItem] = []
        cursor: str | None = None
        while True:
            page = self._ask(wire.History, "GET", _at(id, "history"), params=_params(cursor=cursor))
            items += page.items
            cursor = page.next
            if not cursor:
                return items

    def ssh(self) -> wire.SshAccess:
        """The servers that may be entered, and how."""
        return self._ask(wire.SshAccess, "GET", "ssh")

    # Writing

    def reserve(self, request: wire.ReserveRequest) -> wire.Reservation:
        """Ask for a reservation. With a ``request_id`` in it, repeating can never make two."""
        return self._ask(wire.Reservation, "POST", "reservations", body=request)

    def release(self, id: str) -> wire.Reservation:
        """Cancel or release. `id` must be an id: a name may be somebody else's by the time it is repeated."""
        try:
            return self._ask(wire.Reservation, "DELETE", _at(id))
        except WrongState:
            # Over already: it ended by itself, or the answer to an earlier attempt was lost.
            record = self.reservation(id)
            if record.state in ("stopping", "ended"):
                return record
            raise

    def extend(self, id: str, hours: float) -> wire.Reservation:
        """Add `hours` to the hold; a lost answer never extends twice."""
        body = wire.ExtendRequest(hours=hours, request_id=new_request_id())
        return self._ask(wire.Reservation, "POST", _at(id, "extend"), body=body)

    def operate_node(self, name: str, action: wire.NodeAction) -> None:
        """Drain a node, put it back, or say that it is lost for good. For operators."""
        body = wire.NodeRequest(action=action)
        self._persist(lambda: self._send("POST", f"nodes/{quote(name, safe='')}", body=body))

    def timeline(self) -> wire.Timeline:
        """The nodes, who holds what on them until when, and who waits."""
        return self._ask(wire.Timeline, "GET", "timeline")

    # How

    def _ask(
        self,
        kind: type[T],
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: msgspec.Struct | None = None,
    ) -> T:
        """One request, repeated while it may help."""
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
        """The answer of the service, if it is no refusal."""
        timeout = self._timeout if timeout is None else timeout
        try:
            content = None if body is None else msgspec.json.encode(body)
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"The request holds what is no text: {error.object!r}") from error
        except TypeError as error:
            raise InvalidRequest(f"The request holds what can't be sent: {error}") from error
        try:
            answer = self._http.request(
                method,
                path,
                params=params,
                content=content,
                headers={} if body is None else {"Content-Type": "application/json"},
                timeout=httpx.Timeout(timeout, connect=min(timeout, 5.0)),
            )
        except httpx.RequestError as error:
            raise network.failure(self.url, error) from error
        except (httpx.InvalidURL, UnicodeError) as error:
            raise network.no_address(self.url) from error
        clock.learn(answer.headers.get("Date"))
        if not answer.is_success:
            raise _refused(answer, self.url)
        return answer


def new_request_id() -> str:
    """The client's own name for one request, whatever is lost on the way."""
    return secrets.token_urlsafe(16)


def persist(attempt: Callable[[], T], patience: float, notice: Notice) -> T:
    """What `attempt` returns, tried again with back-off upon `NetworkError` for `patience` seconds."""
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
    """Seconds to wait before each repetition: growing to 5, spread so that clients do not come in step."""
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
            f"{url} answered what this version of gpudev does not understand: {error}",
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
    """While service, hub or proxy restart, the others answer in its place (502, 503, the hub's 404)."""
    error = Unavailable(
        f"{network.reached(url)} answers ({answer.status_code} {plain(answer.reason_phrase)}), but not its"
        " reservation service.",
        hint="It may be restarting: try again. If it stays so: is this the address of a gpudev hub?",
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
        raise NotFound(f"{ref!r} is neither the id nor the name of a reservation.", hint="See: gpu-dev list")
    return "/".join(("reservations", quote(ref, safe=""), *rest))


def number_of_hours(hours: float | str) -> float:
    """Hours from a number, or from a text such as ``90m``. Raises `InvalidHours`."""
    number = read_hours(hours) if isinstance(hours, str) else hours
    if not isinstance(number, int | float) or not math.isfinite(number):  # JSON has no such numbers
        raise InvalidHours(f"{hours!r} is not a length of time in hours.", hint=f"Use {EXAMPLES}.")
    return number


def _params(**given: object) -> dict[str, str]:
    return {key: "true" if value is True else str(value) for key, value in given.items() if value is not None}
