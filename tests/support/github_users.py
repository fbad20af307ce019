"""Users of a hub who log in with the fake GitHub beside it."""

from __future__ import annotations

import httpx

from fake_github import FakeGithub
from github_login import GithubLogin
from gpudev.login import DAYS, SCOPES
from hub_users import HubUsers

TEAM = ("pytorch", "metamates")
REPOSITORY = "pytorch/pytorch"


class GithubUsers(HubUsers):
    """A mixin for a hub of any engine, to be named before it. Users have the names of their GitHub logins."""

    github: FakeGithub

    def register(self, login: str, name: str = "") -> None:
        """Make an account that may enter, unless it exists."""
        control = self.github.control
        if any(account.login == login for account in self.github.state.accounts.values()):
            return
        control.account(login, name=name)
        control.join(*TEAM, login)
        control.collaborator(REPOSITORY, login, "write")

    def newcomer(self) -> str:
        """Register an account that may enter but never has; return its login."""
        login = f"new-{len(self.github.state.accounts)}"
        self.register(login, "newcomer")
        return login

    def browser(self) -> GithubLogin:
        """Return a browser without cookies."""
        return GithubLogin(self.url)

    def browse(self, user: str) -> httpx.Client:
        """Return a browser in which that user has logged in."""
        browser = self.browser()
        answer = browser.log_in(user)
        assert answer.status_code == 200, answer.text
        return browser.http

    def token_for(self, user: str | None = None) -> str:
        """Return a Hub token of a user, with the scopes that ``gpu-dev login`` requests."""
        name = user or self.user
        if name not in self._tokens:
            browser = self.browser()
            answer = browser.log_in(name)
            assert answer.status_code == 200, answer.text
            self._tokens[name] = browser.make_token(list(SCOPES), DAYS * 24 * 3600)
            browser.close()
        return self._tokens[name]
