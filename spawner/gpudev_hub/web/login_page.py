"""The page where users confirm the login of a command line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlencode

from gpudev import login_wire as wire
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.words import printable
from gpudev_hub.times import rfc3339

from .limits import network
from .login import shown_device
from .login_codes import Asked, shown_code
from .page import Page

LONGEST_STATE = 200
LONGEST_DEVICE = 64
LONGEST_ADDRESS = 200
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_STATE = re.compile(rf"[A-Za-z0-9_-]{{8,{LONGEST_STATE}}}")
_LOOPBACK = re.compile(r"http://(?:127\.0\.0\.1|\[::1\]):([1-9][0-9]{0,4})/[A-Za-z0-9/_-]{0,100}")


@dataclass(frozen=True, slots=True)
class Request:
    """What a link from a command line on the browser's machine asks for."""

    redirect_uri: str
    state: str
    code_challenge: str
    device: str

    def answer(self, **values: str) -> str:
        """Return the address that gives the command line the result."""
        return f"{self.redirect_uri}?{urlencode({**values, 'state': self.state})}"


class LoginPage(Page):
    """``/login``: confirm a login of this machine or of another machine."""

    here = "login"

    async def prepare(self) -> None:
        """Refuse tokens: a token must not make another token here."""
        await super().prepare()
        if self.identity is not None and self.token is not None:
            raise Refused(
                Code.FORBIDDEN, "A login can be confirmed only in a browser.", "Open this page in a browser."
            )

    async def get(self) -> None:
        """``?redirect_uri=&state=&code_challenge=&device=``: confirm a login; without them: type a code."""
        if not self.request.query_arguments:
            self.show("login.html", stage="code", error="", typed="")
            return
        request = self._request()
        self._confirm(request.device, request=request)

    async def post(self) -> None:
        """Handle the forms of the page: a typed code, or confirm and refuse."""
        answer = self.get_argument("answer", "")
        if self.get_argument("redirect_uri", ""):
            request = self._request()
            if answer == "confirm":
                grants, now = self.site.logins.grants, self.site.logins.now()
                code = grants.add(self.person.owner, request.code_challenge, request.device, now)
                self._done("confirmed", request.device, request.answer(code=code))
            else:
                self._done("refused", request.device, request.answer(error="access_denied"))
            return
        typed = self.get_argument("user_code", "")[:64]
        asked = self._find(typed)
        if asked is None:
            error = "This code is not valid: it was used, has expired, or is mistyped."
            self.show("login.html", 400, stage="code", error=error, typed=typed)
        elif answer == "":
            self._confirm(asked.device, asked=asked)
        elif answer == "confirm":
            asked.owner = self.person.owner
            self._done("confirmed", asked.device)
        else:
            asked.denied = True
            self._done("refused", asked.device)

    def _find(self, typed: str) -> Asked | None:
        """Return the login that waits for a typed code. Wrong codes are limited by user and by address."""
        failures, peer = self.site.logins.failures, network(self.peer)
        subject = self.person.owner.subject
        for caller in (subject, peer):
            failures.check(caller)
        found = self.site.logins.asks.find(typed, self.site.logins.now())
        if found is None:
            for caller in (subject, peer):
                failures.spend(caller)
        return found

    def _request(self) -> Request:
        """Return what the link asks for. Raises ``Refused`` if it is not valid."""
        request = Request(
            self.get_argument("redirect_uri", "")[:LONGEST_ADDRESS],
            self.get_argument("state", "")[: LONGEST_STATE + 1],
            self.get_argument("code_challenge", ""),
            printable(self.get_argument("device", ""))[:LONGEST_DEVICE],
        )
        what = None
        if not loopback(request.redirect_uri):
            what = f"its redirect_uri is {request.redirect_uri or 'empty'}, not a port of 127.0.0.1 or [::1]"
        elif self.get_argument("code_challenge_method", "") != wire.METHOD:
            what = f"code_challenge_method is not {wire.METHOD}"
        elif _CHALLENGE.fullmatch(request.code_challenge) is None:
            what = "code_challenge is not a SHA-256 digest"
        elif _STATE.fullmatch(request.state) is None:
            what = "state is missing or malformed"
        if what is not None:
            raise Refused(
                Code.INVALID_REQUEST,
                f"This login link is not valid: {what}. Nothing was confirmed.",
                "Start a login yourself with: gpu-dev login",
            )
        return request

    def _confirm(self, device: str, request: Request | None = None, asked: Asked | None = None) -> None:
        self.show(
            "login.html",
            stage="confirm",
            request=request,
            method=wire.METHOD,
            device=shown_device(device),
            user_code=None if asked is None else shown_code(asked.user_code),
            address=None if asked is None else asked.address,
            asked_at=None if asked is None else rfc3339(asked.asked_at),
            account=self.person.owner,
            hub_address=self.site.settings.public_url.rstrip("/"),
            days=wire.DAYS,
        )

    def _done(self, how: str, device: str, there: str | None = None) -> None:
        self.show("login.html", stage=how, device=shown_device(device), there=there)


def loopback(address: str) -> bool:
    """Return whether an address is a port of ``127.0.0.1`` or ``[::1]``, which only this machine reaches.

    Names are refused, also ``localhost``: whoever controls their resolution could receive the code.
    """
    match = _LOOPBACK.fullmatch(address)
    return match is not None and int(match[1]) < 65536
