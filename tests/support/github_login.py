"""Log-in with the fake GitHub as a browser does it, without one."""

from __future__ import annotations

import html
import re

import httpx

from hub_users import NO_TLS

XSRF = re.compile(r'data-xsrf="([^"]*)"')
HIDDEN = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)">')


class GithubLogin:
    """One browser: its cookies at the hub and at GitHub."""

    def __init__(self, hub: str) -> None:
        """``hub``: the hub's address, without a slash at the end."""
        self.hub = hub
        self.http = httpx.Client(
            base_url=hub, trust_env=False, verify=NO_TLS, timeout=60, follow_redirects=True
        )

    def begin(self, next: str = "/services/gpudev/") -> httpx.Response:
        """Go to GitHub; its page asks for the account, or the browser is sent back at once."""
        return self.http.get("/hub/oauth_login", params={"next": next})

    def choose(self, page: httpx.Response, login: str, decision: str = "authorize") -> httpx.Response:
        """Choose an account on GitHub's page; returns where that leads to."""
        fields = {html.unescape(name): html.unescape(value) for name, value in HIDDEN.findall(page.text)}
        fields |= {"login": login, "decision": decision}
        return self.http.post(str(page.url.copy_with(query=None)), data=fields)

    def log_in(self, login: str) -> httpx.Response:
        """Log in as one of GitHub's accounts; returns the page that this ends on."""
        return self.choose(self.begin(), login)

    def close(self) -> None:
        self.http.close()

    def name(self) -> str:
        """The Hub's name of whoever is logged in."""
        return str(self.http.get("/hub/api/user").raise_for_status().json()["name"])

    def make_token(self, scopes: list[str], seconds: int) -> str:
        """Make a token of the Hub, as its page does it."""
        found = XSRF.search(self.http.get("/hub/token").text)
        assert found is not None
        made = self.http.post(
            f"/hub/api/users/{self.name()}/tokens",
            headers={"X-XSRFToken": html.unescape(found[1])},
            json={"note": "a test", "expires_in": seconds, "scopes": scopes},
        )
        return str(made.raise_for_status().json()["token"])
