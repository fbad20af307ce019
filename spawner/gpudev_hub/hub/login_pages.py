"""The handlers of a login at GitHub, and the pages for logins that fail."""

from __future__ import annotations

import base64
import json
import logging
import re
from typing import Any, Final

from jupyterhub.handlers.login import LoginHandler
from oauthenticator.oauth2 import OAuthCallbackHandler, OAuthLoginHandler
from tornado import web

from gpudev_hub.core.gate import PersonAnswer

LOST: Final = "gpudev_lost_access"
"""Attribute of a handler whose user has lost access: a ``PersonAnswer``."""
SELECT: Final = "select_account"
"""GitHub's ``prompt`` that lets people choose between several accounts."""
RETRY_AFTER: Final = 30
"""Seconds to wait before another try, if a login failed for a temporary reason."""

_ERROR: Final = re.compile(r"[a-z_]{1,64}")


class LoginFailed(web.HTTPError):
    """A failed login. Its page says why, what to do and whom to ask."""

    status = 500
    title = ""
    message = ""
    hint = ""
    again = "Log in with GitHub"
    """Text of the button that starts the login again."""
    other_account = False
    """Whether to offer a login with another account."""
    ask = True
    """Whether to show whom to ask."""
    level = logging.INFO
    """Of the line in the log."""

    def __init__(
        self, message: str = "", hint: str = "", *, ask: bool | None = None, detail: str = ""
    ) -> None:
        """``detail``: for the log only."""
        self.message = message or self.message
        super().__init__(self.status, "%s", self.message)
        self.hint = hint or self.hint
        self.ask = self.ask if ask is None else ask
        self.detail = detail
        self.headers = {"Retry-After": str(RETRY_AFTER)} if self.status == 503 else {}
        self.jupyterhub_message = f"{self.message} {self.hint}"


class Refused(LoginFailed):
    """The person may not use this hub."""

    status, title, again, other_account = 403, "You cannot use this hub", "Try again", True


class AccountRefused(Refused):
    """GitHub does not let the account log in."""

    hint = "Repair that at GitHub, and log in again."


class Unavailable(LoginFailed):
    """The login cannot be checked now."""

    status, title, again = 503, "Logging in does not work now", "Try again"
    hint = "Try again in a few minutes. Reservations and running servers are not affected."


class GithubSilent(Unavailable):
    """GitHub does not answer now. This says nothing about the person."""

    level = logging.WARNING
    message = (
        "GitHub did not answer, so the hub cannot find out who you are. This does not mean that your access "
        "was refused."
    )


class LoginExpired(LoginFailed):
    """The code or the state of the login was used before, or has expired."""

    status, title, ask = 400, "This login has expired", False
    message = (
        "The login was not finished in time, was finished already, or was started in another browser or tab."
    )
    hint = "Start the login again. Finish it in the same browser within a day."


class AppBroken(LoginFailed):
    """GitHub does not accept this hub's App."""

    title, again, level = "This hub is not set up correctly", "Try again", logging.ERROR
    hint = "Tell an operator of this hub: the command gpu-dev admin github-check shows the problem."

    def __init__(self, what: str) -> None:
        """``what``: GitHub's error."""
        super().__init__(
            f"GitHub does not accept this hub's GitHub App ({what}). Nobody can log in until this is fixed."
        )


class Cancelled(LoginFailed):
    """The person did not authorize the App."""

    status, title, ask = 403, "You cancelled the login", False
    message = "You did not authorize this hub at GitHub, so it does not know who you are."
    hint = (
        "To log in, authorize it. The hub learns your user name and account number. It gets no access to "
        "your repositories."
    )


class LoginRedirect(OAuthLoginHandler):
    """Sends the browser to GitHub."""

    def authorize_redirect(self, *args: Any, **kwargs: Any) -> None:
        """Redirect as JupyterHub does; ``?prompt=select_account`` lets people choose the account."""
        if self.get_argument("prompt", "") == SELECT:
            kwargs["extra_params"] = {**(kwargs.get("extra_params") or {}), "prompt": SELECT}
        super().authorize_redirect(*args, **kwargs)


class LoginCallback(OAuthCallbackHandler):
    """Handles the browser's return from GitHub."""

    async def get(self) -> None:
        try:
            self.check_arguments()
            user = await self.login_user()
            if user is None:
                # JupyterHub refuses the name.
                raise Refused("JupyterHub does not accept your user name.", "Ask an operator of this hub.")
        except LoginFailed as failed:
            await self._show(failed)
        else:
            self.redirect(self.get_next_url(user))

    async def _show(self, failed: LoginFailed) -> None:
        why = f"{failed.message} ({failed.detail})" if failed.detail else failed.message
        self.log.log(failed.level, "a login ended with %d: %s", failed.status, why)
        self.set_status(failed.status_code)
        # The page's address contains GitHub's code.
        private = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        for name, value in (failed.headers | private).items():
            self.set_header(name, value)
        login = self.authenticator.login_url(self.hub.base_url)
        other = f"{login}?prompt={SELECT}" if failed.other_account else ""
        self.finish(await self.render_template("login_failed.html", failed=failed, login=login, other=other))

    def check_error(self) -> None:
        error = self.get_argument("error", "")
        if error == "access_denied":
            raise Cancelled
        if error:
            raise AppBroken(error if _ERROR.fullmatch(error) else "an unknown error")

    def check_code(self) -> None:
        if not self.get_argument("code", ""):
            raise LoginExpired

    def check_state(self) -> None:
        """Check that the login was started in this browser. No state is logged."""
        kept = _fields(self.get_state_cookie())
        given = _fields(self.get_argument("state", ""))
        same = kept.get("state_id") and kept["state_id"] == given.get("state_id")
        if not same or not kept.get("code_verifier"):
            raise LoginExpired


def _fields(state: str) -> dict[str, Any]:
    """Return the content of a state, as oauthenticator writes it; empty if it is damaged."""
    try:
        found = json.loads(base64.urlsafe_b64decode(state.encode()))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


class LoginPage(LoginHandler):
    """The Hub's login page. It also tells people that they have lost access while logged in."""

    def _render(self, **kwargs: Any) -> Any:
        lost: PersonAnswer | None = getattr(self, LOST, None)
        return super()._render(**kwargs, lost=lost)
