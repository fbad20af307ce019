"""The Hub's client of the gate. Turns the service's answers into errors that the Hub's handlers understand.

Spawners of all engines ask here before they start anything.
"""

from __future__ import annotations

import html
import logging
from typing import TypeVar
from urllib.parse import quote, urljoin

import httpx
import msgspec
from jupyterhub.spawner import SpawnException

from gpudev import wire
from gpudev_hub.core import gate

log = logging.getLogger(__name__)

ADMIT_TIMEOUT = 0.8
"""Seconds; JupyterHub's form handler can turn a refusal into a redirect for one second only."""
STOP_TIMEOUT = 5.0
LOGIN_TIMEOUT = 30.0
"""Seconds; the service asks GitHub several questions in a row."""
RETRY_AFTER = 2

T = TypeVar("T")


class Told(SpawnException):
    """A failed start with a message for the user. Subclasses set ``reason`` and ``status_code``."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason=self.reason, status_code=self.status_code)
        # The Hub's pages and its API show this attribute, which SpawnException does not set.
        self.jupyterhub_message = message


class Refusal(Told):
    """The service refused: an answer to the user, not a failure of the Hub."""

    def __init__(
        self, status: int, message: str, *, reason: str, hint: str = "", location: str | None = None
    ):
        self.reason, self.status_code = reason, status
        super().__init__(f"{message}\n{hint}" if hint else message)
        self.headers: dict[str, str] = {}
        page = html.escape(message)
        if hint:
            page += f"<br>{html.escape(hint)}"
        if location is not None:
            page += f' <a href="{html.escape(location)}">Open the page</a>.'
            if 300 <= status < 400:
                self.headers["Location"] = location
        if status == 429:
            self.headers["Retry-After"] = str(RETRY_AFTER)
        self.jupyterhub_html_message = page


def refusal(admission: gate.Admission, *, form: bool, page: str, base: str = "/") -> Refusal:
    """Return the error for an answer other than ``START``.

    ``page``: the reservation's page; ``base``: the address that the answer's location is relative to.
    """
    there = None if admission.location is None else urljoin(base, admission.location)
    verdict = admission.verdict
    status = {
        # Its server starts by itself later.
        gate.Verdict.QUEUED: 303 if form else 409,
        gate.Verdict.REDIRECT: 303 if form else 403,
        gate.Verdict.CONFLICT: 409,
        gate.Verdict.INVALID: 400,
        gate.Verdict.FORBIDDEN: 403,
        gate.Verdict.RETRY: 303 if form else 429,
    }[verdict]
    target = there or page if status == 303 or verdict is gate.Verdict.QUEUED else there
    return Refusal(status, admission.message, reason=verdict.value, hint=admission.hint, location=target)


def _too_many(answer: httpx.Response) -> Refusal:
    """Return the service's refusal of too many requests, for the Hub to pass on."""
    try:
        error = msgspec.json.decode(answer.content, type=wire.ErrorBody).error
    except msgspec.MsgspecError:
        error = wire.Error(code="rate_limited", message="Too many requests.")
    refused = Refusal(429, error.message, reason="rate_limited", hint=error.hint or "")
    refused.headers["Retry-After"] = answer.headers.get("Retry-After", refused.headers["Retry-After"])
    return refused


class GateClient:
    """Asks the gate's listener, with the hub's secret."""

    def __init__(self, url: str, secret: str) -> None:
        """``url``: ``http://127.0.0.1:PORT``."""
        self._http = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {secret}"}, trust_env=False, timeout=STOP_TIMEOUT
        )

    async def _send(self, path: str, body: object, timeout: float) -> bytes:
        """Send a POST with ``body``, or else a GET; return the answer. Raises ``httpx.HTTPError``."""
        answer = await self._http.request(
            "GET" if body is None else "POST",
            f"/gate/{path}",
            content=None if body is None else msgspec.json.encode(body),
            headers={"Content-Type": "application/json"},
            timeout=timeout,
        )
        answer.raise_for_status()
        return answer.content

    async def _ask(self, kind: type[T], path: str, body: object, timeout: float, unanswered: str) -> T | None:
        """Return the answer. If there is none, log ``unanswered`` and return ``None``."""
        try:
            return msgspec.json.decode(await self._send(path, body, timeout), type=kind)
        except (httpx.HTTPError, msgspec.MsgspecError) as error:
            log.warning("%s: %s", unanswered, error)
            return None

    async def _tell(self, path: str, body: object, timeout: float, what: str, level: int) -> None:
        try:
            await self._send(path, body, timeout)
        except httpx.HTTPError as error:
            log.log(level, "the reservation service was not told %s: %s", what, error)

    async def admit(self, request: gate.AdmitRequest, *, page: str, base: str = "/") -> gate.Launch:
        """Return the launch of an admitted reservation. Raises ``Refusal`` otherwise."""
        try:
            answer = await self._send("admit", request, ADMIT_TIMEOUT)
            admission = msgspec.json.decode(answer, type=gate.Admission)
        except httpx.HTTPStatusError as error:
            log.warning(
                "the reservation service refused the request for server %s: %s", request.server, error
            )
            answered = error.response
            admission = gate.Admission(
                gate.Verdict.INVALID if answered.is_client_error else gate.Verdict.RETRY,
                f"The reservation service answered {answered.status_code} {answered.reason_phrase}.",
                "Shorten the values in the form, or try again in a few seconds.",
            )
        except (httpx.HTTPError, msgspec.MsgspecError) as error:
            admission = self._no_answer(request.server, error)
        if admission.verdict is gate.Verdict.START and admission.launch is not None:
            return admission.launch
        raise refusal(admission, form=request.form, page=page, base=base)

    async def check_name(self, asked: gate.NameAsked, *, form: bool) -> None:
        """Raise ``Refusal`` if the Hub should not create a server with this name.

        ``form``: the spawn page asks. It is shown for old ids and while the service is away, so only too many
        requests are refused.
        """
        try:
            admission = msgspec.json.decode(
                await self._send("name", asked, ADMIT_TIMEOUT), type=gate.Admission
            )
        except (httpx.HTTPError, msgspec.MsgspecError) as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 429:
                raise _too_many(error.response) from error
            admission = self._no_answer(asked.server, error)
        if not form and admission.verdict is not gate.Verdict.START:
            raise refusal(admission, form=False, page="")

    @staticmethod
    def _no_answer(server: str, error: Exception) -> gate.Admission:
        log.warning("the reservation service did not answer about server %s: %s", server, error)
        return gate.Admission(
            gate.Verdict.RETRY,
            "The reservation service did not answer in time.",
            "Try again in a few seconds.",
        )

    async def started(self, server: str, attempt: int) -> None:
        """Tell the service to look at a server. It notices the server later if this message is lost."""
        body = gate.Started(server, attempt)
        await self._tell("started", body, ADMIT_TIMEOUT, f"that server {server} was started", logging.INFO)

    async def failed(self, server: str, attempt: int, reason: str) -> None:
        """Tell the service why an attempt cannot start. Without it, the server is only seen gone."""
        body = gate.Failed(server, attempt, reason)
        await self._tell("failed", body, ADMIT_TIMEOUT, f"why server {server} cannot start", logging.INFO)

    async def may_stop(self, subject: str, server: str, *, user: bool) -> bool:
        """Return whether to end a server; false in doubt, because the service can end it by itself."""
        unanswered = f"server {server} is left alone, since the service did not allow its end"
        asked = gate.StopAsked(subject, server, user)
        answer = await self._ask(gate.StopAnswer, "stop", asked, STOP_TIMEOUT, unanswered)
        return answer is not None and answer.stop

    async def deleted(self, subject: str, server: str) -> None:
        """Tell the service that a server was deleted. If this is lost, the reservation stays."""
        body = gate.Deleted(subject, server)
        await self._tell("deleted", body, STOP_TIMEOUT, f"that server {server} was deleted", logging.WARNING)

    async def picker(self, asked: gate.PickerAsked) -> gate.PickerAnswer | None:
        """Return what the spawn page shows; ``None`` while the service does not answer."""
        unanswered = "the form for a new reservation is shown without availability"
        return await self._ask(gate.PickerAnswer, "picker", asked, ADMIT_TIMEOUT, unanswered)

    async def login(self, asked: gate.LoginAsked) -> gate.LoginAnswer | None:
        """Return whether a GitHub account may log in; ``None`` while the service does not answer."""
        unanswered = f"the reservation service did not answer whether {asked.login} may log in"
        return await self._ask(gate.LoginAnswer, "login", asked, LOGIN_TIMEOUT, unanswered)

    async def person(self, hub_user: str) -> gate.PersonAnswer | None:
        """Return whether a user of the Hub still has access; ``None`` while that is unknown."""
        unanswered = f"the reservation service did not say whether {hub_user} has access"
        path = f"people/{quote(hub_user, safe='')}"
        return await self._ask(gate.PersonAnswer, path, None, ADMIT_TIMEOUT, unanswered)
