"""Log-in with GitHub: a whole hub, the real web flow, and a GitHub that can fail."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from github_hub import GithubStack, running_github_stack
from github_login import GithubLogin
from gpudev_hub.settings import CHECKOUT
from hub_users import free_port, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def hub() -> Iterator[GithubStack]:
    with (
        TemporaryDirectory(prefix="gh-", ignore_cleanup_errors=True) as folder,
        running_github_stack(Path(folder)) as running,
    ):
        yield running


@pytest.fixture
def browser(hub: GithubStack) -> Iterator[GithubLogin]:
    found = hub.browser()
    yield found
    found.close()
    hub.github.control.heal()


def words(page: httpx.Response) -> str:
    """The text of a page, without its tags."""
    return " ".join(re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page.text, flags=re.DOTALL).split())


def test_a_member_with_push_gets_in(hub: GithubStack, browser: GithubLogin) -> None:
    """GitHub is asked for no scope, and the token that it gave is used once and withdrawn."""
    hub.github.control.forget_requests()
    page = browser.begin()
    assert "scope" not in parse_qs(urlsplit(str(page.url)).query)
    page = browser.choose(page, "ada")
    assert (page.status_code, page.url.path) == (200, "/services/gpudev/")
    assert hub.github.state.user_tokens == {}
    asked = [seen.path for seen in hub.github.control.seen]
    assert [path for path in asked if path in ("/api/v3/user", "/login/oauth/access_token")] == [
        "/login/oauth/access_token",
        "/api/v3/user",
    ]
    assert b"ghu_" not in (hub.settings.hub / "jupyterhub.sqlite").read_bytes()
    assert hub.api("GET", "me")["user"] == "ada"


REFUSED = {
    "cleo": ("cleo", "pytorch/pytorch"),
    "dora": ("dora", "pytorch/metamates"),
    "eve": ("eve", "pytorch/metamates"),
    "pete": ("pete", "pytorch/metamates", "accept the invitation"),
}


@pytest.mark.parametrize("login", REFUSED)
def test_whoever_may_not_enter_reads_why(hub: GithubStack, browser: GithubLogin, login: str) -> None:
    page = browser.log_in(login)
    assert page.status_code == 403
    for part in (*REFUSED[login], "Ask ", "Use another GitHub account"):
        assert part in words(page)
    assert browser.http.get("/hub/token", follow_redirects=False).status_code == 302, "nobody is logged in"


def test_another_account_can_be_chosen_after_a_refusal(hub: GithubStack, browser: GithubLogin) -> None:
    browser.log_in("eve")
    at_once = browser.begin()
    assert at_once.status_code == 403, "GitHub still knows eve, and does not ask"
    page = browser.http.get("/hub/oauth_login", params={"prompt": "select_account"})
    assert "Choose an account" in page.text
    assert browser.choose(page, "ben").status_code == 200


OUTAGES = {
    "the exchange of the code fails": {"path": "/login/oauth/access_token", "status": 503},
    "the exchange has no answer": {"path": "/login/oauth/access_token", "drop": True},
    "the exchange is garbage": {"path": "/login/oauth/access_token", "status": 200, "body": "<html>"},
    "the account fails": {"path": "/api/v3/user", "status": 502},
    "the account is garbage": {"path": "/api/v3/user", "status": 200, "body": '{"id": -1}'},
    "the new token is not known": {
        "path": "/api/v3/user",
        "status": 401,
        "body": '{"message": "Bad credentials"}',
    },
    "over the limit": {"path": "/api/v3/user", "status": 429},
    "over the limit, with 403": {
        "path": "/api/v3/user",
        "status": 403,
        "body": '{"message": "You have exceeded a secondary rate limit."}',
    },
    "the checks fail": {"path": "/api/v3/(orgs|repos|app|user/).*", "status": 503},
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_is_no_refusal(hub: GithubStack, browser: GithubLogin, outage: str) -> None:
    hub.github.control.fail(**OUTAGES[outage])
    page = browser.log_in(hub.newcomer())
    assert page.status_code == 503
    assert int(page.headers["Retry-After"]) > 0
    assert "does not mean that your access was refused" in words(page)
    assert "Use another" not in words(page)
    hub.github.control.heal()
    assert browser.begin().status_code == 200


def test_whoever_is_known_gets_in_while_the_checks_fail(hub: GithubStack, browser: GithubLogin) -> None:
    login = hub.newcomer()
    assert browser.log_in(login).status_code == 200
    hub.github.control.fail(path="/api/v3/(orgs|repos|app|user/).*", status=503)
    again = hub.browser()
    page = again.log_in(login)
    again.close()
    assert (page.status_code, page.url.path) == (200, "/services/gpudev/")


@pytest.fixture(scope="module")
def lost(hub: GithubStack) -> Iterator[tuple[str, GithubLogin]]:
    """Somebody who has lost access while logged in, and their browser."""
    login, browser = hub.newcomer(), hub.browser()
    hub.token_for(login)
    browser.log_in(login)
    hub.github.control.leave("pytorch", "metamates", login)
    again = hub.browser()
    page = again.log_in(login)
    again.close()
    assert (page.status_code, f"{login} may not use this hub" in words(page)) == (403, True)
    yield login, browser
    browser.close()


def status_of_token(hub: GithubStack, login: str) -> int | None:
    """What the Hub's API answers to a token; nothing while it does not answer."""
    headers = {"Authorization": f"token {hub.token_for(login)}"}
    try:
        return httpx.get(f"{hub.url}/hub/api/user", headers=headers, trust_env=False, timeout=30).status_code
    except httpx.HTTPError:
        return None


def test_whoever_lost_access_is_out_with_every_token(hub: GithubStack, lost: tuple[str, GithubLogin]) -> None:
    """The Hub asks for a user at most once a second. The tests at the end go on with this person."""
    login, browser = lost
    wait_for("the end of the token", lambda: status_of_token(hub, login) == 403)
    page = browser.http.get("/services/gpudev/")
    assert (page.status_code, "was revoked" in words(page)) == (403, True)


def test_no_token_makes_another_after_access_was_lost(hub: GithubStack, browser: GithubLogin) -> None:
    """A program that goes on making tokens with its newest token outruns the service, which deletes them."""
    login = hub.newcomer()
    browser.log_in(login)
    scopes = ["tokens!user", "read:users!user"]
    newest = browser.make_token(scopes, 3600)

    def make() -> int:
        nonlocal newest
        made = httpx.post(
            f"{hub.url}/hub/api/users/{login}/tokens",
            headers={"Authorization": f"token {newest}"},
            json={"expires_in": 3600, "scopes": scopes},
            trust_env=False,
            timeout=30,
        )
        if made.status_code == 201:
            newest = made.json()["token"]
        return made.status_code

    assert make() == 201
    hub.github.control.leave("pytorch", "metamates", login)
    again = hub.browser()
    assert again.log_in(login).status_code == 403
    again.close()
    wait_for("the end of the tokens", lambda: make() != 201)
    assert make() == 403


def test_a_login_that_was_cancelled(browser: GithubLogin) -> None:
    page = browser.choose(browser.begin(), "ada", "cancel")
    assert page.status_code == 403
    assert "You cancelled the login" in words(page)


def test_a_login_that_is_finished_too_late_twice_or_elsewhere(hub: GithubStack, browser: GithubLogin) -> None:
    refused = browser.log_in("eve")
    again = browser.http.get(str(refused.url))
    assert (again.status_code, "This login has expired" in words(again)) == (400, True)
    asked = browser.begin()
    assert asked.status_code == 403
    other = hub.browser()
    there = other.http.get(str(asked.url))
    other.close()
    assert (there.status_code, "in another browser or tab" in words(there)) == (400, True)
    for query in (
        "",
        "code=x",
        "code=x&state=\N{SNOWMAN}",
        "code=x&state=e30=",
        "code=x&state=W10=",
        "state=e30=",
    ):
        page = browser.http.get(f"/hub/oauth_callback?{query}")
        assert page.status_code == 400, query
        assert "Start the login again" in words(page), query


def test_an_app_that_is_not_set_up_correctly(hub: GithubStack, browser: GithubLogin) -> None:
    secret = hub.github.state.app.client_secret
    hub.github.control.app(client_secret="another")
    try:
        page = browser.log_in("ada")
    finally:
        hub.github.control.app(client_secret=secret)
    assert page.status_code == 500
    assert "incorrect_client_credentials" in words(page)
    assert "github-check" in words(page)
    page = browser.http.get("/hub/oauth_callback?error=application_suspended&state=x")
    assert (page.status_code, "application_suspended" in words(page)) == (500, True)
    page = browser.http.get("/hub/oauth_callback?error=<script>&state=x")
    assert "script>" not in words(page)


def test_a_suspended_account(hub: GithubStack, browser: GithubLogin) -> None:
    """GitHub itself lets it in no more; a suspension in the middle of the login is a refusal, too."""
    body = '{"message": "Sorry. Your account was suspended."}'
    hub.github.control.fail(path="/api/v3/user", status=403, body=body)
    page = browser.log_in("ben")
    assert (page.status_code, "Your account was suspended" in words(page)) == (403, True)


def test_names_are_given_once(hub: GithubStack) -> None:
    """A rename makes nobody somebody else, and whoever takes over a login does not become its owner."""
    control = hub.github.control

    def enter(login: str) -> tuple[str, str]:
        browser = hub.browser()
        assert browser.log_in(login).status_code == 200
        found = browser.name()
        browser.close()
        return found, login

    assert enter("ben") == ("ben", "ben")
    control.rename("ben", "benny")
    try:
        assert enter("benny") == ("ben", "benny")
        new = control.account("ben")
        control.join("pytorch", "metamates", "ben")
        control.collaborator("pytorch/pytorch", "ben", "write")
        assert enter("ben") == (f"ben-{new.id}", "ben")
        control.delete("ben")
    finally:
        control.rename("benny", "ben")


def test_operators_are_those_of_the_team(hub: GithubStack) -> None:
    statuses = {}
    for login in ("olga", "ada"):
        browser = hub.browser()
        browser.log_in(login)
        statuses[login] = browser.http.get("/services/gpudev/operator").status_code
        assert browser.http.get("/hub/api/user").json()["admin"] is False
        browser.close()
    assert statuses == {"olga": 200, "ada": 403}


def test_an_outage_of_github_or_the_service_disables_no_token(hub: GithubStack) -> None:
    """Right after a start of the Hub, when it knows of nobody when he was last asked about."""
    headers = {"Authorization": f"token {hub.token_for('ada')}"}
    url = f"{hub.url}/hub/api/user"
    hub.github.control.outage()
    try:
        hub.kill("hub")
        hub.part("hub")
        os.kill(hub.part("service"), signal.SIGSTOP)

        def answered() -> int | None:
            try:
                status = httpx.get(url, headers=headers, trust_env=False, timeout=30).status_code
            except httpx.HTTPError:
                return None
            return status if status not in (404, 503) else None

        assert wait_for("the Hub", answered) == 200
        assert "did not say whether ada has access" in hub.log("hub")
    finally:
        os.kill(hub.part("service"), signal.SIGCONT)
        hub.github.control.heal()


def test_access_that_was_lost_is_lost_after_a_restart_of_the_hub(
    hub: GithubStack, lost: tuple[str, GithubLogin]
) -> None:
    """The test above restarted it."""
    login, browser = lost
    wait_for("the Hub", lambda: status_of_token(hub, login) == 403)
    page = browser.http.get("/hub/token")
    assert page.url.path == "/hub/login"
    assert "was revoked: not a member of pytorch/metamates" in words(page)


def test_whoever_is_back_in_the_team_gets_in_under_the_same_name(
    hub: GithubStack, lost: tuple[str, GithubLogin]
) -> None:
    """GitHub still knows the browser. The refusal stands for 30 seconds, which are over by now, or nearly."""
    login, browser = lost
    hub.github.control.join("pytorch", "metamates", login)
    wait_for("the end of the refusal", lambda: browser.begin().status_code == 200)
    assert browser.name() == login


def test_no_code_and_no_state_is_logged(hub: GithubStack, browser: GithubLogin) -> None:
    """JupyterHub writes the whole address of what it refused."""
    seen = []
    for login in ("eve", "cleo"):
        query = parse_qs(urlsplit(str(browser.log_in(login).url)).query)
        seen += [query["code"][0], query["state"][0]]
        browser.http.cookies.clear()
    browser.http.post("/hub/oauth_callback?code=c0de-of-a-login&state=state-of-a-login")
    browser.http.get("/hub/oauth_callback?code=c0de-of-a-login&state=state-of-a-login")
    logged = "".join(path.read_text(errors="replace") for path in hub.settings.logs.iterdir())
    assert "POST /hub/oauth_callback?code=[secret]" in logged
    for secret in (*seen, "c0de-of-a-login", "state-of-a-login"):
        assert secret not in logged
    assert "ghu_" not in logged
    assert hub.github.state.app.client_secret not in logged


def test_make_run_with_a_fake_github(tmp_path: Path) -> None:
    """What ``make run GITHUB=fake`` starts: it says who can log in, and Ctrl-C ends all of it."""
    said, port = tmp_path / "said", free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GPUDEV")}
    with said.open("w") as output, TemporaryDirectory(prefix="gh-", ignore_cleanup_errors=True) as home:
        demo = subprocess.Popen(
            [sys.executable, "-m", "github_demo"],
            cwd=CHECKOUT,
            env=kept
            | {
                "HOME": home,
                "XDG_STATE_HOME": home,
                "GPUDEV_PORT": str(port),
                "GPUDEV_POOL": "1x1",
                "PYTHONPATH": f"tests/support:{os.environ.get('PYTHONPATH', '')}",
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_for("the end of the start", lambda: "state and logs" in said.read_text())
            assert (Path(home) / "gpudev-github" / "service.sqlite").exists()
            assert not (Path(home) / ".gpu-dev-config").exists(), "there is no local user"
        finally:
            demo.send_signal(signal.SIGINT)
            assert demo.wait(60) == 0
    for line in (
        "ada      member with push",
        "cleo     member without push",
        "log in with GitHub",
        f"gpu-dev login --url http://127.0.0.1:{port}, then ",
        "gpu-dev reserve --gpus 1 --hours 1",
    ):
        assert line in said.read_text()
