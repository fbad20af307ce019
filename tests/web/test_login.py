"""Logins of command lines: the page in a browser, and the routes that the command line uses."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import pytest_asyncio

from gpudev import login, login_wire
from gpudev.wire import API
from gpudev_hub.core.errors import Refused
from gpudev_hub.core.model import MINUTE, SECOND, Owner
from gpudev_hub.hub.scopes import LOCAL_USER_SCOPES
from gpudev_hub.hub.setup import service_role
from gpudev_hub.ssh.keys import parse_line
from gpudev_hub.ssh.signatures import NAMESPACE, signed_by
from gpudev_hub.web import login_codes
from gpudev_hub.web.auth import RESERVE
from gpudev_hub.web.login_codes import Asks, Grants, Nonces, clean_code, shown_code, verified
from gpudev_hub.web.login_lives import successor_of
from gpudev_hub.web.login_page import loopback
from gpudev_hub.web.logs import JsonFormatter
from gpudev_hub.web.pages import pages
from gpudev_hub.web.settings import Rate
from web_site import Running, log_in, running

VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
STATE = "s" * 20
ALICE = Owner("local:alice", "alice", "alice")
LINK = {
    "redirect_uri": "http://127.0.0.1:40001/callback",
    "state": STATE,
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
    "device": "alices-laptop",
}
HUB = "http://127.0.0.1:8000"


@pytest_asyncio.fixture
async def run() -> AsyncIterator[Running]:
    async with running(pages()) as run:
        run.hub.person("browsers", "alice")
        run.hub.person("bobs-browser", "bob")
        yield run


async def enter(run: Running, browser: httpx.AsyncClient, token: str = "browsers") -> str:
    """Log a browser in; return what its forms need."""
    page = await log_in(run, browser, token)
    found = re.search(r'data-xsrf="([^"]+)"', page.text)
    assert found is not None
    return unescape(found[1])


def sent_to(page: httpx.Response) -> dict[str, str]:
    """Return what the page tells the command line."""
    assert page.status_code == 200, page.text
    found = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', page.text)
    assert found is not None, page.text
    there = unescape(found[1])
    assert there.startswith(LINK["redirect_uri"] + "?")
    return {name: values[0] for name, values in parse_qs(urlsplit(there).query).items()}


async def confirmed(run: Running, browser: httpx.AsyncClient, xsrf: str, **changes: str) -> dict[str, str]:
    answer = await browser.post("login", data={**LINK, "answer": "confirm", "_xsrf": xsrf, **changes})
    return sent_to(answer)


async def collect(run: Running, **body: Any) -> httpx.Response:
    async with run.client() as client:
        return await client.post(f"{API}/login/token", json={"code_verifier": VERIFIER, **body})


# The browser of the same machine


async def test_a_confirmed_login_gives_a_token_with_these_scopes_and_an_end(run: Running) -> None:
    async with run.client() as browser:
        xsrf = await enter(run, browser)
        page = await browser.get("login", params=LINK)
        assert page.status_code == 200
        for shown in ("alice", "alices-laptop", HUB, "30 days", 'value="confirm"'):
            assert shown in page.text, shown
        assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
        assert (page.headers["X-Frame-Options"], page.headers["Cache-Control"]) == ("DENY", "no-store")
        told = await confirmed(run, browser, xsrf)
    assert told["state"] == STATE
    answer = await collect(run, code=told["code"])
    assert answer.status_code == 200, answer.text
    got = answer.json()
    assert (got["status"], got["user"]) == ("granted", "alice")
    made = run.hub.models[run.hub.tokens[got["token"]]["token_id"]]
    assert set(made["scopes"]) == {scope.replace("!user", "!user=alice") for scope in login_wire.SCOPES}
    today = made["created"][:10]
    assert made["note"] == f"gpu-dev login on alices-laptop (browser), since {today}"
    assert made["expires_at"] is not None
    async with run.client(got["token"]) as alice:
        assert (await alice.get(f"{API}/me")).json()["user"] == "alice"
    # Once is all.
    again = await collect(run, code=told["code"])
    assert again.status_code == 401
    assert "was used or has expired" in again.json()["error"]["message"]


async def test_a_code_is_useless_without_its_verifier_and_used_up_by_a_guess(run: Running) -> None:
    async with run.client() as browser:
        told = await confirmed(run, browser, await enter(run, browser))
    assert (await collect(run, code=told["code"], code_verifier="w" * 43)).status_code == 401
    assert (await collect(run, code=told["code"])).status_code == 401
    assert len(run.hub.tokens) == 2


async def test_a_refused_login_is_told_to_the_command_line(run: Running) -> None:
    async with run.client() as browser:
        xsrf = await enter(run, browser)
        answer = await browser.post("login", data={**LINK, "answer": "refuse", "_xsrf": xsrf})
    assert sent_to(answer) == {"error": "access_denied", "state": STATE}


async def test_the_page_needs_a_login_and_its_own_form(run: Running) -> None:
    async with run.client() as stranger:
        sent = await stranger.get("login", params=LINK)
        assert sent.status_code == 302
        assert urlsplit(sent.headers["Location"]).path == "/hub/api/oauth2/authorize"
        assert (await stranger.post("login", data={**LINK, "answer": "confirm"})).status_code == 401
    async with run.client() as browser:
        xsrf = await enter(run, browser)
        for forged in ({}, {"_xsrf": "guess"}, {"_xsrf": xsrf[:-2] + "zz"}):
            answer = await browser.post("login", data={**LINK, "answer": "confirm", **forged})
            assert answer.status_code == 403
    async with run.client("browsers") as script:
        # No token makes another one: that of a server would outlive the server, with more rights.
        answer = await script.post("login", data={**LINK, "answer": "confirm"})
        assert answer.status_code == 403
        assert "only in a browser" in answer.text


@pytest.mark.parametrize(
    "address",
    [
        "http://localhost:40001/callback",
        "http://127.0.0.1/callback",
        "http://127.0.0.1:0/callback",
        "http://127.0.0.1:99999/callback",
        "https://127.0.0.1:40001/callback",
        "http://127.0.0.2:40001/callback",
        "http://127.1:40001/callback",
        "http://2130706433:40001/callback",
        "http://0.0.0.0:40001/callback",
        "http://evil.example:40001/callback",
        "http://127.0.0.1:40001@evil.example/callback",
        "http://user@127.0.0.1:40001/callback",
        "http://127.0.0.1.evil.example:40001/callback",
        "http://127.0.0.1:40001/callback?next=http://evil.example",
        "http://127.0.0.1:40001/callback#x",
        "http://127.0.0.1:40001\\@evil.example/callback",
        "http://127.0.0.1:40001//evil.example",
        "http://[::2]:40001/callback",
        "http://[::ffff:127.0.0.1]:40001/callback",
        "javascript:alert(1)",
        "//127.0.0.1:40001/callback",
        "",
    ],
)
async def test_a_link_leads_to_this_machine_only(run: Running, address: str) -> None:
    if address != "http://127.0.0.1:40001//evil.example":  # a path of this machine, whatever it looks like
        assert not loopback(address)
        async with run.client() as browser:
            xsrf = await enter(run, browser)
            page = await browser.get("login", params={**LINK, "redirect_uri": address})
            assert page.status_code == 400
            form = {**LINK, "redirect_uri": address, "answer": "confirm", "_xsrf": xsrf}
            assert (await browser.post("login", data=form)).status_code == 400
    assert not run.site.logins.grants._entries


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/callback", "http://[::1]:65535/callback"])
def test_both_loopback_addresses_are_good_at_any_port(address: str) -> None:
    assert loopback(address)


@pytest.mark.parametrize(
    "change",
    [
        {"code_challenge": ""},
        {"code_challenge": "c" * 42},
        {"code_challenge_method": "plain"},
        {"state": ""},
        {"state": "short"},
        {"state": "s" * 300},
    ],
)
async def test_a_link_without_proof_or_state_is_refused(run: Running, change: dict[str, str]) -> None:
    async with run.client() as browser:
        await enter(run, browser)
        page = await browser.get("login", params=LINK | change)
        assert page.status_code == 400
        assert "Nothing was confirmed" in page.text


async def test_the_name_of_a_machine_is_text_on_the_page(run: Running) -> None:
    async with run.client() as browser:
        await enter(run, browser)
        page = await browser.get("login", params={**LINK, "device": "<img src=x onerror=alert(1)>\u202e"})
        assert "<img" not in page.text
        assert "\u202e" not in page.text


# A code to type


async def begin(run: Running) -> dict[str, Any]:
    async with run.client() as client:
        answer = await client.post(
            f"{API}/login/codes", json={"code_challenge": CHALLENGE, "device": "build-7"}
        )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_typed_code_logs_in_the_machine_that_asked(run: Running) -> None:
    started = await begin(run)
    assert re.fullmatch(r"[B-Z]{4}-[B-Z]{4}", started["user_code"])
    assert started["page"] == f"{HUB}/services/gpudev/login"
    waiting = (await collect(run, device_code=started["device_code"])).json()
    assert (waiting["status"], waiting["token"]) == ("pending", None)
    async with run.client() as browser:
        xsrf = await enter(run, browser)
        assert 'name="user_code"' in (await browser.get("login")).text
        typed = started["user_code"].lower().replace("-", " ")
        page = await browser.post("login", data={"user_code": typed, "_xsrf": xsrf})
        for shown in ("build-7", "127.0.0.1", started["user_code"], "alice"):
            assert shown in page.text, shown
        form = {"user_code": started["user_code"], "answer": "confirm", "_xsrf": xsrf}
        assert "Return to your terminal" in (await browser.post("login", data=form)).text
        # It cannot be confirmed a second time, by nobody.
        assert (await browser.post("login", data=form)).status_code == 400
    assert (await collect(run, device_code=started["device_code"], code_verifier="w" * 43)).status_code == 401
    got = (await collect(run, device_code=started["device_code"])).json()
    assert (got["status"], got["user"]) == ("granted", "alice")
    assert (await collect(run, device_code=started["device_code"])).status_code == 401


async def test_a_refused_code_ends_the_login(run: Running) -> None:
    started = await begin(run)
    async with run.client() as browser:
        xsrf = await enter(run, browser)
        form = {"user_code": started["user_code"], "answer": "refuse", "_xsrf": xsrf}
        assert "was not logged in" in (await browser.post("login", data=form)).text
    answer = await collect(run, device_code=started["device_code"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


async def test_guessing_codes_is_limited_for_a_user_and_an_address() -> None:
    slow = Rate(per_second=0.001, burst=3)
    async with running(pages(), login_failures=slow) as run, run.client() as browser:
        run.hub.person("browsers", "alice")
        xsrf = await enter(run, browser)
        for _ in range(3):
            answer = await browser.post("login", data={"user_code": "BBBB-BBBB", "_xsrf": xsrf})
            assert answer.status_code == 400
            assert "not valid" in answer.text
        started = await begin(run)
        form = {"user_code": started["user_code"], "answer": "confirm", "_xsrf": xsrf}
        assert (await browser.post("login", data=form)).status_code == 429
        answer = await collect(run, code="guess")
        assert answer.status_code == 429
        assert "Retry-After" in answer.headers


async def test_starting_logins_is_limited_for_an_address() -> None:
    async with running(pages(), logins=Rate(per_second=0.001, burst=2)) as run, run.client() as client:
        for expected in (200, 200, 429):
            answer = await client.post(f"{API}/login/codes", json={"code_challenge": CHALLENGE})
            assert answer.status_code == expected
        assert (await client.post(f"{API}/login/nonces", json={})).status_code == 429


async def test_a_body_has_one_code(run: Running) -> None:
    for body in ({}, {"code": "a", "device_code": "b"}):
        assert (await collect(run, **body)).status_code == 400


# The tables


def test_codes_end_with_their_time() -> None:
    grants, asks, nonces = Grants(), Asks(), Nonces()
    code = grants.add(ALICE, CHALLENGE, "", 0)
    with pytest.raises(Refused):
        grants.redeem(code, VERIFIER, 60 * SECOND)
    secret, asked = asks.add(CHALLENGE, "", "10.0.0.1", 0)
    assert asks.find(asked.user_code, 10 * MINUTE - 1) is asked
    assert asks.find(asked.user_code, 10 * MINUTE) is None
    with pytest.raises(Refused):
        asks.poll(secret, VERIFIER, 10 * MINUTE)
    nonce, until = nonces.add("10.0.0.1", 0)
    assert nonces.take(nonce, until) is None
    nonce, until = nonces.add("10.0.0.1", 0)
    assert nonces.take(nonce, until - 1) == until
    assert nonces.take(nonce, until - 1) is None


def test_polls_that_come_too_early_become_rarer() -> None:
    asks = Asks()
    secret, asked = asks.add(CHALLENGE, "", "10.0.0.1", 0)
    assert asks.poll(secret, VERIFIER, 0).status == "pending"
    early = asks.poll(secret, VERIFIER, SECOND)
    assert (early.status, early.interval) == ("slow_down", 10)
    assert asks.poll(secret, VERIFIER, 6 * SECOND).interval == 15
    assert asks.poll(secret, VERIFIER, 21 * SECOND).status == "pending"
    asked.owner = ALICE
    assert asks.poll(secret, VERIFIER, 21 * SECOND).status == "granted"


def test_the_tables_count_a_subnet_of_ipv6_as_one_address() -> None:
    asks, nonces = Asks(), Nonces()
    secrets = [asks.add(CHALLENGE, "", f"2001:db8::{n}", 0)[0] for n in range(20)]
    for n in range(20):
        nonces.add(f"2001:db8::{n}", 0)
    with pytest.raises(Refused, match="Too many"):
        asks.add(CHALLENGE, "", "2001:db8:0:0:ffff::1", 0)
    with pytest.raises(Refused, match="Too many"):
        nonces.add("2001:db8:0:0:ffff::1", 0)
    asks.add(CHALLENGE, "", "2001:db8:0:1::1", 0)
    nonces.add("2001:db8:0:1::1", 0)
    # The one whose login ends makes room for another address of the same subnet.
    asks._entries[secrets[3]][0].denied = True
    with pytest.raises(Refused, match="was refused"):
        asks.poll(secrets[3], VERIFIER, 0)
    assert asks.add(CHALLENGE, "", "2001:db8::ff", 0)[1].address == "2001:db8::ff"
    nonces.add("2001:db8::ff", 10 * MINUTE)


def test_the_tables_are_bounded_for_each_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_codes, "MOST", 30)
    asks, grants, nonces = Asks(), Grants(), Nonces()
    for _ in range(20):
        asks.add(CHALLENGE, "", "10.0.0.1", 0)
        grants.add(ALICE, CHALLENGE, "", 0)
        nonces.add("10.0.0.1", 0)
    for full in (
        lambda now: asks.add(CHALLENGE, "", "10.0.0.1", now),
        lambda now: grants.add(ALICE, CHALLENGE, "", now),
        lambda now: nonces.add("10.0.0.1", now),
    ):
        with pytest.raises(Refused, match="Too many"):
            full(0)
        full(10 * MINUTE)
    for number in range(20, 29):
        asks.add(CHALLENGE, "", f"10.0.0.{number}", 10 * MINUTE)
    for number in range(30, 50):
        asks.add(CHALLENGE, "", f"10.0.0.{number}", 10 * MINUTE)
        if len(asks._entries) == 30:
            break
    with pytest.raises(Refused, match="Too many"):
        asks.add(CHALLENGE, "", "10.9.9.9", 10 * MINUTE)


def test_codes_as_people_type_them() -> None:
    assert clean_code(" bcdf-ghjk ") == clean_code("BCDF GHJK") == "BCDFGHJK"
    assert shown_code("BCDFGHJK") == "BCDF-GHJK"
    assert verified(VERIFIER, CHALLENGE)
    assert not verified(VERIFIER, CHALLENGE[:-1] + "_")


# SSH keys


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_key(tmp_path_factory.mktemp("keys"))


def new_key(folder: Path) -> Path:
    path = folder / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def sign(key: Path, text: bytes, namespace: str = NAMESPACE) -> str:
    command = ["ssh-keygen", "-Y", "sign", "-q", "-n", namespace, "-f", str(key)]
    return subprocess.run(command, input=text, capture_output=True, check=True).stdout.decode()


def allow(run: Running, key: Path, subject: str = "local:alice") -> None:
    public = key.with_suffix(".pub").read_text().strip()
    run.directory.of[subject] = [parse_line(public)]


async def by_key(
    run: Running, key: Path, nonce: dict[str, str] | None = None, **changes: str
) -> httpx.Response:
    """Sign as the command line does, with `changes` to what is sent but not to what is signed."""
    async with run.client() as client:
        if nonce is None:
            nonce = (await client.post(f"{API}/login/nonces", json={})).json()
        sent = {"account": "alice", "hub": HUB, **nonce}
        signed = sign(key, login_wire.statement(sent["hub"], "alice", sent["nonce"], sent["expires_at"]))
        body = {"signature": signed, "device": "build-7", **sent, **changes}
        return await client.post(f"{API}/login/signatures", json=body)


async def test_an_ssh_key_of_the_account_logs_in_once(run: Running, key: Path) -> None:
    allow(run, key)
    async with run.client() as client:
        nonce = (await client.post(f"{API}/login/nonces", json={})).json()
    answer = await by_key(run, key, nonce)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["user"], answer.json()["status"]) == ("alice", "granted")
    replayed = await by_key(run, key, nonce)
    assert (replayed.status_code, "was used" in replayed.text) == (401, True)


async def test_another_account_text_namespace_or_key_does_not(
    run: Running, key: Path, tmp_path: Path
) -> None:
    allow(run, key)
    allow(run, key, "local:bob*")
    # Somebody else's name, who has no such key; a name that is a pattern; a name that the Hub does not know.
    assert (await by_key(run, key, account="bob")).status_code == 401
    assert (await by_key(run, key, account="bob*")).status_code == 401
    run.hub.users.discard("alice")
    assert (await by_key(run, key)).status_code == 401
    run.hub.users.add("alice")
    assert (await by_key(run, key, expires_at="2036-01-01T00:00:00Z")).status_code == 401
    made_up = {"nonce": "guess", "expires_at": "2036-01-01T00:00:00Z"}
    assert (await by_key(run, key, made_up)).status_code == 401
    assert (await by_key(run, new_key(tmp_path))).status_code == 401
    assert (await by_key(run, key, signature="-----BEGIN SSH SIGNATURE-----\nguess\n")).status_code == 401
    assert len(run.hub.tokens) == 2


def test_only_signatures_for_logins_count(key: Path) -> None:
    keys = [parse_line(key.with_suffix(".pub").read_text().strip())]
    assert signed_by("github:1", keys, b"text", sign(key, b"text"))
    assert not signed_by("github:1", keys, b"text", sign(key, b"text", "git"))
    assert not signed_by("github:1", keys, b"texT", sign(key, b"text"))
    assert not signed_by("github:1", [], b"text", sign(key, b"text"))
    for pattern in ("*", "github:*", "a,b", "github:?", "a b", "!github:1", ""):
        assert not signed_by(pattern, keys, b"text", sign(key, b"text"))


async def test_a_hostile_hub_cannot_relay_a_number_of_this_hub(run: Running, key: Path) -> None:
    """The client signs the address of the hub that it talks to: another one than this."""
    allow(run, key)
    hostile = "https://hub.evil.example"
    async with run.client() as relay:
        nonce = (await relay.post(f"{API}/login/nonces", json={})).json()
        signed = sign(key, login_wire.statement(hostile, "alice", nonce["nonce"], nonce["expires_at"]))
        body = {"account": "alice", **nonce, "signature": signed}
        honest = await relay.post(f"{API}/login/signatures", json=body | {"hub": hostile})
        assert honest.status_code == 403
        assert f"gpu-dev login --ssh --url {HUB}" in honest.json()["error"]["hint"]
        nonce = (await relay.post(f"{API}/login/nonces", json={})).json()
        signed = sign(key, login_wire.statement(hostile, "alice", nonce["nonce"], nonce["expires_at"]))
        lie = await relay.post(
            f"{API}/login/signatures",
            json={"account": "alice", **nonce, "signature": signed, "hub": HUB},
            headers={"Host": "hub.evil.example", "X-Forwarded-Host": "hub.evil.example"},
        )
        assert lie.status_code == 401
    assert len(run.hub.tokens) == 2


# Tokens


def ours(run: Running, life: timedelta) -> str:
    scopes = tuple(scope.replace("!user", "!user=alice") for scope in login_wire.SCOPES)
    return run.hub.person("ours", "alice", scopes=scopes, note="gpu-dev login on laptop (browser)", life=life)


async def test_a_token_is_renewed_in_the_second_half_of_its_life(run: Running) -> None:
    async with run.client(ours(run, timedelta(days=29))) as alice:
        young = (await alice.post(f"{API}/login/renew")).json()
        assert (young["token"], young["last"]) == (None, False)
    run.site.auth.tokens.forget("ours")
    async with run.client(ours(run, timedelta(days=9))) as alice:
        first = (await alice.post(f"{API}/login/renew")).json()
        assert first["token"] in run.hub.tokens
        assert first["expires_at"] > young["expires_at"]
        # The answer may have been lost: there never are two successors.
        second = (await alice.post(f"{API}/login/renew")).json()
        assert second["token"] in run.hub.tokens
        assert first["token"] not in run.hub.tokens
        assert (await alice.get(f"{API}/me")).status_code == 200
    made = run.hub.models[run.hub.tokens[second["token"]]["token_id"]]
    assert made["note"] == f"gpu-dev login on laptop (browser), since {made['created'][:10]}"


async def test_renewals_end_90_days_after_the_login(run: Running) -> None:
    """Also if the name of the device looks like the end of a note."""
    scopes = tuple(scope.replace("!user", "!user=alice") for scope in login_wire.SCOPES)
    device = "x (browser), since 2999-01-01"

    async def renewed(days_ago: int, life: timedelta) -> dict[str, Any]:
        since = datetime.now(UTC) - timedelta(days=days_ago)
        note = f"gpu-dev login on {device} (code), since {since:%Y-%m-%d}"
        run.hub.person("ours", "alice", scopes=scopes, note=note, life=life)
        run.site.auth.tokens.forget("ours")
        async with run.client("ours") as alice:
            found: dict[str, Any] = (await alice.post(f"{API}/login/renew")).json()
        if found["token"] is not None:
            made = run.hub.models[run.hub.tokens[found["token"]]["token_id"]]
            assert made["note"] == note
        return found

    whole = await renewed(50, timedelta(days=5))
    left = datetime.fromisoformat(whole["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)
    last = await renewed(75, timedelta(days=5))
    left = datetime.fromisoformat(last["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=14) - timedelta(hours=1) < left <= timedelta(days=15)
    assert (whole["last"], last["last"]) == (False, True)
    for days_ago in (85, 200):
        found = await renewed(days_ago, timedelta(days=5))
        assert (found["token"], found["last"]) == (None, True)


def test_a_day_in_the_future_prolongs_nothing() -> None:
    made = datetime(2026, 1, 1, 12, tzinfo=UTC)
    now, end = made + timedelta(days=75), made + timedelta(days=76)
    for note in ("gpu-dev login, since 2999-01-01", "gpu-dev login (x), since 2999-01-01"):
        successor = successor_of(note, made, end, now, timedelta(days=30))
        assert successor is not None
        assert now + successor[1] == datetime(2026, 4, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "other",
    [
        {"note": "made by hand"},
        {"client": "Server at /user/alice/x/"},
        {"scopes": (RESERVE,)},
        {"life": None},
    ],
)
async def test_no_other_token_is_renewed(run: Running, other: dict[str, Any]) -> None:
    scopes = tuple(scope.replace("!user", "!user=alice") for scope in login_wire.SCOPES)
    token = {"scopes": scopes, "note": "gpu-dev login", "life": timedelta(days=1), **other}
    run.hub.person("other", "alice", **token)
    before = len(run.hub.tokens)
    async with run.client("other") as alice:
        assert (await alice.post(f"{API}/login/renew")).status_code == 403
    assert len(run.hub.tokens) == before


async def test_a_deleted_token_is_dead_at_once(run: Running) -> None:
    async with run.client(ours(run, timedelta(days=9))) as alice:
        info = (await alice.get(f"{API}/login/token")).json()
        assert info["account"] == "alice"
        assert RESERVE in info["scopes"]
        assert (await alice.delete(f"{API}/login/token")).status_code == 204
        assert (await alice.get(f"{API}/me")).status_code == 401
    assert "ours" not in run.hub.tokens


async def test_the_token_of_a_server_is_not_deleted(run: Running) -> None:
    run.hub.person("servers", "alice", client="Server at /user/alice/x/")
    async with run.client("servers") as server:
        assert (await server.delete(f"{API}/login/token")).status_code == 403
    assert "servers" in run.hub.tokens


async def test_a_browser_has_no_token_to_delete_or_renew(run: Running) -> None:
    async with run.client() as browser:
        headers = {"X-XSRFToken": await enter(run, browser)}
        assert (await browser.post(f"{API}/login/renew", headers=headers)).status_code == 403
        assert (await browser.delete(f"{API}/login/token", headers=headers)).status_code == 403
    assert "browsers" in run.hub.tokens


async def test_while_the_hub_is_away_nobody_logs_in_and_it_is_said(run: Running, key: Path) -> None:
    allow(run, key)
    async with run.client() as browser:
        told = await confirmed(run, browser, await enter(run, browser))
    run.hub.failure = "500"
    for answer in (await collect(run, code=told["code"]), await by_key(run, key)):
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert "Hub did not answer" in answer.json()["error"]["message"]


async def test_a_user_whom_the_hub_gives_no_token_is_told(run: Running) -> None:
    async with run.client() as browser:
        told = await confirmed(run, browser, await enter(run, browser))
    run.hub.users.discard("alice")
    answer = await collect(run, code=told["code"])
    assert (answer.status_code, "refused to make a token for alice" in answer.text) == (403, True)


async def test_no_code_or_token_reaches_a_log_and_each_login_is_in_it(
    run: Running, key: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    allow(run, key)
    started = await begin(run)
    async with run.client() as browser:
        xsrf = await enter(run, browser)
        await browser.get("login", params=LINK)
        told = await confirmed(run, browser, xsrf)
        form = {"user_code": started["user_code"], "answer": "confirm", "_xsrf": xsrf}
        await browser.post("login", data=form)
    got = [
        (await collect(run, code=told["code"])).json(),
        (await collect(run, device_code=started["device_code"])).json(),
        (await by_key(run, key)).json(),
    ]
    async with run.client(got[0]["token"]) as alice:
        await alice.get(f"{API}/login/token")
        await alice.delete(f"{API}/login/token")
    # The client of the tests logs addresses, with codes, too.
    ours = [record for record in caplog.records if record.name.startswith("gpudev")]
    lines = "\n".join(JsonFormatter().format(record) for record in ours)
    secrets = [told["code"], STATE, VERIFIER, CHALLENGE, started["device_code"], started["user_code"], xsrf]
    for secret in [*secrets, *(one["token"] for one in got)]:
        assert secret not in lines
    made = [record.fields for record in ours if record.name == "gpudev.login"]  # type: ignore[attr-defined]
    assert [one.get("method") or one["event"] for one in made] == ["browser", "code", "ssh", "logout"]
    assert all(one["subject"] == "local:alice" for one in made)


def test_the_client_and_the_hub_agree_on_scopes_and_namespace() -> None:
    assert login.SCOPES == login_wire.SCOPES
    assert set(login_wire.SCOPES) == set(LOCAL_USER_SCOPES)
    assert login_wire.NAMESPACE == NAMESPACE
    # Makes, reads and deletes tokens, and starts and shares servers; reads names; nothing else.
    assert service_role()["scopes"] == ["list:users", "read:users:name", "servers", "shares", "tokens"]
