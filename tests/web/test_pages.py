"""The pages as their readers get them, over the real service: links, live parts, warnings."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from html import unescape
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from gpudev.hours import read_hours
from gpudev.wire import RefusedKey, SshAccess
from gpudev_hub.core.commit import HistoryEntry
from gpudev_hub.core.model import MINUTE, SECOND, Owner, Reservation
from gpudev_hub.core.policy import Allowances
from gpudev_hub.core.ports import StoreUnavailable
from gpudev_hub.web.pages import pages
from memory_store import MemoryStore
from web_site import POLICY, Running, running

LINKS = re.compile(r'\b(?:href|src|action|data-url|content)="([^"]*)"')
ALICE = "alices"


@pytest_asyncio.fixture
async def run() -> AsyncIterator[Running]:
    async with running(pages()) as run:
        run.hub.person(ALICE, "alice")
        run.hub.person("bobs", "bob")
        run.hub.person("operators", "olga", scopes=("custom:gpudev:reserve", "custom:gpudev:operate"))
        yield run


async def reserve(run: Running, hours: float = 1, gpus: int = 1) -> Reservation:
    """Alice's, ready."""
    async with run.client(ALICE) as client:
        made = await client.post("api/v1/reservations", json={"gpus": gpus, "hours": hours, "name": "train"})
    await run.make_ready(made.json()["id"])
    return await run.until(made.json()["id"], lambda record: True)


async def page(run: Running, path: str = "", reader: str = ALICE) -> str:
    async with run.client(reader) as client:
        answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.text


def live_parts(html: str) -> set[str]:
    """The parts that a page's script keeps up to date."""
    parts = [tag for tag in re.findall(r"<[a-z]+ [^>]*>", html) if re.search(r"\bdata-live\b", tag)]
    return {re.search(r'\bid="([^"]+)"', tag)[1] for tag in parts}  # type: ignore[index]


async def test_the_page_of_a_ready_server_names_refused_keys_with_the_reason(
    run: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await reserve(run)
    assert "accepts none of your SSH keys" in await page(run, f"reservations/{record.id}")
    weak = RefusedKey(key="ssh-rsa SHA256:<w>", reason="an RSA key of 1024 bits")
    told = SshAccess(
        known_hosts="",
        hosts=[],
        identity_file=None,
        accepted_keys=["SHA256:a", "SHA256:b"],
        refused_keys=[weak],
    )

    async def hosts(owner: Owner) -> SshAccess:
        return told

    monkeypatch.setattr(run.site.access, "hosts", hosts)
    html = await page(run, f"reservations/{record.id}")
    assert "accepts 2 of your SSH keys" in html
    assert "ssh-rsa SHA256:&lt;w&gt;</code>: an RSA key of 1024 bits." in html


async def test_links_and_redirects_are_paths(run: Running) -> None:
    """The browser may reach the Hub at another address than the configured one, through a tunnel say."""
    record = await reserve(run)
    configured = urlsplit(run.site.settings.public_url).netloc
    for path in ("", "new", "pool", f"reservations/{record.id}"):
        html = await page(run, path)
        assert configured not in html, f"{path or 'home'} names the configured address"
        for link in LINKS.findall(html):
            there = urlsplit(unescape(link))
            assert there.scheme == "vscode" or there.netloc == "", link
    async with run.client(ALICE) as client:
        opened = await client.get(f"reservations/{record.id}?open=1")
        assert (opened.status_code, opened.headers["Location"]) == (303, f"/user/alice/{record.id}/lab")
        # Programs have no page to start from: the API's addresses are whole.
        found = (await client.get(f"api/v1/reservations/{record.id}")).json()
        assert found["url"] == f"http://{configured}/user/alice/{record.id}/lab"
    async with run.client() as stranger:
        for path in ("", "pool"):
            assert urlsplit((await stranger.get(path)).headers["Location"]).netloc == ""


async def test_a_page_that_stays_open_has_a_place_for_everything_that_may_come(run: Running) -> None:
    """Scripts renew the parts that the page came with, and add none."""
    empty = live_parts(await page(run))
    record = await reserve(run)
    address = f"reservations/{record.id}"
    ready, running_home = live_parts(await page(run, address)), live_parts(await page(run))
    async with run.client(ALICE) as client:
        waiting = [
            (await client.post("api/v1/reservations", json={"gpus": 8, "hours": 1})).json() for _ in range(3)
        ]
        queued = next(one["id"] for one in waiting if one["state"] == "queued")
        assert live_parts(await page(run, f"reservations/{queued}")) == ready
        await client.delete(f"api/v1/{address}")
    await run.gone(record.id)
    assert live_parts(await page(run, address)) == ready
    over = await page(run)
    assert "Recently ended" in over
    assert live_parts(over) == running_home == empty


async def test_a_pair_has_the_way_to_each_node(run: Running) -> None:
    async with run.client(ALICE) as client:
        made = (await client.post("api/v1/reservations", json={"gpus": 8, "nodes": 2, "name": "pair"})).json()
    await run.make_ready(made["id"])
    html = await page(run, f"reservations/{made['id']}")
    for text in ("ssh gpu-pair<", "ssh gpu-pair-1<", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "NNODES"):
        assert text in html


@pytest.mark.parametrize(("hours", "thresholds"), [(0.5, [5, 15]), (0.25, [5]), (1, [5, 15, 30])])
async def test_a_reservation_is_not_warned_of_from_its_start_on(
    run: Running, hours: float, thresholds: list[int]
) -> None:
    record = await reserve(run, hours)
    html = await page(run, f"reservations/{record.id}")
    assert [minutes for minutes, _ in warnings(html)] == thresholds
    assert "hidden" in note(html)


async def test_who_is_warned(run: Running) -> None:
    """The owner; operators are informed; others are told nothing."""
    record = await reserve(run)
    address = f"reservations/{record.id}"
    run.service.clock._base += 46 * MINUTE / SECOND
    assert "Less than 15 minutes left. Save your work, or extend." in note(await page(run, address))
    told = note(await page(run, address, "operators"))
    assert "alice's reservation ends in less than 15 minutes." in unescape(told)
    assert "Save your work" not in told
    other = await page(run, address, "bobs")
    assert warnings(other) == []
    assert "hidden" in note(other)


async def test_the_limit_on_gpu_hours_is_shown(run: Running) -> None:
    """Before a request is refused over it."""
    assert "GPU-hours" not in await page(run)
    async with running(pages(), policy=replace(POLICY, allowances=Allowances(gpu_hours=100))) as limited:
        limited.hub.person(ALICE, "alice")
        await reserve(limited, hours=2.5, gpus=4)
        assert re.search(r"GPU-hours</span><strong>10 of 100<", await page(limited))


@pytest.mark.parametrize(
    ("hours", "said"),
    [
        ("99", "You asked for 99 h; your limit for one request is 24 h."),
        ("5000h", "You asked for 5000 h; your limit for one request is 24 h."),
        ("-1", "You asked for -1 hours; the hold time must be longer than zero."),
        ("abc", "'abc' is not a length of time."),
        ("", "'' is not a length of time."),
    ],
)
async def test_the_picker_has_no_plan_for_hours_that_would_be_refused(
    run: Running, hours: str, said: str
) -> None:
    """In the words of the refusal, and in the page as the Hub renders it, too."""
    async with run.client(ALICE) as client, run.gate() as gate:
        assert (await client.get("picker", params={"hours": "24"})).status_code == 200
        answer = await client.get("picker", params={"hours": hours})
        assert answer.status_code in (400, 409), answer.text
        assert answer.json()["error"]["message"] == said
        number = read_hours(hours)
        if number is not None:
            asked = {"subject": "local:alice", "login": "alice", "server": "x", "hours": number}
            shown = (await gate.post("gate/picker", json=asked)).json()
            assert (shown["refused"], shown["sizes"]) == (said, [])


def note(html: str) -> str:
    """The warning above everything, shown or hidden."""
    found = re.search(r'<p [^>]*id="warning".*?</p>', html, re.DOTALL)
    assert found is not None
    return found[0]


def warnings(html: str) -> list[tuple[int, str]]:
    """What the page's script shows when the time comes."""
    found = re.search(r'data-warnings="([^"]*)"', html)
    assert found is not None
    return [(minutes, words) for minutes, words in json.loads(unescape(found[1]))]


async def test_picker_gate_and_api_say_what_a_reservation_then_does() -> None:
    """At one's own limit, over it, and for more GPU-hours than are left."""
    limits = Allowances(running_gpus=4, gpu_hours=20)
    async with running(pages(), policy=replace(POLICY, allowances=limits)) as limited:
        limited.hub.person(ALICE, "alice")
        await reserve(limited, hours=2, gpus=4)
        async with limited.client(ALICE) as client, limited.gate() as gate:
            by_page = (await client.get("picker?hours=3.5")).json()["pools"][0]["sizes"]
            by_api = (await client.get("api/v1/availability?hours=3.5")).json()["pools"][0]["sizes"]
            asked = {"subject": "local:alice", "login": "alice", "server": "x", "hours": 3.5}
            by_gate = (await gate.post("gate/picker", json=asked)).json()["sizes"]
            for size, same, told in zip(by_page, by_api, by_gate, strict=True):
                assert size == same
                assert told["starts_now"] == size["starts_now"]
                assert told["refused"] == (size["refused"] is not None)
                assert size["free_now"] > 0 or size["nodes"] == 2, "others could have it"
                assert not size["starts_now"], "the limit is used up"
                answer = await client.post(
                    "api/v1/reservations",
                    json={"gpus": size["gpus"], "nodes": size["nodes"], "hours": 3.5},
                )
                made = answer.json()
                if size["refused"] is not None:
                    assert made["error"] == size["refused"]
                    assert size["reason"] == made["error"]["message"]
                    continue
                assert (made["state"], made["planned_start"]) == ("queued", size["earliest_start"])
                assert made["reason"] == size["reason"]
                assert "alice's limit of 4 GPUs at once is used up until" in size["reason"]
                await client.delete(f"api/v1/reservations/{made['id']}")
        assert [size["refused"] is not None for size in by_page] == [False, False, True, True, True]


class Silent(MemoryStore):
    """Answers, until it is told not to."""

    away = False

    async def ended(
        self, subject: str | None, before: int | None, limit: int
    ) -> tuple[list[Reservation], int | None]:
        if self.away:
            raise StoreUnavailable("DynamoDB table gpudev: timeout")
        return await super().ended(subject, before, limit)

    async def history(
        self, reservation: str | None, after: int, limit: int
    ) -> tuple[list[HistoryEntry], int | None]:
        if self.away:
            raise StoreUnavailable("DynamoDB table gpudev: timeout")
        return await super().history(reservation, after, limit)


async def test_what_is_live_is_shown_while_the_database_does_not_answer() -> None:
    store = Silent()
    async with running(pages(), store=store) as run:
        run.hub.person(ALICE, "alice")
        record = await reserve(run)
        address = f"reservations/{record.id}"
        before = {path: live_parts(await page(run, path)) for path in ("", address)}
        for path in ("", address):
            assert "The database does not answer" not in await page(run, path)
        store.away = True
        home, shown = await page(run), await page(run, address)
        assert "The database does not answer, so what has ended is not shown." in home
        assert "The database does not answer, so the history is not shown." in shown
        for html in (home, shown):
            assert f"/user/alice/{record.id}/lab" in html
        assert {"": live_parts(home), address: live_parts(shown)} == before
