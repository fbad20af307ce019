"""Who may do what: everybody against every route."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_network
from typing import Any

import httpx
import pytest
from tornado.web import Application, RequestHandler

from fakehub import FakeHub
from gpudev import wire
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.events import OwnerKnown
from gpudev_hub.core.words import printable
from gpudev_hub.service.readiness import Report
from gpudev_hub.web import auth
from gpudev_hub.web.app import GATE, PUBLIC, make_server
from gpudev_hub.web.auth import CACHE, STRANGERS, HubTokens
from gpudev_hub.web.forwarded import beyond
from gpudev_hub.web.logs import JsonFormatter
from gpudev_hub.web.pages import pages
from gpudev_hub.web.routes import Access, Route
from gpudev_hub.web.settings import Rate
from memory_cluster import MemoryCluster
from web_site import TOKENS, Running, checked, listen, looked, running

API = wire.API
OF_THE_HUB = [route for route in GATE if route.access is Access.HUB]
BODIES: dict[str, Any] = {
    "reserve": {"gpus": 1, "hours": 1},
    "extend": {"hours": 0.25},
    "server_extend": {"hours": 0.25},
    "operate_node": {"action": "undrain"},
    "set_limits": {"scope": "person:local:zoe", "limits": {"running_gpus": 4}},
    "confirm_revocations": {"subjects": ["github:7"]},
    "report": {"attempt": 1, "rank": 0, "jupyter": True, "sshd": True},
    "start_login": {"code_challenge": "c" * 43},
    "collect_login": {"code": "guess", "code_verifier": "v" * 43},
    "login_by_key": {
        "account": "alice",
        "hub": "http://127.0.0.1:8000",
        "nonce": "guess",
        "expires_at": "2026-11-29T18:00:00Z",
        "signature": "guess",
    },
}
QUERIES = {"keys": {"fingerprint": "SHA256:" + "A" * 43}, "clear_limits": {"scope": "default"}}
PROVED = {"collect_login", "login_by_key"}
"""Their bodies prove who asks, and those here prove nothing."""
WITHOUT_GITHUB = {"confirm_revocations": 409}
"""What those are told who may ask, since nobody's access is GitHub's to say here."""
OF_A_LOGIN = {"renew_token"}
"""Only for tokens of ``gpu-dev login``."""
OF_ONE_PERSON = {"end", "extend", "resume", "logs", "history", "share", "unshare"}


async def ask(run: Running, route: Route, token: str | None, id: str, scheme: str = "token") -> int:
    node = min(run.service.view.nodes)
    path = route.path.format(ref=id, id=id, name=node, login="carol")
    headers = {} if token is None else {"Authorization": f"{scheme} {token}"}
    async with run.client() as client:
        answer = await client.request(
            route.method, path, json=BODIES.get(route.name), params=QUERIES.get(route.name), headers=headers
        )
    if answer.status_code >= 400:
        assert set(answer.json()["error"]) == {"code", "message", "hint"}
    return answer.status_code


async def alices(run: Running) -> str:
    """A ready reservation of alice's."""
    async with run.client("alices") as alice:
        made = (await alice.post(f"{API}/reservations", json={"gpus": 1, "hours": 1})).json()
    await run.make_ready(made["id"])
    one: str = made["id"]
    return one


@pytest.mark.parametrize("route", PUBLIC, ids=lambda route: route.name)
async def test_matrix(run: Running, route: Route) -> None:
    run.site.github_check = checked
    run.site.doctor = looked
    one = await alices(run)
    attempt = run.service.view.reservations[one].attempt
    other = await alices(run)
    good = TOKENS.make(one, attempt)
    expected: dict[str | None, bool | int]
    if route.access is Access.ANYBODY:
        outcome = 401 if route.name in PROVED else True
        expected = dict.fromkeys((None, "alices", "bobs", "operators", "starter", good, "forged"), outcome)
    elif route.access is Access.SERVER:
        expected = {
            None: 401,
            "alices": 403,
            "operators": 403,
            "forged": 403,
            TOKENS.make(other, attempt): 403,
            TOKENS.make(one, attempt + 1): 403,
            TOKENS.make(one, attempt - 1): 403,
            good: True,
        }
    else:
        expected = {None: 401, "forged": 401, "starter": 403, good: 401}
        if route.access is Access.OPERATOR:
            expected |= {"alices": 403, "bobs": 403, "operators": WITHOUT_GITHUB.get(route.name, True)}
        elif route.name in OF_A_LOGIN:
            expected |= dict.fromkeys(("alices", "bobs", "operators"), 403)
        else:
            mine_only = route.name in OF_ONE_PERSON
            expected |= {"bobs": 403 if mine_only else True}
            # The last one may end the reservation: everybody else is refused before.
            last_alone = route.name in ("end", "unshare")
            operators: bool | int = 403 if route.name == "share" else True
            expected |= {"operators": operators} if last_alone else {"operators": operators, "alices": True}
    if route.name == "unshare":
        async with run.client("alices") as alice:
            assert (await alice.put(f"{API}/reservations/{one}/guests/carol")).status_code == 200
    before = run.service.view.reservations[one]
    for token, outcome in expected.items():
        status = await ask(run, route, token, one)
        if outcome is True:
            assert 200 <= status < 300, (token, status)
        else:
            assert status == outcome, token
            assert run.service.view.reservations[one] == before
        before = run.service.view.reservations.get(one, before)


@pytest.mark.parametrize("route", OF_THE_HUB, ids=lambda route: route.name)
async def test_the_gate_opens_to_the_hubs_secret_only(run: Running, route: Route) -> None:
    for secret in (None, "the-hubs-own-secret-for-the-gatE", "alices", "é"):
        async with run.gate(None) as gate:
            headers = [] if secret is None else [(b"Authorization", f"Bearer {secret}".encode())]
            body: dict[str, str] | None = {} if route.method == "POST" else None
            answer = await gate.request(route.method, route.path, json=body, headers=headers)
            assert answer.status_code == 401, (secret, answer.text)


async def test_each_listener_answers_its_own_addresses_only(run: Running) -> None:
    async with run.gate() as gate, run.client("operators") as operator:
        for route in PUBLIC:
            path = f"services/gpudev/{route.path}".format(ref="x", id="x", name="x", login="x")
            assert (await gate.request(route.method, path)).status_code == 404
            assert (await gate.request(route.method, route.path)).status_code == 404
        for route in OF_THE_HUB:
            assert (await operator.post(route.path, json={})).status_code == 404
            assert (await operator.post(f"/{route.path}", json={})).status_code == 404


async def test_others_see_a_reservation_but_no_way_in(run: Running) -> None:
    one = await alices(run)
    async with run.client("bobs") as bob, run.client("operators") as olga:
        for client in (bob, olga):
            seen = (await client.get(f"{API}/reservations/{one}")).json()
            assert seen["owner"] == "alice"
            assert seen["allocation"]
            assert seen["ends_at"]
            assert not seen["mine"]
            assert (seen["url"], seen["ssh_command"], seen["vscode_url"]) == (None, None, None)
            assert seen["ssh_commands"] == []
            (listed,) = (await client.get(f"{API}/reservations?owner=all")).json()["reservations"]
            assert (listed["url"], listed["ssh_command"], listed["vscode_url"]) == (None, None, None)
            assert (await client.get(f"{API}/reservations")).json()["reservations"] == []


async def test_what_a_server_says_is_its_owners_to_read_and_moves_no_terminal(run: Running) -> None:
    """Whoever holds a server's token may say anything; others read why, and not what his programs wrote."""
    async with run.client("alices") as alice:
        one = (await alice.post(f"{API}/reservations", json={"gpus": 1, "hours": 1})).json()["id"]
    said = "\x1b]0;PWNED\x07[/x] 10:15:30 GET /lab/merger.ipynb\u202e\r\n$ {until}"
    run.service.readiness.report(one, 1, 0, Report(False, True, said))
    await run.until(one, lambda record: record.trouble == printable(said))
    async with run.client("alices") as alice, run.client("bobs") as bob, run.client("operators") as olga:
        for client, told in ((alice, True), (olga, True), (bob, False)):
            shown = (await client.get(f"{API}/reservations/{one}")).json()
            reason, data = shown["reason"], shown["reason_data"]
            assert reason.startswith("starting on node-1")
            assert ("merger" in reason) is told
            assert reason.isprintable()
            words = {"nodes": "node-1", "why": printable(said)} if told else {"nodes": "node-1"}
            assert (data["params"], data["instants"]) == (words, {}), "what is quoted has no times of ours"
        causes = (await alice.get(f"{API}/reservations/{one}/history")).json()["items"]
        assert all(entry["cause"].isprintable() for entry in causes)


async def test_logs_bring_colours_and_nothing_else_that_a_terminal_obeys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = "\x1b]0;PWNED\x07\x1b[2J\x1b[31mred\x1b[0m\r\n\u009b5m\u202e\x00second\tline\n"

    async def logs(*_: object) -> dict[str, str]:
        return {"jupyter": said}

    monkeypatch.setattr(MemoryCluster, "logs", logs)
    async with running(pages()) as run, run.client("operators") as olga:
        run.hub.person("alices", "alice")
        run.hub.person("operators", "olga", scopes=("custom:gpudev:reserve", "custom:gpudev:operate"))
        one = await alices(run)
        told = (await olga.get(f"{API}/reservations/{one}/logs")).json()["logs"]
        assert told == {"jupyter": "\x1b[31mred\x1b[0m\nsecond\tline\n\x1b[0m"}
        page = (await olga.get(f"reservations/{one}")).text
        assert "red\nsecond line\n" in page
        assert not set(page) & set("\x1b\x00\x07\u009b\u202e")


async def test_the_owner_is_told_of_trouble_of_a_ready_server_while_it_lasts(run: Running) -> None:
    one = await alices(run)
    attempt = run.service.view.reservations[one].attempt
    notice = "JupyterLab runs without your configuration: with ~/.jupyter/a.py it ended\x1b[2J"
    reports: list[tuple[dict[str, object], str]] = [
        ({"jupyter": True, "notice": notice}, printable(notice)),
        ({"jupyter": False, "detail": "no answer from Jupyter (killed)"}, "no answer from Jupyter (killed)"),
        ({"jupyter": True}, ""),
    ]
    async with (
        run.client(TOKENS.make(one, attempt)) as server,
        run.client("alices") as alice,
        run.client("operators") as olga,
        run.client("bobs") as bob,
    ):
        for said, known in reports:
            body: dict[str, object] = {"attempt": attempt, "rank": 0, "sshd": True, **said}
            assert (await server.post(f"{API}/servers/{one}/report", json=body)).status_code == 204
            await run.until(one, lambda record: record.notice == known)  # noqa: B023 (waited for here)
            for client, told in ((alice, known or None), (olga, known or None), (bob, None)):
                assert (await client.get(f"{API}/reservations/{one}")).json()["reason"] == told


async def test_names_are_each_persons_own(run: Running) -> None:
    async with run.client("alices") as alice, run.client("bobs") as bob:
        await alice.post(f"{API}/reservations", json={"gpus": 1, "name": "demo"})
        assert (await bob.get(f"{API}/reservations/demo")).status_code == 404
        assert (await bob.delete(f"{API}/reservations/demo")).status_code == 404


async def test_an_operator_ends_with_the_outcome_that_says_so(run: Running) -> None:
    one = await alices(run)
    async with run.client("operators") as olga:
        assert (await olga.delete(f"{API}/reservations/{one}")).status_code == 200
        await run.gone(one)
        assert (await olga.get(f"{API}/reservations/{one}")).json()["outcome"] == "ended_by_operator"


REASON = "  driver update\x1b[2J \N{HEBREW LETTER ALEF}\N{RIGHT-TO-LEFT OVERRIDE}\n tonight "
SAID = "driver update [2J \N{HEBREW LETTER ALEF} tonight"
"""The same on one line, without what turns the direction of writing or moves a terminal."""


@pytest.mark.parametrize("state", ["queued", "ready"])
async def test_an_operators_reason_is_kept_and_told(run: Running, state: str) -> None:
    async with run.client("alices") as alice, run.client("operators") as olga, run.client("bobs") as bob:
        if state == "queued":
            for _ in range(2):
                await bob.post(f"{API}/reservations", json={"gpus": 8, "hours": 1})
            body = {"gpus": 8, "hours": 1}
            one = (await alice.post(f"{API}/reservations", json=body)).json()["id"]
        else:
            one = await alices(run)
            more = {"hours": 0.5, "reason": REASON, "request_id": "of-the-operator"}
            extended = await olga.post(f"{API}/reservations/{one}/extend", json=more)
            assert extended.json()["hours"] == 1.5
            again = await olga.post(f"{API}/reservations/{one}/extend", json=more)
            assert again.json()["hours"] == 1.5, "a retry is not granted again"
            told = await run.service.notices(one, 0, 0)
            assert [notice.text.partition(", until")[0] for notice in told] == [
                "An operator extended this reservation by 30 min"
            ]
            assert told[0].text.endswith(f": {SAID}.")
        ended = await olga.delete(f"{API}/reservations/{one}", params={"reason": REASON})
        assert ended.status_code == 200, ended.text
        if state == "ready":
            told = await run.service.notices(one, told[-1].seq, 0)
            assert [n.text for n in told] in ([], [f"An operator ended this reservation: {SAID}."])
        await run.gone(one)
        for reader, expected in ((alice, SAID), (olga, SAID), (bob, None)):
            found = (await reader.get(f"{API}/reservations/{one}")).json()
            assert (found["outcome"], found["reason"]) == ("ended_by_operator", expected)
        items = (await alice.get(f"{API}/reservations/{one}/history")).json()["items"]
        by_olga = [(item["cause"], item["detail"]) for item in items if item["actor"] == "local:olga"]
        assert by_olga[-1] == ("operator: ended_by_operator", SAID)
        assert len(by_olga) == 1 or by_olga[0][0] == f"extended: {SAID}"


async def test_a_reason_is_short_and_only_from_who_may_act(run: Running) -> None:
    one = await alices(run)
    async with run.client("operators") as olga, run.client("bobs") as bob:
        for client, reason, status in ((olga, "x" * 301, 400), (bob, "mine now", 403)):
            params, body = {"reason": reason}, {"hours": 0.25, "reason": reason}
            assert (await client.delete(f"{API}/reservations/{one}", params=params)).status_code == status
            answer = await client.post(f"{API}/reservations/{one}/extend", json=body)
            assert answer.status_code == status
    record = run.service.view.reservations[one]
    assert (record.state, record.extended) == ("ready", 0)


async def test_a_server_token_ends_with_its_reservation(run: Running) -> None:
    one = await alices(run)
    attempt = run.service.view.reservations[one].attempt
    async with run.client("alices") as alice:
        await alice.delete(f"{API}/reservations/{one}")
    await run.gone(one)
    async with run.client(TOKENS.make(one, attempt)) as server:
        assert (await server.get(f"{API}/servers/{one}/notices")).status_code == 403


@pytest.mark.parametrize("failure", ["500", "garbage", "reset"])
async def test_closed_while_the_hub_is_away(run: Running, failure: str) -> None:
    run.hub.failure = failure
    async with run.client("alices") as alice:
        answer = await alice.get(f"{API}/me")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert (await alice.post(f"{API}/reservations", json={"gpus": 1})).status_code == 503
        run.hub.failure = None
        assert (await alice.get(f"{API}/me")).status_code == 200


async def test_who_logs_in_is_known_from_then_on(run: Running) -> None:
    """What waited for that ("log in there once") goes on: any request that the Hub vouches for will do."""
    async with run.client("alices") as alice:
        one = (await alice.post(f"{API}/reservations", json={"gpus": 1, "hours": 1})).json()["id"]
    run.service._writer.post(OwnerKnown("local:alice", known=False))
    await run.until(one, lambda record: record.blocked is not None)
    run.hub.person("alices-new", "alice")
    async with run.client("alices-new") as alice:
        await alice.get(f"{API}/me")
    await run.until(one, lambda record: record.blocked is None)


async def test_the_hub_is_asked_once_for_many(run: Running) -> None:
    async with run.client("alices") as alice:
        answers = await asyncio.gather(*(alice.get(f"{API}/me") for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert run.hub.asked == 1
        run.hub.failure = "500"
        assert (await alice.get(f"{API}/me")).status_code == 200


async def test_a_revoked_token_is_refused_within_30_seconds(
    run: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run.client("alices") as alice:
        assert (await alice.get(f"{API}/me")).status_code == 200
        del run.hub.tokens["alices"]
        later = run.service.clock.now() + 30_000
        monkeypatch.setattr(run.site.auth.tokens, "_now", lambda: later)
        answer = await alice.get(f"{API}/me")
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated")


async def test_operators_power_is_not_in_every_token_of_an_admins(run: Running) -> None:
    run.hub.person("notebook", "root", admin=True)
    run.hub.person("full", "root", admin=True, scopes=("custom:gpudev:reserve", "admin:servers"))
    async with run.client("notebook") as narrow, run.client("full") as wide:
        assert (await narrow.get(f"{API}/me")).json()["operator"] is False
        assert (await wide.get(f"{API}/me")).json()["operator"] is True


async def test_tokens_of_hub_services_are_no_person(run: Running) -> None:
    run.hub.tokens["svc"] = {
        "kind": "service",
        "name": "cull",
        "admin": False,
        "scopes": ["custom:gpudev:reserve"],
    }
    run.hub.tokens["prometheus"] = {"kind": "service", "name": "prometheus", "scopes": ["read:metrics"]}
    async with run.client("svc") as service, run.client("prometheus") as prometheus:
        assert (await service.get(f"{API}/me")).status_code == 403
        assert (await prometheus.get(f"{API}/me")).status_code == 403
        assert (await prometheus.get("metrics")).status_code == 200


@pytest.mark.parametrize(
    "header", ["", "token", "Basic YWxpY2U6eA==", "token a b", "Bearer é", "token " + "x" * 5000]
)
async def test_malformed_authorization(run: Running, header: str) -> None:
    async with run.client() as client:
        answer = await client.get(f"{API}/me", headers=[(b"Authorization", header.encode())])
        assert answer.status_code == 401


async def test_tokens_in_urls_are_no_tokens(run: Running) -> None:
    async with run.client() as client:
        for mode in ("navigate", "websocket", "cors"):
            answer = await client.get(f"{API}/me?token=alices", headers={"Sec-Fetch-Mode": mode})
            assert answer.status_code in (400, 401)


async def test_no_token_reaches_a_log(run: Running, caplog: pytest.LogCaptureFixture) -> None:
    for client_library in ("httpx", "httpcore"):
        caplog.set_level("WARNING", logger=client_library)
    caplog.set_level("DEBUG")
    one = await alices(run)
    secret = run.hub.person("s3cret-t0ken", "alice")
    server = TOKENS.make(one, 1)
    async with run.client(secret) as client:
        await client.get(f"{API}/me")
        await client.get(f"{API}/me?token={secret}")
        await client.get("oauth_callback", params={"code": secret, "state": "x"})
        await client.get(f"{API}/servers/{one}/notices", headers={"Authorization": f"Bearer {server}"})
        run.hub.failure = "500"
        await client.get(f"{API}/me", headers={"Authorization": "Bearer other-s3cret-t0ken"})
    logged = caplog.text + "".join(repr(getattr(r, "fields", "")) for r in caplog.records)
    assert "t0ken" not in logged
    assert server not in logged
    assert any(getattr(r, "fields", {}).get("reservation") == one for r in caplog.records)


async def test_a_token_known_to_be_bad_costs_nobody_else(run: Running) -> None:
    """One script that polls with an expired token, and an office behind the same address."""
    people = [run.hub.person(f"fresh-{n}", f"person-{n}") for n in range(52)]
    async with run.client() as client:
        for n in range(300):
            answer = await client.get(f"{API}/me", headers={"Authorization": "token expired"})
            assert answer.status_code == 401, n
        assert run.hub.asked == 1
        for token in people:
            answer = await client.get(f"{API}/me", headers={"Authorization": f"token {token}"})
            assert answer.status_code == 200, answer.text


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    hub = FakeHub(MemoryCluster())
    hub.up()
    yield hub
    await hub.down()


async def test_guesses_take_turns_and_lock_nobody_out(hub: FakeHub) -> None:
    """Invalid ones by the hundred, all different; nobody who has a good one is refused."""
    now = 0
    tokens = HubTokens(hub.api, lambda: now, lambda _: None)
    hub.person("known", "kim")
    assert await tokens.user("known", "10.0.0.1") is not None
    now = CACHE
    hub.delay = 0.005
    guesses = [asyncio.create_task(tokens.user(f"guess-{n}", "10.0.0.1")) for n in range(200)]
    await asyncio.sleep(0)
    hub.person("neighbours", "nina")
    hub.person("alices", "alice")
    neighbour = asyncio.create_task(tokens.user("neighbours", "10.0.0.1"))
    for token, peer in (("known", "10.0.0.1"), ("alices", "10.0.0.2")):
        user = await tokens.user(token, peer)
        assert user is not None
        assert sum(guess.done() for guess in guesses) < 20, f"{token} waits for few of them"
    user = await neighbour
    assert user is not None
    assert await asyncio.gather(*guesses) == [None] * 200
    assert hub.most_at_once <= STRANGERS + 1
    await tokens.close()


async def test_tokens_that_wait_too_long_are_told_to_come_again(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "TURN_TIMEOUT", 0.05)
    tokens = HubTokens(hub.api, lambda: 0, lambda _: None)
    hub.person("alices", "alice")
    hub.failure = "slow"
    slow = [asyncio.create_task(tokens.user(f"guess-{n}", "10.0.0.1")) for n in range(STRANGERS)]
    await asyncio.sleep(0)
    with pytest.raises(Refused) as refused:
        await tokens.user("alices", "10.0.0.1")
    assert refused.value.code is Code.UNAVAILABLE
    for task in slow:
        task.cancel()
    await tokens.close()


async def test_bad_tokens_remembered_are_bounded_and_drive_out_no_good_one(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "CACHED", 8)
    tokens = HubTokens(hub.api, lambda: 0, lambda _: None)
    hub.person("alices", "alice")
    await tokens.user("alices")
    for n in range(20):
        assert await tokens.user(f"guess-{n}") is None
    assert len(tokens._bad) == 8
    asked = hub.asked
    assert await tokens.user("alices") is not None
    assert hub.asked == asked
    await tokens.close()


async def test_a_server_that_reports_news_without_end_does_not_fill_the_history() -> None:
    async with running(reports=Rate(per_second=0.01, burst=5)) as run:
        run.hub.person("alices", "alice")
        one = await alices(run)
        attempt = run.service.view.reservations[one].attempt
        async with run.client(TOKENS.make(one, attempt)) as server, run.client("alices") as alice:
            bodies = [
                {"attempt": attempt, "rank": 0, "jupyter": True, "sshd": True, "notice": f"news {n}"}
                for n in range(20)
            ]
            answers = [await server.post(f"{API}/servers/{one}/report", json=body) for body in bodies]
            assert [answer.status_code for answer in answers] == [204] * 5 + [429] * 15
            assert int(answers[-1].headers["Retry-After"]) > 1
            await run.until(one, lambda record: record.notice == "news 4")
            items = (await alice.get(f"{API}/reservations/{one}/history")).json()["items"]
            assert sum("news" in item["cause"] for item in items) <= 5
            keys = await server.get(f"{API}/servers/{one}/keys", params=QUERIES["keys"])
            assert keys.status_code == 200, "people still get in"


async def test_strangers_fill_no_log_and_are_slowed_down(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="gpudev.access")
    async with running(strangers=Rate(per_second=0.01, burst=20)) as run:
        run.hub.person("alices", "alice")
        async with run.client() as stranger, run.client("alices") as alice:
            statuses = [(await stranger.get(f"{API}/me?x={'y' * 4000}")).status_code for _ in range(5)]
            statuses += [(await stranger.get(f"{API}/{'x' * 4000}")).status_code for _ in range(10)]
            statuses += [
                (await stranger.get(f"{API}/me", headers={"Authorization": "token bad"})).status_code
                for _ in range(10)
            ]
            assert statuses == [401] * 5 + [404] * 10 + [401] * 10
            limited = await stranger.get(f"{API}/me")
            assert (limited.status_code, limited.json()["error"]["code"]) == (429, "rate_limited")
            assert (await alice.get(f"{API}/me")).status_code == 200
        lines = [JsonFormatter().format(record) for record in caplog.records]
        assert len(lines) == 21
        assert max(map(len, lines)) < 1000
        assert '"caller": "local:alice"' in lines[-1]
        assert run.site.unlogged == 6


async def test_a_client_can_not_choose_the_address_it_is_known_by() -> None:
    class Peer(RequestHandler):
        def get(self) -> None:
            self.finish(f"{self.request.remote_ip} {self.request.protocol}")

    claimed = {"X-Real-Ip": "10.0.0.1", "X-Scheme": "https", "X-Forwarded-Proto": "http"}
    for balancers, seen in (((), "10.0.0.3"), ((ip_network("10.0.0.3/32"),), "10.0.0.2")):
        server = make_server(Application([("/", Peer)]), behind_proxy=True, balancers=balancers)
        url = f"http://127.0.0.1:{listen(server)}/"
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                chain = {"X-Forwarded-For": "192.0.2.1, 10.0.0.2, 10.0.0.3"}
                assert (await client.get(url, headers=claimed | chain)).text == f"{seen} http"
        finally:
            server.stop()
            await server.close_all_connections()


@pytest.mark.parametrize(
    ("chain", "found"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7, 10.64.1.5", "192.0.2.7"),
        ("192.0.2.7, 10.64.1.5, ::ffff:10.64.33.9", "192.0.2.7"),  # a node that forwards for the balancer
        ("2001:db8::7, 10.64.1.5", "2001:db8::7"),
        ("10.64.3.3, 192.0.2.7, 10.64.1.5", "10.64.3.3, 192.0.2.7"),  # the caller's own claim stays before it
        ("10.64.40.2", "10.64.40.2"),  # a server that asks the proxy itself
        ("10.64.40.2, 10.64.1.5", "10.64.40.2"),
        ("192.0.2.7, unknown", "192.0.2.7, unknown"),
    ],
)
def test_a_balancer_before_the_proxy_is_nobodys_address(chain: str, found: str) -> None:
    assert beyond(chain, [ip_network("10.64.0.0/16")]) == found
