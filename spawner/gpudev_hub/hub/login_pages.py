"""The handlers of a login at GitHub, and the pages for logins that fail."""

from __future__ import annotations

import base64
import json
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
_START_AGAIN: Final = "Start the login again. Finish it in the same browser within a day."


class LoginFailed(web.HTTPError):
    """A failed login. Its page says why, what to do and whom to ask."""

    def __init__(
        self,
        status: int,
        title: str,
        message: str,
        hint: str,
        *,
        again: str = "Try again",
        other_account: bool = False,
        ask: bool = True,
    ) -> None:
        """``again``: text of the button that starts the login again; ``ask``: show whom to ask.

        ``other_account``: offer a login with another account.
        """
        super().__init__(status, "%s", message)
        self.title = title
        self.message = message
        self.hint = hint
        self.again = again
        self.other_account = other_account
        self.ask = ask
        self.headers = {"Retry-After": str(RETRY_AFTER)} if status == 503 else {}
        self.jupyterhub_message = f"{message} {hint}"


def refused(message: str, hint: str, *, ask: bool = True) -> LoginFailed:
    """Return the page for a person who may not use this hub; ``ask``: the hint does not say whom to ask."""
    return LoginFailed(403, "You cannot use this hub", message, hint, other_account=True, ask=ask)


def unavailable(message: str, hint: str = "") -> LoginFailed:
    """Return the page for a login that cannot be checked now."""
    hint = hint or "Try again in a few minutes. Reservations and running servers are not affected."
    return LoginFailed(503, "Logging in does not work now", message, hint)


def started_too_long_ago() -> LoginFailed:
    """Return the page for a login whose code or state has expired."""
    return LoginFailed(
        400,
        "This login has expired",
        "The login was not finished in time, was finished already, or was started in another browser or tab.",
        _START_AGAIN,
        again="Log in with GitHub",
        ask=False,
    )


def app_broken(what: str) -> LoginFailed:
    """Return the page for a GitHub App that GitHub does not accept."""
    return LoginFailed(
        500,
        "This hub is not set up correctly",
        f"GitHub does not accept this hub's GitHub App ({what}). Nobody can log in until this is fixed.",
        "Tell an operator of this hub: the command gpu-dev admin github-check shows the problem.",
    )


def cancelled() -> LoginFailed:
    """Return the page for a person who did not authorize the App."""
    return LoginFailed(
        403,
        "You cancelled the login",
        "You did not authorize this hub at GitHub, so it does not know who you are.",
        "To log in, authorize it. The hub learns your user name and account number. It gets no access to "
        "your repositories.",
        again="Log in with GitHub",
        ask=False,
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
                raise refused("JupyterHub does not accept your user name.", "Ask an operator of this hub.")
        except LoginFailed as failed:
            await self._show(failed)
        else:
            self.redirect(self.get_next_url(user))

    async def _show(self, failed: LoginFailed) -> None:
        self.log.info("a login ended with %d: %s", failed.status_code, failed.message)
        self.set_status(failed.status_code)
        # The page's address contains GitHub's code.
        private = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        for name, value in (failed.headers | private).items():
            self.set_header(name, value)
        login = self.authenticator.login_url(self.hub.base_url)
        about = {"failed": failed, "login": login, "other": f"{login}?prompt={SELECT}"}
        self.finish(await self.render_template("login_failed.html", **about))

    def check_error(self) -> None:
        error = self.get_argument("error", "")
        if error == "access_denied":
            raise cancelled()
        if error:
            raise app_broken(error if _ERROR.fullmatch(error) else "an unknown error")

    def check_code(self) -> None:
        if not self.get_argument("code", ""):
            raise started_too_long_ago()

    def check_state(self) -> None:
        """Check that the login was started in this browser. No state is logged."""
        kept = _fields(self.get_state_cookie())
        given = _fields(self.get_argument("state", ""))
        same = kept.get("state_id") and kept["state_id"] == given.get("state_id")
        if not same or not kept.get("code_verifier"):
            raise started_too_long_ago()


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
