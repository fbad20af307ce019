"""The fake GitHub behaves as GitHub does in everything that the product relies on."""

from __future__ import annotations

import base64
import hashlib
import json
import queue
import re
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest

from fake_github import FakeGithub
from fake_github.hooks import signature

CALLBACK = "http://127.0.0.1:9/hub/oauth_callback"
MEMBERS = "/orgs/pytorch/teams/metamates/members"


@pytest.fixture
def http(github: FakeGithub) -> Iterator[httpx.Client]:
    """A client of the API without credentials."""
    with httpx.Client(base_url=github.api_url, trust_env=False) as client:
        yield client


@pytest.fixture
def pages(github: FakeGithub) -> Iterator[httpx.Client]:
    """A browser without scripts."""
    with httpx.Client(base_url=github.url, trust_env=False) as client:
        yield client


@pytest.fixture
def key(app_folder: Path, github: FakeGithub) -> str:
    return (app_folder / "app.pem").read_text()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def app_jwt(
    key: str, github: FakeGithub, *, iat: float = -60, exp: float = 500, iss: str | None = None
) -> str:
    now = int(github.state.now())
    claims = {"iat": now + iat, "exp": now + exp, "iss": iss or str(github.state.app.id)}
    return jwt.encode(claims, key, algorithm="RS256")


def installation_token(http: httpx.Client, key: str, github: FakeGithub, **body: Any) -> str:
    headers = bearer(app_jwt(key, github))
    found = http.get("/orgs/pytorch/installation", headers=headers).json()["id"]
    answer = http.post(f"/app/installations/{found}/access_tokens", headers=headers, json=body)
    assert answer.status_code == 201
    token: str = answer.json()["token"]
    return token


class TestApp:
    @pytest.mark.parametrize(
        ("change", "status", "words"),
        [
            ({}, 200, ""),
            ({"iss": "Iv23liFakeGithubApp1"}, 200, ""),
            ({"exp": 700}, 401, "too far in the future"),
            ({"exp": -9}, 401, "'Expiration time'"),
            ({"iat": 300}, 401, "'Issued at'"),
            ({"iss": "1"}, 404, "Integration not found"),
        ],
    )
    def test_jwt_claims_are_checked(
        self,
        http: httpx.Client,
        key: str,
        github: FakeGithub,
        change: dict[str, Any],
        status: int,
        words: str,
    ) -> None:
        answer = http.get("/app", headers=bearer(app_jwt(key, github, **change)))
        assert answer.status_code == status
        assert words in answer.text

    def test_a_jwt_of_another_key_or_algorithm_is_refused(
        self, http: httpx.Client, github: FakeGithub, other_key: str
    ) -> None:
        assert http.get("/app", headers=bearer(app_jwt(other_key, github))).status_code == 401
        now = int(github.state.now())
        weak = jwt.encode({"iat": now - 60, "exp": now + 60, "iss": "4242"}, "k" * 32, algorithm="HS256")
        assert http.get("/app", headers=bearer(weak)).status_code == 401

    def test_installation_tokens_are_long_and_last_an_hour(
        self, http: httpx.Client, key: str, github: FakeGithub
    ) -> None:
        token = installation_token(http, key, github)
        assert re.fullmatch(r"ghs_4242_[\w-]+\.[\w-]+\.[\w-]+", token)
        assert len(token) > 300
        assert http.get(MEMBERS, headers=bearer(token)).status_code == 200
        github.control.clock(3601)
        answer = http.get(MEMBERS, headers=bearer(token))
        assert (answer.status_code, answer.json()["message"]) == (401, "Bad credentials")

    def test_tokens_can_be_narrowed_but_not_widened(
        self, http: httpx.Client, key: str, github: FakeGithub
    ) -> None:
        token = installation_token(http, key, github, permissions={"metadata": "read"})
        assert http.get(MEMBERS, headers=bearer(token)).status_code == 404
        headers = bearer(app_jwt(key, github))
        [installation] = github.state.installations
        asked = {"permissions": {"administration": "write"}}
        path = f"/app/installations/{installation}/access_tokens"
        assert http.post(path, headers=headers, json=asked).status_code == 422

    def test_a_suspended_app_gets_403_and_an_uninstalled_one_404(
        self, http: httpx.Client, key: str, github: FakeGithub
    ) -> None:
        token = installation_token(http, key, github)
        [installation] = github.state.installations
        path = f"/app/installations/{installation}/access_tokens"
        github.control.suspend_app("pytorch")
        assert http.get(MEMBERS, headers=bearer(token)).status_code == 403
        assert http.post(path, headers=bearer(app_jwt(key, github))).status_code == 403
        github.control.uninstall("pytorch")
        assert http.get(MEMBERS, headers=bearer(token)).status_code == 401
        assert http.post(path, headers=bearer(app_jwt(key, github))).status_code == 404
        assert http.get("/orgs/pytorch/installation", headers=bearer(app_jwt(key, github))).status_code == 404

    @pytest.mark.parametrize("status", [404, 403])
    def test_teams_without_members_read(
        self, http: httpx.Client, key: str, github: FakeGithub, status: int
    ) -> None:
        github.control.permissions("pytorch", {"metadata": "read"}, missing_status=status)
        token = installation_token(http, key, github)
        answer = http.get("/orgs/pytorch/teams/metamates", headers=bearer(token))
        assert answer.status_code == status
        if status == 403:
            assert answer.headers["X-Accepted-GitHub-Permissions"] == "members=read"
            assert answer.json()["message"] == "Resource not accessible by integration"


class TestRequests:
    def test_a_user_agent_is_mandatory(self, http: httpx.Client) -> None:
        del http.headers["User-Agent"]
        assert http.get("/user/101").status_code == 403

    def test_the_api_version_is_checked(self, http: httpx.Client) -> None:
        for version, status in (("2022-11-28", 200), ("2026-03-10", 200), ("2020-01-01", 400)):
            answer = http.get("/user/101", headers={"X-GitHub-Api-Version": version})
            assert answer.status_code == status

    def test_a_trailing_slash_is_404(self, http: httpx.Client) -> None:
        assert http.get("/users/ada").status_code == 200
        assert http.get("/users/ada/").status_code == 404

    def test_an_etag_belongs_to_its_token_and_304_is_free(
        self, http: httpx.Client, key: str, github: FakeGithub
    ) -> None:
        first, second = (bearer(installation_token(http, key, github)) for _ in range(2))
        full = http.get(MEMBERS, headers=first)
        tag = {"If-None-Match": full.headers["ETag"]}
        again = http.get(MEMBERS, headers=first | tag)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["X-RateLimit-Remaining"] == full.headers["X-RateLimit-Remaining"]
        assert http.get(MEMBERS, headers=second | tag).status_code == 200
        github.control.leave("pytorch", "metamates", "ben")
        assert http.get(MEMBERS, headers=first | tag).status_code == 200

    @pytest.mark.parametrize("status", [403, 429])
    def test_over_the_hourly_limit(
        self, http: httpx.Client, key: str, github: FakeGithub, status: int
    ) -> None:
        token = installation_token(http, key, github)
        github.control.rate_limit(remaining=1, reset_in=90, status=status)
        assert http.get(MEMBERS, headers=bearer(token)).status_code == 200
        answer = http.get(MEMBERS, headers=bearer(token))
        assert answer.status_code == status
        assert answer.headers["X-RateLimit-Remaining"] == "0"
        assert 0 < int(answer.headers["X-RateLimit-Reset"]) - time.time() <= 91
        assert "Retry-After" not in answer.headers
        shown = http.get("/rate_limit", headers=bearer(token)).json()["rate"]
        assert (shown["limit"], shown["remaining"]) == (5000, 0)
        github.control.clock(91)
        assert http.get(MEMBERS, headers=bearer(token)).status_code == 200

    @pytest.mark.parametrize(("status", "retry_after"), [(403, 30), (429, 30), (403, None), (429, None)])
    def test_secondary_limits(
        self, http: httpx.Client, github: FakeGithub, status: int, retry_after: int | None
    ) -> None:
        github.control.secondary_limit(status=status, retry_after=retry_after, times=1)
        answer = http.get("/user/101")
        assert answer.status_code == status
        assert answer.headers.get("Retry-After") == (None if retry_after is None else "30")
        assert "X-RateLimit-Remaining" not in answer.headers
        assert http.get("/user/101").status_code == 200

    def test_60_requests_an_hour_without_credentials(self, http: httpx.Client, github: FakeGithub) -> None:
        github.state.windows.clear()
        for _ in range(60):
            assert http.get("/user/101").status_code == 200
        assert http.get("/user/101").status_code == 403


class TestAccounts:
    def test_rename_frees_the_login_and_keeps_the_id(self, http: httpx.Client, github: FakeGithub) -> None:
        github.control.rename("ada", "ada-l")
        assert http.get("/user/101").json()["login"] == "ada-l"
        assert http.get("/users/ada").status_code == 404
        github.control.account("ada", name="somebody else")
        assert http.get("/users/ada").json()["id"] != 101

    def test_a_deleted_id_is_404_for_ever(self, http: httpx.Client, github: FakeGithub) -> None:
        github.control.delete("ada")
        again = github.control.account("ada")
        assert http.get("/user/101").status_code == 404
        assert http.get(f"/user/{again.id}").json()["login"] == "ada"

    def test_keys_come_30_a_page_and_all_as_text(
        self, http: httpx.Client, pages: httpx.Client, github: FakeGithub
    ) -> None:
        for number in range(65):
            github.control.add_key("ada", f"ssh-ed25519 AAAA{number}")
        url: str | None = "/users/ada/keys"
        sizes = []
        while url:
            answer = http.get(url)
            sizes.append(len(answer.json()))
            url = answer.links.get("next", {}).get("url")
        assert sizes == [30, 30, 5]
        assert len(http.get("/users/ada/keys?per_page=100").json()) == 65
        assert len(http.get("/users/ada/keys?per_page=500").json()) == 65
        assert pages.get("/ada.keys").text.splitlines()[64] == "ssh-ed25519 AAAA64"
        assert pages.get("/nobody.keys").status_code == 404


class TestRights:
    @pytest.fixture
    def token(self, http: httpx.Client, key: str, github: FakeGithub) -> dict[str, str]:
        return bearer(installation_token(http, key, github))

    def test_pending_members_are_not_members(self, http: httpx.Client, token: dict[str, str]) -> None:
        path = "/orgs/pytorch/teams/metamates/memberships"
        assert http.get(f"{path}/pete", headers=token).json()["state"] == "pending"
        assert http.get(f"{path}/ada", headers=token).json()["state"] == "active"
        assert http.get(f"{path}/eve", headers=token).status_code == 404
        assert "pete" not in {user["login"] for user in http.get(MEMBERS, headers=token).json()}

    def test_members_of_child_teams_are_members(
        self, http: httpx.Client, token: dict[str, str], github: FakeGithub
    ) -> None:
        github.control.team("pytorch", "infra", parent="metamates")
        github.control.join("pytorch", "infra", "eve")
        members = {user["login"]: user["inherited"] for user in http.get(MEMBERS, headers=token).json()}
        assert (members["eve"], members["ada"]) == (True, False)
        path = "/orgs/pytorch/teams/metamates/memberships/eve"
        assert http.get(path, headers=token).json()["state"] == "active"

    def test_organisation_owners_show_as_maintainers(
        self, http: httpx.Client, token: dict[str, str], github: FakeGithub
    ) -> None:
        github.control.org_member("pytorch", "ada", role="admin")
        path = "/orgs/pytorch/teams/metamates/memberships/ada"
        assert http.get(path, headers=token).json()["role"] == "maintainer"

    @pytest.mark.parametrize(
        ("login", "permission", "role"),
        [
            ("ada", "write", "write"),
            ("olga", "write", "maintain"),
            ("cleo", "read", "read"),
            ("eve", "read", "read"),
        ],
    )
    def test_permission(
        self, http: httpx.Client, token: dict[str, str], login: str, permission: str, role: str
    ) -> None:
        path = f"/repos/pytorch/pytorch/collaborators/{login}/permission"
        found = http.get(path, headers=token).json()
        assert (found["permission"], found["role_name"], found["user"]["login"]) == (permission, role, login)

    def test_permission_of_nobody_is_404(self, http: httpx.Client, token: dict[str, str]) -> None:
        path = "/repos/pytorch/pytorch/collaborators/nobody/permission"
        assert http.get(path, headers=token).status_code == 404

    def test_custom_roles_show_their_name_and_base(
        self, http: httpx.Client, token: dict[str, str], github: FakeGithub
    ) -> None:
        github.control.custom_role("pytorch/pytorch", "merger", "write")
        github.control.collaborator("pytorch/pytorch", "eve", "merger")
        found = http.get("/repos/pytorch/pytorch/collaborators/eve/permission", headers=token).json()
        assert (found["permission"], found["role_name"]) == ("write", "merger")

    def test_push_collaborators_come_from_all_sources(
        self, http: httpx.Client, token: dict[str, str], github: FakeGithub
    ) -> None:
        github.control.team("pytorch", "mergers")
        github.control.team("pytorch", "night", parent="mergers")
        github.control.team_role("pytorch", "mergers", "pytorch/pytorch", "write")
        github.control.join("pytorch", "night", "cleo")
        path = "/repos/pytorch/pytorch/collaborators?affiliation=all&permission=push&per_page=2"
        first = http.get(path, headers=token)
        second = http.get(first.links["next"]["url"], headers=token)
        third = http.get(second.links["next"]["url"], headers=token)
        logins = [user["login"] for page in (first, second, third) for user in page.json()]
        assert logins == ["ada", "ben", "cleo", "dora", "olga", "pete"]
        assert "next" not in third.links
        assert all(user["permissions"]["push"] for user in first.json())

    def test_what_a_team_may_do(self, http: httpx.Client, token: dict[str, str], github: FakeGithub) -> None:
        path = "/orgs/pytorch/teams/metamates/repos/pytorch/pytorch"
        accept = {"Accept": "application/vnd.github.v3.repository+json"}
        assert http.get(path, headers=token | accept).status_code == 404
        github.control.team_role("pytorch", "metamates", "pytorch/pytorch", "write")
        assert http.get(path, headers=token | accept).json()["permissions"]["push"]
        assert http.get(path, headers=token).status_code == 204


def challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def log_in(pages: httpx.Client, github: FakeGithub, login: str, **more: str) -> dict[str, list[str]]:
    """Go through the login page; returns what the callback URL carries."""
    query = {"client_id": github.state.app.client_id, "redirect_uri": CALLBACK, "state": "s", **more}
    page = pages.get("/login/oauth/authorize", params=query)
    if page.status_code == 200:
        hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text))
        page = pages.post("/login/oauth/authorize", data=hidden | {"login": login, "decision": "authorize"})
    assert page.status_code == 302
    assert page.headers["Location"].startswith(CALLBACK)
    return parse_qs(urlsplit(page.headers["Location"]).query)


def exchange(pages: httpx.Client, github: FakeGithub, **fields: str) -> dict[str, Any]:
    app = github.state.app
    data = {"client_id": app.client_id, "client_secret": app.client_secret, **fields}
    answer = pages.post("/login/oauth/access_token", data=data, headers={"Accept": "application/json"})
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


class TestLogin:
    def test_the_whole_web_flow(self, pages: httpx.Client, http: httpx.Client, github: FakeGithub) -> None:
        back = log_in(pages, github, "Ada", code_challenge=challenge("v" * 43), code_challenge_method="S256")
        assert back["state"] == ["s"]
        [code] = back["code"]
        found = exchange(pages, github, code=code, code_verifier="v" * 43)
        assert found["access_token"].startswith("ghu_")
        assert (found["scope"], found["expires_in"]) == ("", 28800)
        assert http.get("/user", headers=bearer(found["access_token"])).json()["id"] == 101
        assert exchange(pages, github, code=code, code_verifier="v" * 43)["error"] == "bad_verification_code"

    @pytest.mark.parametrize("verifier", ["", "w" * 43])
    def test_pkce_is_verified(self, pages: httpx.Client, github: FakeGithub, verifier: str) -> None:
        back = log_in(pages, github, "ada", code_challenge=challenge("v" * 43), code_challenge_method="S256")
        found = exchange(pages, github, code=back["code"][0], code_verifier=verifier)
        assert found["error"] == "bad_verification_code"

    def test_only_s256_is_supported(self, pages: httpx.Client, github: FakeGithub) -> None:
        back = log_in(pages, github, "ada", code_challenge="v" * 43, code_challenge_method="plain")
        assert back["error"] == ["invalid_request"]

    def test_redirects_go_to_a_registered_url_only(self, pages: httpx.Client, github: FakeGithub) -> None:
        back = log_in(pages, github, "ada", redirect_uri="http://127.0.0.1:9/elsewhere")
        assert back["error"] == ["redirect_uri_mismatch"]
        unknown = pages.get("/login/oauth/authorize", params={"client_id": "x", "redirect_uri": CALLBACK})
        assert unknown.status_code == 404

    def test_a_signed_in_browser_is_sent_back_at_once_unless_it_shall_choose(
        self, pages: httpx.Client, github: FakeGithub
    ) -> None:
        log_in(pages, github, "ada")
        query = {"client_id": github.state.app.client_id, "redirect_uri": CALLBACK}
        assert pages.get("/login/oauth/authorize", params=query).status_code == 302
        chosen = pages.get("/login/oauth/authorize", params=query | {"prompt": "select_account"})
        assert chosen.status_code == 200
        assert 'value="ada" checked' in chosen.text

    def test_cancel_and_wrong_logins(self, pages: httpx.Client, github: FakeGithub) -> None:
        data = {"client_id": github.state.app.client_id, "redirect_uri": CALLBACK}
        cancelled = pages.post("/login/oauth/authorize", data=data | {"decision": "cancel"})
        assert "error=access_denied" in cancelled.headers["Location"]
        for login in ("nobody", ""):
            answer = pages.post("/login/oauth/authorize", data=data | {"login": login})
            assert answer.status_code == 422
            assert 'role="alert"' in answer.text

    def test_a_wrong_secret_is_told_with_200(self, pages: httpx.Client, github: FakeGithub) -> None:
        back = log_in(pages, github, "ada")
        found = exchange(pages, github, code=back["code"][0], client_secret="no")
        assert found["error"] == "incorrect_client_credentials"

    def test_user_tokens_expire_and_refresh_tokens_work_once(
        self, pages: httpx.Client, http: httpx.Client, github: FakeGithub
    ) -> None:
        found = exchange(pages, github, code=log_in(pages, github, "ada")["code"][0])
        github.control.expire_user_tokens()
        assert http.get("/user", headers=bearer(found["access_token"])).status_code == 401
        fields = {"grant_type": "refresh_token", "refresh_token": found["refresh_token"]}
        assert exchange(pages, github, **fields)["access_token"].startswith("ghu_")
        assert exchange(pages, github, **fields)["error"] == "bad_refresh_token"

    def test_a_token_can_be_checked_and_thrown_away(
        self, pages: httpx.Client, http: httpx.Client, github: FakeGithub
    ) -> None:
        app = github.state.app
        token = exchange(pages, github, code=log_in(pages, github, "ada")["code"][0])["access_token"]
        path = f"/applications/{app.client_id}/token"
        asked: dict[str, Any] = {"json": {"access_token": token}, "auth": (app.client_id, app.client_secret)}
        assert http.request("POST", path, **asked).json()["user"]["id"] == 101
        assert http.request("POST", path, **asked | {"auth": (app.client_id, "no")}).status_code == 401
        assert http.request("DELETE", path, **asked).status_code == 204
        assert http.get("/user", headers=bearer(token)).status_code == 401
        assert http.request("POST", path, **asked).status_code == 404

    def test_saml(self, pages: httpx.Client, http: httpx.Client, github: FakeGithub) -> None:
        token = exchange(pages, github, code=log_in(pages, github, "ada")["code"][0])["access_token"]
        github.control.saml("pytorch", enforced=True)
        assert [org["login"] for org in http.get("/user/orgs", headers=bearer(token)).json()] == ["pytorch"]
        github.control.sso("ada", session=False)
        short = http.get("/user/orgs", headers=bearer(token))
        assert (short.status_code, short.json()) == (200, [])
        assert short.headers["X-GitHub-SSO"].startswith("partial-results; organizations=")
        refused = http.get("/orgs/pytorch/teams/metamates", headers=bearer(token))
        assert refused.status_code == 403
        assert refused.headers["X-GitHub-SSO"].startswith("required; url=")


class TestFailures:
    def test_outage_and_healing(self, http: httpx.Client, github: FakeGithub) -> None:
        github.control.outage()
        assert http.get("/user/101").status_code == 503
        github.control.heal()
        assert http.get("/user/101").status_code == 200

    def test_hang_and_drop(self, http: httpx.Client, github: FakeGithub) -> None:
        github.control.fail(path=".*/user/101", hang=True, times=1)
        with pytest.raises(httpx.ReadTimeout):
            http.get("/user/101", timeout=0.2)
        github.control.fail(path=".*/user/101", drop=True, times=1)
        with pytest.raises(httpx.RemoteProtocolError):
            http.get("/user/101")
        assert http.get("/user/101").status_code == 200

    def test_a_cut_and_a_shortened_page(self, http: httpx.Client, key: str, github: FakeGithub) -> None:
        token = installation_token(http, key, github)
        github.control.fail(path=f"/api/v3{MEMBERS}", skip=1, times=1, cut=40)
        first = http.get(MEMBERS, params={"per_page": 2}, headers=bearer(token))
        with pytest.raises(httpx.RemoteProtocolError):
            http.get(first.links["next"]["url"], headers=bearer(token))
        github.control.fail(path=f"/api/v3{MEMBERS}", fewer=1, times=1)
        assert len(http.get(MEMBERS, headers=bearer(token)).json()) == 3
        assert len(http.get(MEMBERS, headers=bearer(token)).json()) == 4

    def test_control_over_http(self, pages: httpx.Client, http: httpx.Client, github: FakeGithub) -> None:
        assert pages.post("/_control/rename", json={"login": "ada", "to": "lovelace"}).status_code == 200
        assert http.get("/user/101").json()["login"] == "lovelace"
        assert pages.post("/_control/rename", json={"login": "nobody", "to": "x"}).status_code == 400
        assert "rename" in pages.post("/_control/nothing").json()["operations"]
        assert pages.get("/_control/accounts").json()["lovelace"] == 101
        assert [seen["path"] for seen in pages.get("/_control/requests").json()] == ["/api/v3/user/101"]

    def test_the_clock_shows_in_every_answer(self, http: httpx.Client, github: FakeGithub) -> None:
        github.control.clock(-900)
        shown = http.get("/user/101").headers["Date"]
        assert -905 < parsedate_to_datetime(shown).timestamp() - time.time() < -895


class TestWebhooks:
    @pytest.fixture
    def received(self, github: FakeGithub) -> Iterator[queue.Queue[tuple[dict[str, str], bytes]]]:
        found: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                found.put((dict(self.headers), body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                return

        server = HTTPServer(("127.0.0.1", 0), Receiver)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        github.control.app(hook_url=f"http://127.0.0.1:{server.server_port}/hook")
        yield found
        server.shutdown()
        thread.join()
        server.server_close()

    def test_deliveries_are_signed(
        self, github: FakeGithub, received: queue.Queue[tuple[dict[str, str], bytes]]
    ) -> None:
        github.control.leave("pytorch", "metamates", "ada")
        headers, body = received.get(timeout=20)
        assert headers["X-GitHub-Event"] == "membership"
        assert headers["X-Hub-Signature-256"] == signature(github.state.app.hook_secret, body)
        found = json.loads(body)
        assert (found["action"], found["member"]["id"], found["team"]["slug"]) == (
            "removed",
            101,
            "metamates",
        )

    def test_a_rename_tells_nobody_and_an_app_event_always_comes(
        self, github: FakeGithub, received: queue.Queue[tuple[dict[str, str], bytes]]
    ) -> None:
        github.control.app(events=[])
        github.control.rename("ada", "lovelace")
        github.control.leave("pytorch", "metamates", "ben")
        github.control.suspend_app("pytorch")
        headers, body = received.get(timeout=20)
        assert (headers["X-GitHub-Event"], json.loads(body)["action"]) == ("installation", "suspend")
        assert [delivery.event for delivery in github.state.deliveries] == ["installation"]

    def test_redelivery_is_asked_for_by_api(
        self,
        github: FakeGithub,
        http: httpx.Client,
        key: str,
        received: queue.Queue[tuple[dict[str, str], bytes]],
    ) -> None:
        github.control.leave("pytorch", "metamates", "ada")
        first, _ = received.get(timeout=20)
        headers = bearer(app_jwt(key, github))
        [listed] = http.get("/app/hook/deliveries", headers=headers).json()
        assert http.post(f"/app/hook/deliveries/{listed['id']}/attempts", headers=headers).status_code == 202
        second, _ = received.get(timeout=20)
        assert first["X-GitHub-Delivery"] == second["X-GitHub-Delivery"]


def test_it_runs_by_itself(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fake_github", "--folder", str(tmp_path / "app"), "--callback", CALLBACK]
    support = Path(__file__).parents[1] / "support"
    with subprocess.Popen(command, cwd=support, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            settings = json.loads((tmp_path / "app" / "github.json").read_text())
            assert settings["url"] == url
            assert (settings["team"], settings["repository"]) == ("pytorch/metamates", "pytorch/pytorch")
            for name in ("client_secret_file", "private_key_file", "webhook_secret_file"):
                assert stat.S_IMODE(Path(settings[name]).stat().st_mode) == 0o600
            assert httpx.get(f"{settings['api_url']}/user/106", trust_env=False).json()["login"] == "olga"
        finally:
            process.terminate()
        assert process.wait(20) == 0
