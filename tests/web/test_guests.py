"""Sharing over the API and on the pages: who may get access, what they see, and every refusal."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator

import httpx
import pytest_asyncio

from gpudev import wire
from gpudev_hub.core.events import AccessLost, PersonSeen
from gpudev_hub.web.pages import pages
from web_site import Running, log_in, running

ONE = f"{wire.API}/reservations/shared"


@pytest_asyncio.fixture
async def run() -> AsyncIterator[Running]:
    async with running(pages()) as run:
        for name in ("alice", "bob", "carol"):
            run.hub.person(f"{name}s", name)
        async with run.client("alices") as alice:
            body = {"gpus": 1, "hours": 1, "name": "shared"}
            made = (await alice.post(f"{wire.API}/reservations", json=body)).json()
        await run.make_ready(made["id"])
        yield run


async def refused(run: Running, method: str, login: str) -> tuple[int, str, str]:
    async with run.client("alices") as alice:
        answer = await alice.request(method, f"{ONE}/guests/{login}")
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["message"]


async def test_a_guest_sees_the_server_and_its_ways_in(run: Running) -> None:
    async with run.client("alices") as alice, run.client("bobs") as bob, run.client("carols") as carol:
        assert (await bob.get(ONE)).status_code == 404, "a name of alice's, so far"
        made = (await alice.put(f"{ONE}/guests/bob")).json()
        assert [guest["login"] for guest in made["guests"]] == ["bob"]
        seen = (await bob.get(ONE)).json()
        assert (seen["mine"], seen["shared"], seen["owner"]) == (False, True, "alice")
        assert seen["url"].endswith(f"/user/alice/{made['id']}/lab")
        assert seen["ssh_command"] == "ssh gpu-shared"
        own = (await bob.post(f"{wire.API}/reservations", json={"gpus": 1, "name": "shared"})).json()
        assert (await bob.get(ONE)).json()["id"] == own["id"], "one's own comes first"
        seen = (await bob.get(f"{wire.API}/reservations/{made['id']}")).json()
        assert seen["ssh_command"] == "ssh gpu-alice-shared"
        listed = (await bob.get(f"{wire.API}/reservations")).json()["reservations"]
        assert [(one["id"], one["shared"]) for one in listed] == [(own["id"], False), (made["id"], True)]
        stranger = (await carol.get(f"{wire.API}/reservations/{made['id']}")).json()
        assert (stranger["url"], stranger["guests"], stranger["shared"]) == (None, [], False)
        history = (await alice.get(f"{ONE}/history")).json()["items"]
        assert any(item["cause"] == "shared: with bob" for item in history)


async def test_every_refusal_says_why(run: Running) -> None:
    assert await refused(run, "PUT", "nobody") == (404, "not_found", "This hub has no user 'nobody'.")
    assert (await refused(run, "PUT", "alice"))[:2] == (400, "invalid_request")
    assert await refused(run, "DELETE", "nobody") == (
        404,
        "not_found",
        "Reservation shared is not shared with 'nobody'.",
    )
    async with run.client("alices") as alice:
        await alice.delete(ONE)
        made = (await alice.get(f"{wire.API}/reservations?ended=1")).json()["reservations"][0]
        await run.gone(made["id"])
        late = await alice.put(f"{wire.API}/reservations/{made['id']}/guests/carol")
    assert (late.status_code, late.json()["error"]["code"]) == (409, "wrong_state")


async def test_the_same_asked_twice_is_the_same_success(run: Running) -> None:
    """A client whose answer was lost asks again."""
    async with run.client("alices") as alice:
        for method, guests in (("PUT", ["bob"]), ("DELETE", [])):
            answers = [await alice.request(method, f"{ONE}/guests/bob") for _ in range(2)]
            assert [answer.status_code for answer in answers] == [200, 200]
            assert [[g["login"] for g in answer.json()["guests"]] for answer in answers] == [guests] * 2
            assert answers[0].json()["version"] == answers[1].json()["version"], "nothing is written"


async def test_a_login_means_its_holder_and_not_a_namesake(run: Running) -> None:
    """After renames, a login may be another person's old login, or the Hub's name of a third."""
    service, now = run.service, run.service.clock.now()
    confirmed = itertools.count(now)

    async def seen(id: int, hub_user: str, login: str) -> None:
        at = next(confirmed)
        await service._writer.ask(
            PersonSeen(f"github:{id}", hub_user, login, (), operator=False, confirmed_at=at)
        )

    def guests(answer: httpx.Response) -> list[str]:
        assert answer.status_code == 200, answer.text
        return [guest["login"] for guest in answer.json()["guests"]]

    async with run.client("alices") as alice:
        await seen(1, "ben", "ben")
        assert guests(await alice.put(f"{ONE}/guests/ben")) == ["ben"]
        await seen(1, "ben", "benny")
        await seen(2, "ben-2", "ben")
        assert guests(await alice.get(ONE)) == ["benny"], "shown by the login of now"
        assert guests(await alice.put(f"{ONE}/guests/ben")) == ["benny", "ben"]
        assert guests(await alice.delete(f"{ONE}/guests/ben")) == ["benny"], "not who had the login before"
        assert guests(await alice.delete(f"{ONE}/guests/ben")) == [], "the only guest who ever had it"
        assert guests(await alice.put(f"{ONE}/guests/benny")) == ["benny"]
        assert guests(await alice.delete(f"{ONE}/guests/ben")) == ["benny"], "the Hub's name of another"
        await seen(2, "ben-2", "bernd")
        assert guests(await alice.delete(f"{ONE}/guests/ben")) == [], "nobody else has the name"

        await seen(2, "ben-2", "ben")
        await alice.put(f"{ONE}/guests/ben")
        await seen(2, "ben-2", "bernd")
        await seen(3, "ben-3", "ben")
        await alice.put(f"{ONE}/guests/ben")
        await seen(3, "ben-3", "bert")
        assert guests(await alice.get(ONE)) == ["bernd", "bert"]
    status, code, message = await refused(run, "DELETE", "ben")
    assert (status, code) == (400, "invalid_request")
    assert message == "2 guests of this server had the login 'ben': bernd and bert."


async def test_ending_access_by_an_old_login_can_be_repeated(run: Running) -> None:
    """A client repeats a request whose answer was lost."""
    service, now = run.service, run.service.clock.now()
    async with run.client("alices") as alice:
        for login in ("erna", "ernie", "ernesto"):
            person = PersonSeen("github:9", "erin", login, (), operator=False, confirmed_at=now)
            await service._writer.ask(person)
            if login == "erna":
                await alice.put(f"{ONE}/guests/{login}")
        for login in ("erna", "erna", "erin"):
            answer = await alice.delete(f"{ONE}/guests/{login}")
            assert (answer.status_code, answer.json()["guests"]) == (200, [])
    assert (await refused(run, "DELETE", "ernie"))[0] == 404, "never shared by this login"


async def test_somebody_who_may_not_enter_gets_no_access(run: Running) -> None:
    """Known from GitHub, by a login that changes."""
    service, now = run.service, run.service.clock.now()
    ask = service._writer.ask
    await ask(PersonSeen("github:7", "dora", "Dora", (), operator=False, confirmed_at=now))
    async with run.client("alices") as alice:
        shared = await alice.put(f"{ONE}/guests/dora")
        assert shared.status_code == 200
        record = service.view.reservations[shared.json()["id"]]
        assert record.guests[0].subject == "github:7"
        await ask(PersonSeen("github:7", "dora", "dora-new", (), operator=False, confirmed_at=now))
        assert (await alice.delete(f"{ONE}/guests/dora-new")).json()["guests"] == []
    await ask(AccessLost("github:7", "no longer in the team", "service"))
    status, code, message = await refused(run, "PUT", "dora-new")
    assert (status, code) == (403, "forbidden")
    assert "no longer in the team" in message


async def test_the_page_shares_and_ends_it(run: Running) -> None:
    (made,) = run.service.view.reservations
    at = f"reservations/{made}"
    async with run.client() as alice, run.client() as bob:
        page = await log_in(run, alice, "alices")
        page = await alice.get(at)
        assert "Only you can use this server." in page.text
        xsrf = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
        assert xsrf is not None

        async def send(form: str, login: str) -> tuple[int, str]:
            answer = await alice.post(f"{at}/{form}", data={"login": login, "_xsrf": xsrf[1]})
            return answer.status_code, answer.text

        assert (await send("share", " bob "))[0] == 303
        page = await alice.get(at)
        assert "<bdi>bob</bdi>" in page.text
        assert "Access of a guest ended" not in page.text
        status, text = await send("share", "nobody")
        assert status == 409
        assert "This hub has no user" in text
        assert (await send("share", ""))[0] == 409
        await log_in(run, bob, "bobs")
        home = await bob.get("")
        assert "shared by <bdi>alice</bdi>" in home.text
        seen = await bob.get(at)
        assert "Open JupyterLab" in seen.text
        assert "ssh gpu-shared" in seen.text
        assert "End access" not in seen.text
        assert "/release" not in seen.text
        forbidden = re.search(r'name="_xsrf" value="([^"]+)"', home.text)
        assert forbidden is not None
        answer = await bob.post(f"{at}/unshare", data={"login": "bob", "_xsrf": forbidden[1]})
        assert answer.status_code == 403
        assert (await send("unshare", "bob"))[0] == 303
        assert "Access of a guest ended" in (await alice.get(at)).text
        assert "ssh gpu-shared" not in (await bob.get(at)).text


async def test_the_page_says_why_guests_have_ssh_only() -> None:
    """To the owner, and to the guest."""
    for lab_shared in (True, False):
        async with running(pages(), lab_shared=lab_shared) as run:
            for name in ("alice", "bob"):
                run.hub.person(f"{name}s", name)
            async with run.client("alices") as alice:
                made = (await alice.post(f"{wire.API}/reservations", json={"gpus": 1})).json()
                await run.make_ready(made["id"])
                await alice.put(f"{wire.API}/reservations/{made['id']}/guests/bob")
            pages_seen = []
            for name in ("alice", "bob"):
                async with run.client() as browser:
                    await log_in(run, browser, f"{name}s")
                    pages_seen.append((await browser.get(f"reservations/{made['id']}")).text)
        owners, guests = pages_seen
        why = "this hub has no separate web address for each user's JupyterLab"
        assert ("They can use SSH and JupyterLab" in owners) == lab_shared
        assert ("but cannot open its JupyterLab: " + why in owners) != lab_shared
        assert ("Open JupyterLab" in guests) == lab_shared
        assert ("You can use SSH only: " + why in guests) != lab_shared
