"""Log-in with GitHub: the Hub finds out whose account it is, and the service decides whether it may enter.

All settings of JupyterHub and oauthenticator that let people in are refused.
"""

from __future__ import annotations

from typing import Any, Final

from oauthenticator.github import GitHubOAuthenticator
from traitlets import Bool

from gpudev_hub.core.gate import Entry, LoginAsked, PersonAnswer
from gpudev_hub.github_settings import GithubSettings
from gpudev_hub.parts import REFUSED

from . import login_pages
from .gate import GateClient
from .github_account import GithubLogin
from .scopes import OPERATORS

ASK_WHY: Final = "Ask them why."
REFRESH: Final = 1
"""Seconds after which the Hub checks a user's access again at a request.

For so long, browsers of people who lost access can still get tokens for their servers.
"""
CLOSED: Final = (
    "allow_all",
    "allow_existing_users",
    "allowed_users",
    "whitelist",
    "allowed_groups",
    "allowed_scopes",
    "allowed_organizations",
    "github_organization_whitelist",
    "admin_users",
    "admin_groups",
    "username_map",
    "enable_auth_state",
    "populate_teams_in_auth_state",
    "auth_state_groups_key",
    "modify_auth_state_hook",
    "refresh_user_hook",
    "scope",
)
"""Settings that let people in, make them admins of the Hub, rename them, or keep their GitHub tokens."""


def blocked(user: str) -> str:
    """Return the message for people in ``blocked_users``."""
    return f"The operators of this hub have blocked {user}."


class GitHubAppAuthenticator(GitHubOAuthenticator):
    """Lets in the people whom the reservation service allows; ``configure_github`` sets it up."""

    login_handler = login_pages.LoginRedirect
    callback_handler = login_pages.LoginCallback

    gate: GateClient
    github: GithubLogin

    other_ways_in_have_no_effect = Bool(
        False,
        config=True,
        help="True: start although settings such as allowed_users are set. They have no effect.",
    )

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        found = [name for name in CLOSED if getattr(self, name, None)]
        if found and not self.other_ways_in_have_no_effect:
            self.log.critical(
                "The Hub does not start, because settings of the authenticator are not allowed: %s. The team "
                "and the push permission alone decide who gets in, and the operator teams who is operator. "
                "Remove these settings. Or set c.GitHubAppAuthenticator.other_ways_in_have_no_effect = True: "
                "then the Hub starts, and these settings have no effect.",
                ", ".join(found),
            )
            raise SystemExit(REFUSED)

    def get_handlers(self, app: Any) -> list[tuple[str, Any]]:
        return [("/login", login_pages.LoginPage), *super().get_handlers(app)]

    async def authenticate(self, handler: Any, data: Any = None, **_: Any) -> dict[str, Any]:
        """Return the Hub user of a person who returns from GitHub. Raises ``LoginFailed``."""
        account = await self.github.account(self.build_access_tokens_request_params(handler, data))
        who = f"{account.login} (github:{account.id})"
        answer = await self.gate.login(LoginAsked(account.id, account.login))
        if answer is None:
            raise login_pages.Unavailable(
                "The reservation service did not answer, so the hub cannot check your access. This does not "
                "mean that your access was refused."
            )
        if answer.verdict is Entry.UNAVAILABLE:
            self.log.warning("%s cannot log in now: %s", who, answer.message)
            raise login_pages.Unavailable(answer.message, answer.hint)
        if answer.verdict is not Entry.ALLOWED or not answer.hub_user:
            self.log.warning("%s may not log in: %s", who, answer.message)
            raise login_pages.Refused(answer.message, answer.hint, ask=False)
        self.log.info("%s logs in as %s", who, answer.hub_user)
        return self._model(answer.hub_user, account.id, account.login, operator=answer.operator)

    @staticmethod
    def _model(hub_user: str, github_id: int, login: str, *, operator: bool) -> dict[str, Any]:
        return {
            "name": hub_user,
            "admin": False,
            "auth_state": None,
            "user_info": {"github_id": github_id, "login": login},
            "groups": [OPERATORS] if operator else [],
        }

    async def check_allowed(self, username: str, auth_model: dict[str, Any] | None) -> bool:
        """Return whether ``authenticate`` made the model: it raises for everybody who may not enter."""
        del username
        return bool(auth_model and (auth_model.get("user_info") or {}).get("github_id"))

    def check_blocked_users(self, username: str, auth_model: Any) -> bool:
        """Check as JupyterHub does, but show a page with the reason. Raises ``LoginFailed``."""
        if not super().check_blocked_users(username, auth_model):
            raise login_pages.Refused(blocked(username), ASK_WHY)
        return True

    async def is_admin(self, handler: Any, authentication: Any) -> bool:
        """Return false: nobody is an admin of the Hub."""
        del handler, authentication
        return False

    async def refresh_user(self, user: Any, handler: Any = None, **_: Any) -> bool | dict[str, Any]:
        """Return false only for people who have certainly lost access. Never raises.

        While the service or GitHub does not answer, everybody stays logged in.
        """
        answer: PersonAnswer | None
        if user.name in self.blocked_users:
            answer = PersonAnswer(Entry.REFUSED, message=blocked(user.name), hint=ASK_WHY)
        else:
            try:
                answer = await self.gate.person(user.name)
            except Exception:
                self.log.exception("the access of %s could not be checked; it stays as it is", user.name)
                return True
        if answer is None or answer.verdict is Entry.UNAVAILABLE:
            return True
        if answer.verdict is Entry.REFUSED:
            self.log.warning("%s has lost access: %s", user.name, answer.message)
            if handler is not None:
                setattr(handler, login_pages.LOST, answer)
                if not hasattr(handler, "_token_authenticated"):
                    # JupyterHub 6.1 reads it now, and sets it only for requests with a token.
                    handler._token_authenticated = False
            return False
        model = self._model(user.name, answer.github_id, answer.login, operator=answer.operator)
        groups = {group.name for group in user.orm_user.groups}
        if groups == set(model["groups"]) and user.user_info == model["user_info"] and not user.admin:
            return True
        return model


def configure_github(c: Any, settings: GithubSettings, gate: GateClient, public_url: str) -> None:
    """Set up log-in with GitHub; ``c`` is JupyterHub's configuration object.

    ``gate``: how the service is asked; ``public_url``: the Hub as browsers reach it, with its base path.
    """
    GitHubAppAuthenticator.gate = gate
    GitHubAppAuthenticator.github = GithubLogin(settings)
    hub = c.JupyterHub
    hub.authenticator_class = GitHubAppAuthenticator
    mine = c.GitHubAppAuthenticator
    mine.github_url = settings.url
    mine.github_api = settings.api_url
    mine.authorize_url = f"{settings.url}/login/oauth/authorize"
    mine.client_id = settings.client_id
    mine.oauth_callback_url = f"{public_url.rstrip('/')}/hub/oauth_callback"
    mine.login_service = "GitHub"
    mine.scope = []
    mine.enable_pkce = True
    mine.enable_auth_state = False
    mine.manage_groups = True
    mine.auth_refresh_age = REFRESH
    # Otherwise the Hub's API accepts the tokens of people who lost access, and makes new tokens with them.
    mine.auth_refresh_strict = True
    mine.auto_login = False
    # Keeps JupyterHub from warning that nobody could log in.
    mine.any_allow_config = True
    hub.template_vars = {
        **hub.template_vars,
        "gpudev_team": settings.team,
        "gpudev_repository": settings.repository,
    }
