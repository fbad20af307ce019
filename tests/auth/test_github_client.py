"""The client of GitHub's API: tokens, conditional requests, complete lists, limits, failures in words."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from fake_github import FakeGithub
from github_world import Now
from gpudev_hub.auth.github import GithubClient, GithubRefused, GithubUnavailable
from gpudev_hub.auth.limits import pause_for
from gpudev_hub.core.model import HOUR, MINUTE, SECOND
from gpudev_hub.github_settings import GithubSettings

MEMBERS = "/orgs/pytorch/teams/metamates/members"
BEGIN = "-----BEGIN RSA PRIVATE KEY-----"


@pytest.fixture
def key_file(settings: GithubSettings) -> Path:
    return Path(settings.private_key_file)


async def logins(client: GithubClient) -> list[str] | None:
    found = await client.pages(MEMBERS)
    return None if found is None else [user["login"] for user in found]


class TestTokens:
    async def test_one_token_serves_many_requests_and_is_narrowed(
        self, client: GithubClient, github: FakeGithub
    ) -> None:
        github.control.permissions("pytorch", {"members": "read", "metadata": "read", "contents": "read"})
        await asyncio.gather(*(client.get(f"/user/{number}") for number in (101, 102, 103)))
        assert len(github.requests("access_tokens")) == 1
        [token] = github.state.installation_tokens.values()
        assert token.permissions == {"members": "read", "metadata": "read"}

    async def test_it_is_renewed_ten_minutes_early(
        self, client: GithubClient, github: FakeGithub, now: Now
    ) -> None:
        await client.get("/user/101")
        now.ahead = 49 * MINUTE
        await client.get("/user/101")
        assert len(github.state.installation_tokens) == 1
        now.ahead = 51 * MINUTE
        # The App's clock is off by then, so GitHub's moves with it.
        github.control.clock(51 * 60)
        await client.get("/user/101")
        assert len(github.state.installation_tokens) == 2

    async def test_the_old_token_is_used_while_it_is_good_and_no_new_one_comes(
        self, client: GithubClient, github: FakeGithub, now: Now
    ) -> None:
        await client.get("/user/101")
        github.control.outage(path=".*/access_tokens")
        now.ahead = 55 * MINUTE
        assert (await client.get("/user/101")).found
        now.ahead = 61 * MINUTE
        with pytest.raises(GithubUnavailable, match="not working"):
            await client.get("/user/101")

    async def test_a_token_that_github_ended_early_is_replaced_once(
        self, client: GithubClient, github: FakeGithub
    ) -> None:
        await client.get("/user/101")
        github.control.expire_installation_tokens()
        assert (await client.get("/user/102")).data["login"] == "ben"
        github.control.fail(path=".*/user/101", status=401, body='{"message": "Bad credentials"}')
        before = client.requests
        with pytest.raises(GithubRefused, match="Bad credentials"):
            await client.get("/user/101")
        assert client.requests - before == 4

    async def test_a_new_key_file_needs_no_restart(self, client: GithubClient, key_file: Path) -> None:
        path = key_file
        good = path.read_text()
        path.write_text(f"{BEGIN}\nnonsense\n{BEGIN.replace('BEGIN', 'END')}\n")
        with pytest.raises(GithubRefused, match="no RSA private key") as caught:
            await client.get("/user/101")
        assert "nonsense" not in str(caught.value)
        assert client.problem == str(caught.value)
        private = load_pem_private_key(good.encode(), None)
        path.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        with pytest.raises(GithubRefused, match="no RSA private key"):
            await client.get("/user/101")
        path.write_text(good)
        assert (await client.get("/user/101")).found
        assert client.problem is None


class TestRefusals:
    async def test_a_key_of_another_app(self, client: GithubClient, key_file: Path, other_key: str) -> None:
        key_file.write_text(other_key)  # noqa: ASYNC240
        with pytest.raises(GithubRefused, match=r"private_key_file.* must be one of App 4242"):
            await client.get("/user/101")

    @pytest.mark.parametrize(("offset", "words"), [(-900, "ahead of"), (900, "behind")])
    async def test_a_clock_that_is_off_is_said(
        self, client: GithubClient, github: FakeGithub, offset: float, words: str
    ) -> None:
        github.control.clock(offset)
        with pytest.raises(GithubRefused, match=rf"clock is (89.|90.) s {words} GitHub's: set"):
            await client.get("/user/101")

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda control: control.uninstall("pytorch"), "is not installed in the organisation pytorch"),
            (lambda control: control.suspend_app("pytorch"), "must unsuspend the App"),
            (lambda control: control.permissions("pytorch", {"metadata": "read"}), "members=read"),
        ],
    )
    async def test_an_app_that_may_not(
        self, client: GithubClient, github: FakeGithub, change: Callable[[object], None], words: str
    ) -> None:
        change(github.control)
        with pytest.raises(GithubRefused, match=words):
            await client.get("/user/101")

    async def test_an_unknown_app(self, settings: GithubSettings, now: Now) -> None:
        client = GithubClient(msgspec.structs.replace(settings, app_id=7), now=now)
        with pytest.raises(GithubRefused, match="there is no App 7"):
            await client.get("/user/101")
        await client.close()

    async def test_a_permission_taken_later_names_what_is_missing(
        self, client: GithubClient, github: FakeGithub
    ) -> None:
        await client.get("/user/101")
        github.control.permissions("pytorch", {"metadata": "read"}, missing_status=403)
        with pytest.raises(GithubRefused, match="the App needs members=read"):
            await client.pages(MEMBERS)

    async def test_a_repository_with_a_new_name(self, client: GithubClient, github: FakeGithub) -> None:
        github.control.fail(
            path=".*/repos/.*", status=301, headers={"Location": "/repositories/1"}, body="{}"
        )
        with pytest.raises(GithubRefused, match="it has a new name"):
            await client.get("/repos/pytorch/pytorch")


class TestLists:
    @pytest.fixture(autouse=True)
    def many(self, github: FakeGithub) -> None:
        for number in range(250):
            github.control.account(f"user{number}")
            github.control.join("pytorch", "metamates", f"user{number}")

    async def test_all_pages(self, client: GithubClient, github: FakeGithub) -> None:
        found = await logins(client)
        assert found is not None
        assert len(found) == 254
        assert [seen.query for seen in github.requests(MEMBERS)] == [
            "per_page=100",
            "per_page=100&page=2",
            "per_page=100&page=3",
        ]
        assert github.control.most_at_once == 1

    async def test_unchanged_lists_cost_nothing_within_an_hour(
        self, client: GithubClient, github: FakeGithub
    ) -> None:
        first = await logins(client)
        left = client.rate
        assert await logins(client) == first
        assert client.rate == left
        assert [seen.status for seen in github.requests(MEMBERS)] == [200] * 3 + [304] * 3
        github.control.leave("pytorch", "metamates", "user7")
        assert first is not None
        assert await logins(client) == [login for login in first if login != "user7"]

    async def test_a_missing_list_is_none(self, client: GithubClient) -> None:
        assert await client.pages("/orgs/pytorch/teams/nobody/members") is None

    @pytest.mark.parametrize(
        "failure",
        [
            {"status": 404, "body": '{"message": "Not Found"}'},
            {"status": 502, "body": "<html>"},
            {"cut": 100},
            {"body": "[]"},
            {"body": '{"message": "hm"}'},
            {"body": "<html>"},
            {"drop": True},
            {"headers": {"Link": ""}},
            {"headers": {"X-GitHub-SSO": "partial-results; organizations=1"}},
            {"headers": {"Link": '<http://127.0.0.1:1/x>; rel="next"'}},
        ],
    )
    async def test_an_incomplete_list_is_no_list(
        self, client: GithubClient, github: FakeGithub, failure: dict[str, object]
    ) -> None:
        github.control.fail(path=f"/api/v3{MEMBERS}", skip=1, times=1, **failure)
        with pytest.raises(GithubUnavailable):
            await client.pages(MEMBERS)
        assert len(await logins(client) or []) == 254


class TestLimits:
    @pytest.mark.parametrize("status", [403, 429])
    async def test_the_hourly_limit_is_waited_for(
        self, client: GithubClient, github: FakeGithub, now: Now, status: int
    ) -> None:
        await client.get("/user/101")
        github.control.rate_limit(reset_in=600, status=status)
        with pytest.raises(
            GithubUnavailable, match=r"hourly rate limit of GitHub \(5000 requests\)"
        ) as caught:
            await client.get("/user/102")
        assert caught.value.retry_at is not None
        assert 598 <= (caught.value.retry_at - now()) / SECOND <= 601
        sent = client.requests
        with pytest.raises(GithubUnavailable, match="the next request is in"):
            await client.get("/user/102")
        assert client.requests == sent
        github.control.heal()
        now.ahead = 602 * SECOND
        assert (await client.get("/user/102")).found

    @pytest.mark.parametrize("status", [403, 429])
    async def test_retry_after_is_obeyed(
        self, client: GithubClient, github: FakeGithub, now: Now, status: int
    ) -> None:
        await client.get("/user/101")
        github.control.secondary_limit(status=status, retry_after=30, times=1)
        with pytest.raises(GithubUnavailable, match="retry after 30 s"):
            await client.get("/user/101")
        now.ahead = 29 * SECOND
        with pytest.raises(GithubUnavailable):
            await client.get("/user/101")
        now.ahead = 31 * SECOND
        assert (await client.get("/user/101")).found

    async def test_without_a_time_it_is_a_minute_then_doubling(
        self, client: GithubClient, github: FakeGithub, now: Now
    ) -> None:
        await client.get("/user/101")
        rule = github.control.secondary_limit()
        for minutes in (1, 2, 4, 8):
            with pytest.raises(GithubUnavailable, match="secondary") as caught:
                await client.get("/user/101")
            assert caught.value.retry_at is not None
            assert round((caught.value.retry_at - now()) / MINUTE) == minutes
            now.ahead += minutes * MINUTE + SECOND
        github.control.rules.remove(rule)
        assert (await client.get("/user/101")).found
        github.control.secondary_limit()
        with pytest.raises(GithubUnavailable) as caught:
            await client.get("/user/101")
        assert caught.value.retry_at is not None
        assert round((caught.value.retry_at - now()) / MINUTE) == 1

    def test_a_missing_permission_is_no_limit_and_pauses_last_an_hour_at_most(self) -> None:
        assert pause_for(403, {}, "Resource not accessible by integration", 0, 0) is None
        assert pause_for(404, {"retry-after": "9"}, "", 0, 0) is None
        for headers in (
            {"retry-after": "9" * 9},
            {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9" * 11},
            {},
        ):
            pause = pause_for(429, headers, "", 0, 99)
            assert pause is not None
            assert pause[0] == HOUR


class TestOutages:
    @pytest.mark.parametrize(
        "failure", [{"status": 503, "body": ""}, {"drop": True}, {"status": 200, "body": "{"}]
    )
    async def test_an_outage_is_said_and_ends(
        self, client: GithubClient, github: FakeGithub, failure: dict[str, object]
    ) -> None:
        github.control.fail(**failure)
        with pytest.raises(GithubUnavailable) as caught:
            await client.get("/user/101")
        assert not isinstance(caught.value, GithubRefused)
        github.control.heal()
        assert (await client.get("/user/101")).found

    async def test_nobody_there(self, settings: GithubSettings, now: Now) -> None:
        client = GithubClient(msgspec.structs.replace(settings, api_url="http://127.0.0.1:9"), now=now)
        with pytest.raises(GithubUnavailable, match=r"reached at http://127\.0\.0\.1:9 \(ConnectError\)"):
            await client.get("/user/101")
        await client.close()

    async def test_those_who_wait_while_github_hangs_fail_with_the_first(
        self, client: GithubClient, github: FakeGithub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await client.get("/user/101")
        monkeypatch.setattr("gpudev_hub.auth.github._TIME_LIMIT", 0.2)
        rule = github.control.fail(hang=True)
        sent = client.requests
        results = await asyncio.gather(*(client.get("/user/101") for _ in range(20)), return_exceptions=True)
        assert all(isinstance(result, GithubUnavailable) for result in results)
        assert client.requests == sent + 1
        github.control.rules.remove(rule)
        monkeypatch.undo()
        assert (await client.get("/user/101")).found


async def test_no_secret_in_messages_logs_or_representations(
    client: GithubClient,
    settings: GithubSettings,
    github: FakeGithub,
    now: Now,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    texts = []
    reply = await client.get("/user/101")
    texts += [repr(client), repr(reply), repr(client._token), repr(settings)]
    tokens = list(github.state.installation_tokens)
    failures: list[dict[str, object]] = [
        {"status": 401, "body": "{}"},
        {"status": 403, "body": '{"message": "Resource not accessible by integration"}'},
        {"status": 500, "body": "?"},
        {"drop": True},
    ]
    for failure in failures:
        github.control.fail(**failure)
        with pytest.raises(GithubUnavailable) as caught:
            await client.get("/user/102")
        texts.append(str(caught.getrepr(style="long", chain=True)))
        github.control.heal()
    # A token that no header can carry.
    client.forget_token()
    github.control.fail(
        path=".*/access_tokens",
        status=201,
        body='{"token": "ghs_bad\\ntoken", "expires_at": "2100-01-01T00:00:00Z"}',
    )
    with pytest.raises(GithubUnavailable) as caught:
        await client.get("/user/102")
    texts.append(str(caught.value))
    texts += [record.getMessage() for record in caplog.records]
    texts += [logging.Formatter().format(record) for record in caplog.records]
    text = "\n".join(texts)
    assert "ghs_" not in text
    assert not any(token in text for token in tokens)
    assert not re.search(r"eyJ[\w-]+\.", text)
    assert "PRIVATE KEY" not in text
    assert settings.client_secret() not in text
