"""What all handlers share: identity, limits, security headers, and the form of errors."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterable
from typing import Any

import msgspec
from jupyterhub.services.auth import HubOAuthCallbackHandler, HubOAuthenticated
from tornado.web import HTTPError, RequestHandler

from gpudev import wire
from gpudev_hub.core.errors import STATUS, Code, Refused
from gpudev_hub.core.ports import StoreUnavailable

from .auth import BrowserLogin, HubUser, Identity
from .limits import RateLimited, network
from .present import error_of
from .routes import Call
from .site import Site

log = logging.getLogger(__name__)

JSON = "application/json"
SAFE_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
AUTHORIZATION = re.compile(r"(?:token|bearer) +([!-~]{1,2048})", re.IGNORECASE)
SEE_API = "See api/v1/openapi.json."
ENCODER = msgspec.json.Encoder()
NOTHING_LOADED = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
HEADERS = {
    "Server": "gpudev",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
"""Headers of every answer."""


def bearer(handler: RequestHandler) -> str | None:
    """Return the token of the ``Authorization`` header, if there is one. URLs never have a token."""
    header = handler.request.headers.get("Authorization")
    if header is None:
        return None
    match = AUTHORIZATION.fullmatch(header.strip())
    if match is None:
        raise Refused(
            Code.UNAUTHENTICATED,
            "The Authorization header has no token.",
            "Send `Authorization: Bearer TOKEN`.",
        )
    return match.group(1)


class BaseHandler(Call, HubOAuthenticated, RequestHandler):
    """A handler whose errors are ``{"error": {code, message, hint}}``; nothing is cached or framed."""

    csp = NOTHING_LOADED
    error_code = ""

    def initialize(self, site: Site) -> None:
        self.site = site
        self.peer = self.request.remote_ip or ""
        self.headers = {}

    @property
    def hub_auth(self) -> BrowserLogin:
        """What JupyterHub's handlers need for logins of browsers."""
        return self.site.auth.browser

    def set_default_headers(self) -> None:
        asked = self.request.headers.get("X-Request-Id", "")
        # Tornado calls this before `initialize`, and again before it writes an error.
        if not hasattr(self, "request_id"):
            self.request_id = asked if SAFE_REQUEST_ID.fullmatch(asked) else secrets.token_hex(8)
        own = {"X-Request-Id": self.request_id, "Content-Security-Policy": self.csp}
        for name, value in (HEADERS | own).items():
            self.set_header(name, value)

    def get_current_user(self) -> Identity | None:
        """Return who ``prepare`` found; JupyterHub's own look-up would block the event loop."""
        return self.identity

    def compute_etag(self) -> str | None:
        """Return no ETag, because nothing here may be cached."""
        return None

    async def identify(self) -> Identity | None:
        """Return the caller, by the header's token, else by the browser's cookie; ``None`` without either.

        Raises ``Refused`` for a token that is not valid or cannot reserve, and if the Hub does not answer.
        """
        self.token = bearer(self)
        if self.token is not None:
            return await self._of_token(self.token, cookie=False)
        cookie = self.get_secure_cookie(self.hub_auth.cookie_name)
        if cookie is None:
            return None
        if self.request.headers.get("Sec-Fetch-Mode") == "websocket":
            # JupyterHub accepts WebSockets without the XSRF token of the pages.
            raise Refused(Code.FORBIDDEN, "This service has no WebSockets.", "Reload the page and try again.")
        try:
            self.check_xsrf_cookie()
        except HTTPError as error:
            raise Refused(
                Code.FORBIDDEN,
                f"The browser's request did not come from a page of this service: {error.log_message}.",
                "Reload the page and try again.",
            ) from error
        return await self._of_token(cookie.decode("ascii", "replace"), cookie=True)

    async def hub_user(self, token: str) -> HubUser | None:
        """Return the owner of a token, ``None`` if the Hub does not know it."""
        return await self.site.auth.tokens.user(token, network(self.peer))

    async def _of_token(self, token: str, *, cookie: bool) -> Identity:
        user = await self.hub_user(token)
        if user is None:
            if cookie:
                self.clear_cookie(self.hub_auth.cookie_name, path=self.hub_auth.cookie_path)
            raise Refused(
                Code.UNAUTHENTICATED,
                "The Hub does not know this token: it has expired, was revoked, or belongs to another Hub.",
                "Log in again with `gpu-dev login`, or reload the page in a browser.",
            )
        identity = self.site.auth.identify(user, cookie=cookie)
        self.caller = identity.owner.subject
        self.site.check_access(identity.owner)
        return identity

    def limit(self, *, write: bool) -> None:
        """Count this request for the caller's rate. Raises ``RateLimited``."""
        (self.site.writes if write else self.site.reads).spend(self.caller)

    def answer(self, value: object, status: int = 200) -> None:
        self.set_status(status)
        self.set_header("Content-Type", JSON)
        self.finish(ENCODER.encode(value))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log a traceback for defects only; the access log has the refusals."""
        if isinstance(value, Refused | HTTPError | StoreUnavailable):
            return
        fields = {"request_id": self.request_id, "reservation": self.reservation}
        log.error("request failed", exc_info=(typ, value, tb), extra={"fields": fields})

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Send every error in the same form, also those of Tornado and JupyterHub."""
        cause = kwargs.get("exc_info", (None, None, None))[1]
        allowed = sorted(self.allowed())
        if status_code == 405 and not allowed:
            status_code = 404  # no method is supported, so there is nothing at this address
        error, status = describe(cause, status_code, self.request.method or "", self.request_id)
        self.error_code = error.code
        if status == 405:
            self.set_header("Allow", ", ".join(allowed))
        if isinstance(cause, RateLimited):
            self.set_header("Retry-After", str(cause.retry_after))
        if status == 401:
            self.set_header("WWW-Authenticate", "Bearer")
        self.show_error(error, status)

    def allowed(self) -> Iterable[str]:
        """Return the methods that this address supports."""
        return (
            method
            for method in self.SUPPORTED_METHODS
            if getattr(type(self), method.lower()) is not getattr(RequestHandler, method.lower())
        )

    def show_error(self, error: wire.Error, status: int) -> None:
        """Send an error as JSON; pages override this."""
        self.answer(wire.ErrorBody(error=error), status)


def describe(
    cause: BaseException | None, status: int, method: str, request_id: str
) -> tuple[wire.Error, int]:
    """Return error and HTTP status for an exception."""
    if isinstance(cause, Refused):
        error = error_of(cause)
        if cause.code is Code.INTERNAL_ERROR:
            error.hint = f"Contact an operator and quote request id {request_id}."
        return error, STATUS[cause.code]
    hint = SEE_API
    if isinstance(cause, StoreUnavailable):
        code, message = Code.UNAVAILABLE, "The database of the reservation service does not answer."
        hint = "Try again with the same request_id."
    elif status == 404:
        code, message = Code.NOT_FOUND, "There is nothing at this address."
    elif status == 405:
        code, message = Code.METHOD_NOT_ALLOWED, f"This address does not support {method}."
    elif 400 <= status < 500:
        words = cause.log_message if isinstance(cause, HTTPError) else None
        code = Code.FORBIDDEN if status == 403 else Code.INVALID_REQUEST
        return wire.Error(code=code, message=words or "The request is malformed."), status
    else:
        code = Code.INTERNAL_ERROR
        message = f"Internal error in the reservation service; the log has request id {request_id}."
        hint = f"Try again. If it fails again, contact an operator and quote request id {request_id}."
    return wire.Error(code=code, message=message, hint=hint), STATUS[code]


class NotFoundHandler(BaseHandler):
    """Answers every unknown address."""

    def prepare(self) -> None:
        raise HTTPError(404)


class TooLargeHandler(BaseHandler):
    """Refuses a request whose body was too large and was discarded."""

    def initialize(self, site: Site, size: int, largest: int) -> None:  # type: ignore[override]
        super().initialize(site)
        self.size = size
        self.largest = largest

    def prepare(self) -> None:
        raise Refused(
            Code.TOO_LARGE,
            f"The body has {self.size} bytes; the limit is {self.largest}.",
            "Send a smaller body.",
        )


class PageHandler(BaseHandler):
    """A page for browsers: users who are not logged in go to the Hub's login, which leads back."""

    csp = (
        "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    )

    async def prepare(self) -> None:
        """Authenticate: ``self.person`` is the caller afterwards."""
        try:
            self.identity = await self.identify()
        except Refused as refused:
            if refused.code is not Code.UNAUTHENTICATED or bearer(self) is not None:
                raise
        if self.identity is None:
            if self.request.method != "GET":
                raise Refused(Code.UNAUTHENTICATED, "You are not logged in.", "Reload the page and log in.")
            self.redirect(self.get_login_url())
            return
        self.limit(write=self.request.method != "GET")


class LoginCallback(BaseHandler, HubOAuthCallbackHandler):
    """The last step of the Hub's OAuth login: sets the cookie, and redirects to the page requested first."""

    async def get(self) -> None:
        """``?code=&state=`` from the Hub."""
        try:
            await HubOAuthCallbackHandler.get(self)
        except HTTPError as error:
            if error.status_code < 500:
                raise
            raise Refused(
                Code.UNAVAILABLE, f"The login could not be completed: {error.log_message}.", "Log in again."
            ) from error
