"""Logs in with the fake GitHub like a browser."""

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
        """Open the browser. ``hub`` is the hub's address, without a slash at the end."""
        self.hub = hub
        self.http = httpx.Client(
            base_url=hub, trust_env=False, verify=NO_TLS, timeout=60, follow_redirects=True
        )

    def begin(self, next: str = "/services/gpudev/") -> httpx.Response:
        """Go to GitHub; return its page, which asks for the account, or the page after the redirect back."""
        return self.http.get("/hub/oauth_login", params={"next": next})

    def choose(self, page: httpx.Response, login: str, decision: str = "authorize") -> httpx.Response:
        """Choose an account on GitHub's page; return the next page."""
        fields = {html.unescape(name): html.unescape(value) for name, value in HIDDEN.findall(page.text)}
        fields |= {"login": login, "decision": decision}
        return self.http.post(str(page.url.copy_with(query=None)), data=fields)

    def log_in(self, login: str) -> httpx.Response:
        """Log in as one of GitHub's accounts; return the last page."""
        return self.choose(self.begin(), login)

    def close(self) -> None:
        self.http.close()

    def name(self) -> str:
        """Return the name in the Hub of the user who is logged in."""
        return str(self.http.get("/hub/api/user").raise_for_status().json()["name"])

    def make_token(self, scopes: list[str], seconds: int) -> str:
        """Make a token of the Hub like its page."""
        found = XSRF.search(self.http.get("/hub/token").text)
        assert found is not None
        made = self.http.post(
            f"/hub/api/users/{self.name()}/tokens",
            headers={"X-XSRFToken": html.unescape(found[1])},
            json={"note": "a test", "expires_in": seconds, "scopes": scopes},
        )
        return str(made.raise_for_status().json()["token"])
