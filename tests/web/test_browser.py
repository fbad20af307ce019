"""Browsers: log-in through the Hub, the cookie, and writes that only our own pages can make."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio

from gpudev import wire
from gpudev_hub.core.model import HOUR, Owner
from gpudev_hub.core.request import Ask
from gpudev_hub.web.auth import PENDING_LOGINS
from gpudev_hub.web.base import PageHandler
from gpudev_hub.web.pages import pages
from web_site import PREFIX, Running, log_in, running

API = wire.API


class Page(PageHandler):
    """A page as pages are: greets, and takes a form."""

    async def get(self) -> None:
        self.finish(f"{self.person.owner.login} {self.xsrf_token.decode()}")

    async def post(self) -> None:
        self.finish("done")


PAGES: list[tuple[str, type[PageHandler], dict[str, Any]]] = [("", Page, {}), ("pool", Page, {})]


@pytest_asyncio.fixture
async def run() -> AsyncIterator[Running]:
    async with running(PAGES) as run:
        run.hub.person("browsers", "alice")
        run.hub.person("admins", "root", admin=True)
        yield run


async def test_a_browser_logs_in_and_comes_back(run: Running) -> None:
    async with run.client() as browser:
        page = await log_in(run, browser, "browsers")
        assert page.status_code == 200
        assert page.url.path == f"{PREFIX}pool"
        assert page.text.startswith("alice ")
        assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
        me = await browser.get(f"{API}/me")
        assert me.json()["user"] == "alice"


async def test_writes_with_a_cookie_need_the_pages_own_token(run: Running) -> None:
    async with run.client() as browser:
        page = await log_in(run, browser, "browsers")
        xsrf = page.text.split()[1]
        body = {"gpus": 1, "hours": 1}
        for headers in (
            {},
            {"X-XSRFToken": "guess"},
            {"X-XSRFToken": xsrf[:-2] + "zz"},
            {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"},
            {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Mode": "websocket"},
        ):
            answer = await browser.post(f"{API}/reservations", json=body, headers=headers)
            assert answer.status_code == 403, headers
            assert answer.json()["error"]["code"] == "forbidden"
            assert (await browser.post("pool", data={}, headers=headers)).status_code == 403
        assert not run.service.view.reservations
        made = await browser.post(f"{API}/reservations", json=body, headers={"X-XSRFToken": xsrf})
        assert made.status_code == 201, made.text
        assert (await browser.post("pool", data={"_xsrf": xsrf})).text == "done"


async def test_another_persons_token_does_not_fit(run: Running) -> None:
    run.hub.person("eves", "eve")
    async with run.client() as hers, run.client() as his:
        stolen = (await log_in(run, hers, "eves")).text.split()[1]
        await log_in(run, his, "browsers")
        answer = await his.post(f"{API}/reservations", json={"gpus": 1}, headers={"X-XSRFToken": stolen})
        assert answer.status_code == 403
        # Nor when her cookie was planted beside it.
        his.cookies.set("_xsrf", stolen, domain="127.0.0.1", path=PREFIX)
        answer = await his.post(f"{API}/reservations", json={"gpus": 1}, headers={"X-XSRFToken": stolen})
        assert answer.status_code == 403


async def test_scripts_of_other_pages_on_the_host_can_not_read(run: Running) -> None:
    async with run.client() as browser:
        page = await log_in(run, browser, "browsers")
        script = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
        assert (await browser.get(f"{API}/me", headers=script)).status_code == 403
        own = {**script, "X-XSRFToken": page.text.split()[1]}
        assert (await browser.get(f"{API}/me", headers=own)).status_code == 200


async def test_jupyterlab_reads_its_own_reservation_only() -> None:
    async with running(pages()) as run, run.client() as alice, run.client() as bob:
        run.hub.person("alices", "alice")
        run.hub.person("bobs", "bob")
        for browser, token in ((alice, "alices"), (bob, "bobs")):
            assert (await log_in(run, browser, token)).status_code == 200
        made = await run.service.submit(Owner("local:alice", "alice", "alice"), Ask(hours=1))
        await run.make_ready(made.id)
        of_a_script = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
        address = f"reservations/{made.id}/lab"
        shown = (await alice.get(address, headers=of_a_script)).json()
        assert (shown["reservation"]["id"], shown["outcome"]) == (made.id, None)
        assert (await bob.get(address, headers=of_a_script)).status_code == 404
        assert (await alice.get("reservations/res-99/lab", headers=of_a_script)).status_code == 404
        assert (await alice.post(address, headers=of_a_script)).status_code in (403, 405)
        await run.service.end(made.id, "local:alice")
        await run.gone(made.id)
        assert (await alice.get(address, headers=of_a_script)).json()["outcome"] == "released"


async def test_a_stale_cookie_leads_to_the_log_in_again(run: Running) -> None:
    async with run.client() as browser:
        await log_in(run, browser, "browsers")
        del run.hub.tokens["browsers"]
        later = run.service.clock.now() + 31_000
        run.site.auth.tokens._now = lambda: later
        page = await browser.get("pool")
        assert page.status_code == 302
        assert urlsplit(page.headers["Location"]).path == "/hub/api/oauth2/authorize"
        answer = await browser.get(f"{API}/me")
        assert answer.status_code == 401


async def test_logins_that_nobody_finishes_do_not_pile_up_cookies(run: Running) -> None:
    """While nobody can log in, people reload; a proxy refuses requests whose cookies are too long."""
    async with run.client() as browser:
        states = []
        for _ in range(4 * PENDING_LOGINS):
            sent = await browser.get("pool")
            states += parse_qs(urlsplit(sent.headers["Location"]).query)["state"]
            assert len(browser.cookies) <= PENDING_LOGINS
        assert len(set(states)) == 4 * PENDING_LOGINS
        run.hub.codes["x"] = "browsers"
        tab = {"code": "x", "state": states[-PENDING_LOGINS]}
        assert (await browser.get("oauth_callback", params=tab)).status_code == 302
        assert (await browser.get("pool")).status_code == 200
        assert not any("state" in cookie.name for cookie in browser.cookies.jar)


async def test_a_hub_admin_is_an_operator_in_his_browser(run: Running) -> None:
    async with run.client() as browser:
        await log_in(run, browser, "admins")
        assert (await browser.get(f"{API}/me")).json()["operator"] is True


@pytest.mark.parametrize("query", ["", "?code=x", "?code=x&state=forged", "?error=denied"])
async def test_forged_callbacks_log_nobody_in(run: Running, query: str) -> None:
    run.hub.codes["x"] = "browsers"
    async with run.client() as browser:
        answer = await browser.get(f"oauth_callback{query}")
        assert answer.status_code in (400, 403)
        assert set(answer.json()["error"]) == {"code", "message", "hint"}
        assert not any("service-gpudev" in c.name for c in browser.cookies.jar)


async def test_a_code_that_the_hub_refuses_is_no_defect_of_ours(run: Running) -> None:
    async with run.client() as browser:
        sent = await browser.get("pool")
        state = parse_qs(urlsplit(sent.headers["Location"]).query)["state"][0]
        answer = await browser.get("oauth_callback", params={"code": "unknown", "state": state})
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "unavailable"


async def test_pages_read_hours_in_every_spelling() -> None:
    async with running(pages()) as run, run.client() as browser:
        run.hub.person("browsers", "alice")
        assert (await log_in(run, browser, "browsers")).status_code == 200
        feed = await browser.get("picker", params={"hours": "90m"})
        assert feed.json()["pools"][0]["sizes"]
        unreadable = await browser.get("picker", params={"hours": "soon"})
        assert (unreadable.status_code, feed.status_code) == (400, 200)
        made = await run.service.submit(Owner("local:alice", "alice", "alice"), Ask(hours=1))
        await run.make_ready(made.id)
        form = await browser.get(f"reservations/{made.id}")
        xsrf = re.search(r'name="_xsrf" value="([^"]+)"', form.text)
        assert xsrf is not None
        answer = await browser.post(
            f"reservations/{made.id}/extend", data={"hours": "1:30", "_xsrf": xsrf[1]}
        )
        assert answer.status_code == 303, answer.text
        assert run.service.view.reservations[made.id].request.hold == 2.5 * HOUR
        refused = await browser.post(
            f"reservations/{made.id}/extend", data={"hours": "soon", "_xsrf": xsrf[1]}
        )
        assert "&#39;soon&#39; is not a length of time" in refused.text
        short = await browser.post(f"reservations/{made.id}/extend", data={"hours": "1s", "_xsrf": xsrf[1]})
        assert "<p>Use a longer time, for example 1 hour.</p>" in short.text
        long = await browser.post(f"reservations/{made.id}/extend", data={"hours": "99", "_xsrf": xsrf[1]})
        assert long.status_code == 409
        assert re.search(r'name="hours" value="45\.5">Extend by 45 h 30 min<', long.text), long.text
        assert "`" not in re.sub(r"(?s)<script.*?</script>", "", long.text)


async def test_pages_are_closed_while_the_hub_is_away(run: Running) -> None:
    async with run.client() as browser:
        await log_in(run, browser, "browsers")
        run.hub.failure = "500"
        later = run.service.clock.now() + 31_000
        run.site.auth.tokens._now = lambda: later
        assert (await browser.get("pool")).status_code == 503


async def test_every_address_names_the_methods_that_it_answers() -> None:
    """Also to who is logged in, and never with a traceback."""
    async with running(pages()) as run, run.client() as browser:
        run.hub.person("browsers", "alice")
        page = await log_in(run, browser, "browsers", "new")
        xsrf = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
        assert xsrf is not None
        made = await run.service.submit(Owner("local:alice", "alice", "alice"), Ask(gpus=1, hours=1))
        addresses = [
            *("", "new", "pool", "picker", "oauth_callback", "static/gpudev.css", "health/live"),
            *(f"reservations/{made.id}", f"reservations/{made.id}/extend", f"{API}/reservations/{made.id}"),
            *(f"{API}/reservations", f"{API}/reservations/{made.id}/logs"),
        ]
        headers = {"X-XSRFToken": xsrf[1], "Sec-Fetch-Mode": "navigate"}
        for address in addresses:
            refused: set[str] = set()
            allowed: set[str] = set()
            for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "X"):
                answer = await browser.request(method, address, headers=headers, follow_redirects=False)
                assert answer.status_code < 500, (method, address, answer.text)
                if answer.status_code == 405:
                    refused.add(method)
                    allowed = set(answer.headers["Allow"].split(", "))
            assert refused, address
            assert not refused & allowed, address
            assert allowed <= {"GET", "HEAD", "POST", "DELETE"}, address
        assert (await browser.put("nothing/here", headers=headers)).status_code == 404
