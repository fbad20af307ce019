"""Requests to the service of one hub, with timeouts, retries and typed errors.

Requests that are safe to retry are retried with back-off for `PATIENCE` seconds if there is no answer, a
broken answer, or an answer such as 503. Each request opens its own connection, so the object can be used from
any thread and after a fork.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Protocol, TypedDict, TypeVar, Unpack

import httpx
import msgspec

from gpudev import clock, network, wire
from gpudev.errors import (
    GpuDevError,
    InvalidRequest,
    NetworkError,
    NotLoggedIn,
    Unavailable,
    UnexpectedAnswer,
    from_answer,
)
from gpudev.foreign import harmless, plain
from gpudev.waiting import Notice

PATIENCE = 20.0
"""Seconds for which a request that is safe to retry is retried."""
TIMEOUT = 15.0
"""Timeout of one attempt in seconds, without the wait of a long poll."""

T = TypeVar("T")


class TokenKeeper(Protocol):
    """Knows the stored token, which is replaced from time to time (`gpudev.renewal`)."""

    def newer(self, token: str) -> str | None:
        """Return the stored token if it is another one than `token`, else None."""

    def renewed(self, token: str) -> str | None:
        """Return a successor of `token` if it is time for one, else None."""


class Given(TypedDict, total=False):
    """What a request may have besides its address."""

    params: Mapping[str, str]
    body: msgspec.Struct
    timeout: float
    """Seconds for one attempt."""


class ServiceClient:
    """Sends the requests of one user to the service of one hub.

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

    def _ask(self, kind: type[T], method: str, path: str, **given: Unpack[Given]) -> T:
        return self._persist(lambda: self._once(kind, method, path, **given))

    def _persist(self, attempt: Callable[[], T]) -> T:
        """Return what `attempt` returns. After a `NetworkError`, retry it, with back-off, for a while."""
        until = time.monotonic() + self._patience
        with Notice(self._tell, network.reached(self.url)) as notice:
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

    def _once(self, kind: type[T], method: str, path: str, **given: Unpack[Given]) -> T:
        return _decode(kind, self._send(method, path, **given), self.url)

    def _send(self, method: str, path: str, **given: Unpack[Given]) -> httpx.Response:
        """Send one request and return the answer. Raises an error if the service refuses."""
        used = self._token
        answer = self._exchange(method, path, **given)
        if self._keeper is not None:
            if answer.status_code == HTTPStatus.UNAUTHORIZED and (newer := self._keeper.newer(used)):
                self._token = newer
                answer = self._exchange(method, path, **given)
            elif answer.is_success and (renewed := self._keeper.renewed(used)):
                self._token = renewed
        if not answer.is_success:
            refused = _refused(answer, self.url)
            if isinstance(refused, NotLoggedIn) and used == os.environ.get("GPUDEV_TOKEN"):
                # After another login, this token would still be used.
                refused.hint = (
                    "The token is from GPUDEV_TOKEN. Correct it, or unset it and run `gpu-dev login`."
                )
            raise refused
        return answer

    def _exchange(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: msgspec.Struct | None = None,
        timeout: float | None = None,
    ) -> httpx.Response:
        """Send one request and return the answer, whatever it is."""
        timeout = self._timeout if timeout is None else timeout
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
        with network.explained(self.url, reads=method == "GET"):
            answer = self._http.request(
                method,
                path,
                params=params,
                content=content,
                headers=headers,
                timeout=httpx.Timeout(timeout, connect=min(timeout, 5.0)),
            )
        clock.learn(answer.headers.get("Date"))
        return answer


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
