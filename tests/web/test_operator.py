"""The operator page: who may see it, what it says will happen to whom, and that this then happens."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from html import unescape

import httpx
import pytest
import pytest_asyncio

from gpudev_hub.core.access_model import LimitRule
from gpudev_hub.core.model import CapacityBlock, Node, NodeStatus
from gpudev_hub.web.operator_view import NodeUse, Use, people
from gpudev_hub.web.pages import pages
from metric_samples import value
from web_site import POLICY, Running, log_in, running

ADDRESSES = ("operator", "operator/reservations/{id}", "operator/nodes/node-1")
OPERATE = ("custom:gpudev:reserve", "custom:gpudev:operate")
NAME = "abcdefghijklmnopqrstuvwxyz-123"
"""As long as a name may be."""


@pytest_asyncio.fixture
async def run() -> AsyncIterator[Running]:
    async with running(pages()) as run:
        for user in ("alice", "bob"):
            run.hub.person(f"{user}s", user)
        run.hub.person("operators", "olga", scopes=OPERATE)
        run.hub.person("admins", "adam", admin=True)
        yield run


async def reserve(run: Running, user: str, **asked: object) -> str:
    """A reservation of a user's, ready unless it waits."""
    async with run.client(f"{user}s") as client:
        made = (await client.post("api/v1/reservations", json={"gpus": 1, "hours": 1, **asked})).json()
    if made["state"] != "queued":
        await run.make_ready(made["id"])
    return str(made["id"])


def text_of(answer: httpx.Response) -> str:
    """What a page says, without its tags."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", answer.text)).split())


def hidden(answer: httpx.Response, name: str) -> str:
    """The value of a form's hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', answer.text)
    assert found is not None
    return unescape(found[1])


@pytest.mark.parametrize("address", ADDRESSES)
async def test_only_operators_see_it(run: Running, address: str) -> None:
    one = await reserve(run, "alice")
    path = address.format(id=one)
    before = run.service.view.reservations[one].version
    async with run.client("bobs") as bob, run.client("alices") as alice, run.client() as nobody:
        for client, who in ((bob, "bob"), (alice, "alice")):
            for answer in (await client.get(path), await client.post(path, data={"action": "end"})):
                assert answer.status_code in (403, 405), "405 where there is nothing to post"
                assert "text/html" in answer.headers["Content-Type"]
                assert 'class="g-body"' in answer.text
                if answer.status_code == 403:
                    assert f"This page is for operators; {who} is not an operator." in text_of(answer)
                assert "node-1" not in answer.text
            assert 'href="/services/gpudev/operator"' not in (await client.get("")).text
        assert (await nobody.get(path)).status_code == 302
        assert (await nobody.post(path, data={"action": "end"})).status_code in (401, 405)
    assert run.service.view.reservations[one].version == before
    async with run.client("operators") as olga:
        assert (await olga.get(path)).status_code == 200
        assert 'href="/services/gpudev/operator"' in (await olga.get("")).text


async def test_operators_by_scope_or_as_admin_of_the_hub_have_it_in_the_browser(run: Running) -> None:
    for token, status in (("operators", 200), ("admins", 200), ("bobs", 403)):
        async with run.client() as browser:
            await log_in(run, browser, token, "pool")
            assert (await browser.get("operator")).status_code == status


async def test_forms_of_other_pages_change_nothing(run: Running) -> None:
    one = await reserve(run, "alice")
    async with run.client() as browser:
        await log_in(run, browser, "operators", "pool")
        page = await browser.get(f"operator/reservations/{one}")
        form = {"action": "end", "confirmed": hidden(page, "confirmed"), "reason": "maintenance"}
        for xsrf in ({}, {"_xsrf": "guess"}):
            for path in (f"operator/reservations/{one}", "operator/nodes/node-1"):
                assert (await browser.post(path, data=form | xsrf)).status_code == 403
        assert run.service.view.reservations[one].state == "ready"
        sent = await browser.post(
            f"operator/reservations/{one}", data=form | {"_xsrf": hidden(page, "_xsrf")}
        )
        assert sent.status_code == 303, sent.text
    await run.gone(one)


async def test_it_shows_who_holds_what_the_queue_nodes_and_limits(run: Running) -> None:
    held = await reserve(run, "alice", gpus=8, name=NAME)
    await reserve(run, "bob", gpus=4)
    waiting = await reserve(run, "bob", gpus=8, nodes=2, hours=3, name="pair")
    async with run.client("operators") as olga:
        page = await olga.get("operator")
    said = text_of(page)
    for words in (
        f"alice {NAME} 8 GPUs node-1 Ready",
        "1st bob pair 2 × 8 GPUs 3 h",
        "node-1 simulated Up 8 of 8 1 (alice) 1",
        "node-2 simulated Up 4 of 8 1 (bob) 1",
        "alice 8 of 16 0 of 1000 8 24 h 48 h",
        "bob 4 of 16 1 of 1000 52 24 h 48 h",
    ):
        assert words in said, said
    for one in (held, waiting):
        assert f'href="/services/gpudev/operator/reservations/{one}"' in page.text
    live = re.findall(r'<\w+ [^>]*id="(\w+)"[^>]*data-live', page.text)
    assert live == ["pools", "problems", "held", "waiting", "nodes", "rules", "limits"]
    assert 'data-every="' in page.text


async def test_an_end_says_whom_it_hits_and_needs_a_reason(run: Running) -> None:
    one = await reserve(run, "alice", gpus=2, name="train")
    address = f"operator/reservations/{one}"
    async with run.client("operators") as olga, run.client("alices") as alice:
        page = await olga.get(address)
        assert "1 server of alice ends now: train (2 GPUs on node-1)." in text_of(page)
        form = {"action": "end", "confirmed": hidden(page, "confirmed")}
        for reason, words in ((" \n", "The reason is missing."), ("x" * 301, "the maximum is 300")):
            refused = await olga.post(address, data=form | {"reason": reason})
            assert refused.status_code == 409
            assert words in text_of(refused)
        assert run.service.view.reservations[one].state == "ready"
        sent = await olga.post(address, data=form | {"reason": "driver\nupdate \N{RIGHT-TO-LEFT OVERRIDE}"})
        assert (sent.status_code, sent.headers["Location"]) == (303, f"/services/gpudev/{address}")
        await run.gone(one)
        assert "This reservation has ended." in text_of(await olga.get(address))
        told = text_of(await alice.get(f"reservations/{one}"))
        assert "Ended by an operator Driver update." in told
        assert "Ended by an operator by olga Driver update." in told


async def test_an_extension_is_told_or_refused_in_words(run: Running) -> None:
    one = await reserve(run, "alice")
    address = f"operator/reservations/{one}"
    async with run.client("operators") as olga, run.client("alices") as alice:
        form = {"action": "extend", "hours": "99", "reason": "the demo <b>runs</b> late"}
        refused = await olga.post(address, data=form)
        assert refused.status_code == 409
        assert "The longest extension now is" in text_of(refused)
        assert 'value="99"' in refused.text, "what was typed is still there"
        assert "<b>runs" not in refused.text
        assert (await olga.post(address, data=form | {"hours": "soon"})).status_code == 409
        assert (await olga.post(address, data=form | {"hours": "90m"})).status_code == 303
        assert "Extended by olga The demo <b>runs</b> late." in text_of(
            await alice.get(f"reservations/{one}")
        )
    assert run.service.view.reservations[one].extended == 90 * 60_000


async def test_a_confirmation_holds_for_what_its_page_said(run: Running) -> None:
    """A request that has got its server since, a node where another server has started."""
    first = await reserve(run, "bob", gpus=8, nodes=2, name="pair")
    waiting = await reserve(run, "alice", name="next")
    address = f"operator/reservations/{waiting}"
    async with run.client("operators") as olga, run.client("bobs") as bob:
        page = await olga.get(address)
        assert "1 request of alice leaves the queue: next (1 GPU). No server runs for it." in text_of(page)
        stale = {"action": "end", "confirmed": hidden(page, "confirmed"), "reason": "full"}
        node = await olga.get("operator/nodes/node-1")
        lost = {"action": "lost", "confirmed": hidden(node, "confirmed")}
        assert "1 server on node-1 ends now, with the outcome “node lost”: pair (bob)." in text_of(node)
        assert "1 waiting request planned there may start later than guaranteed: next (alice)." in text_of(
            node
        )
        await bob.delete(f"api/v1/reservations/{first}")
        await run.gone(first)
        await run.make_ready(waiting)
        for path, form in ((address, stale), ("operator/nodes/node-1", lost)):
            refused = await olga.post(path, data=form)
            assert refused.status_code == 409
            assert "has changed since you opened this page. Nothing was done." in text_of(refused)
        assert run.service.view.reservations[waiting].state == "ready"
        assert run.service.view.nodes["node-1"].status is NodeStatus.UP


async def test_nodes_are_drained_undrained_and_lost(run: Running) -> None:
    one = await reserve(run, "alice", name="train")
    address = "operator/nodes/node-1"
    async with run.client("operators") as olga:
        for action, words in (
            ("drain", "1 server on node-1 keeps running until its reservation ends: train (alice)."),
            ("undrain", "node-1 gets new servers again as soon as it is up."),
            ("lost", "1 server on node-1 ends now, with the outcome “node lost”: train (alice)."),
        ):
            page = await olga.get(address)
            assert words in text_of(page)
            form = {"action": action, "confirmed": hidden(page, "confirmed")}
            assert (await olga.post(address, data=form)).status_code == 303
            assert run.service.view.nodes["node-1"].drained is (action != "undrain")
        assert (await olga.post(address, data={"action": "reboot", "confirmed": ""})).status_code == 409
        assert (await olga.get("operator/nodes/node-9")).status_code == 404
        assert (await olga.get("operator/reservations/none")).status_code == 404
    assert (await run.until(one, lambda record: not record.live)).outcome == "node_lost"


async def test_why_a_node_is_drained_and_when_it_ends_is_shown(run: Running) -> None:
    reason = "AcceleratedHardwareReady is False: NvidiaXID79Error"
    ill, ends = run.cluster.node_list
    ill = replace(
        ill, status=NodeStatus.DRAINED, reason=reason, unhealthy=("AcceleratedHardwareReady", "KernelReady")
    )
    # 1 Jan 2090, 12:00 UTC.
    ends = replace(ends, block=CapacityBlock("cr-1", 3_786_955_200_000))
    run.cluster.node_list = [ill, ends]
    await run.service.reconcile()
    await reserve(run, "alice", gpus=8)
    waits = await reserve(run, "bob", gpus=8)
    async with run.client("operators") as olga, run.client("bobs") as bob:
        assert f"Drained {reason}" in text_of(await olga.get("operator"))
        assert f"Nothing new starts here: {reason}." in text_of(await olga.get("operator/nodes/node-1"))
        assert "available until" in text_of(await olga.get("operator/nodes/node-2"))
        found = (await bob.get("api/v1/timeline")).json()["pools"][0]["nodes"]
        assert [(n["status"], n["reason"], n["until"]) for n in found] == [
            ("drained", reason, None),
            ("up", None, "2090-01-01T11:20:00Z"),
        ]
        why = (await bob.get(f"api/v1/reservations/{waits}")).json()["reason"]
        assert f"node-1 is drained ({reason})" in why
        text = (await olga.get("metrics")).text
    assert text.count("\ngpudev_node_unhealthy{") == 2
    for condition in ("AcceleratedHardwareReady", "KernelReady"):
        labels = {"pool": "simulated", "node": "node-1", "condition": condition}
        assert value(text, "gpudev_node_unhealthy", **labels) == 1
    assert value(text, "gpudev_capacity_block_end_timestamp_seconds", reservation="cr-1") == 3786955200


async def test_the_reservations_own_page_has_no_forms_for_operators(run: Running) -> None:
    """They would end it without a reason."""
    one = await reserve(run, "alice")
    async with run.client("operators") as olga:
        page = (await olga.get(f"reservations/{one}")).text
        assert f'href="/services/gpudev/operator/reservations/{one}"' in page
        assert "<form" not in page
        for action in ("release", "extend", "resume"):
            answer = await olga.post(f"reservations/{one}/{action}", data={"hours": "1"})
            assert answer.status_code == 403
            assert "on the operator page" in text_of(answer)
    assert run.service.view.reservations[one].state == "ready"


def test_people_with_limits_of_their_own_are_listed_without_a_reservation() -> None:
    own = LimitRule("person:local:zoe", None, "", 0, running_gpus=1)
    policy = POLICY.__class__(pools=POLICY.pools, personal={"local:zoe": own})
    assert [person.login for person in people(policy, [])] == ["zoe"]


def test_effects_count_servers_and_requests() -> None:
    uses = tuple(Use(f"r{n}", f"job-{n}", owner) for n, owner in enumerate(("alice", "bob", "carol")))
    node = Node("node-1", "h100", 8, "here")
    assert NodeUse(node, 0, (), ()).effects("lost") == [
        "No server on node-1 is affected.",
        "Nothing new starts on node-1 until you undrain it.",
    ]
    names = "job-0 (alice), job-1 (bob) and job-2 (carol)"
    several = NodeUse(node, 8, uses, uses[:2])
    assert several.effects("drain") == [
        f"3 servers on node-1 keep running until their reservations end: {names}.",
        "Nothing new starts on node-1 until you undrain it.",
        "2 waiting requests planned there may start later than guaranteed: job-0 (alice) and job-1 (bob).",
    ]
    assert several.effects("lost")[0].startswith(
        "3 servers on node-1 end now, with the outcome “node lost”: "
    )
