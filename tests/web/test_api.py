"""What the API answers: every route to its success, and every error in the one form."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from gpudev import wire
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.service.service import Health
from metric_samples import value
from web_site import PREFIX, TOKENS, Running

API = wire.API
FINGERPRINT = "SHA256:" + "A" * 43


async def reserve(client: httpx.AsyncClient, **fields: Any) -> wire.Reservation:
    answer = await client.post(f"{API}/reservations", json={"gpus": 2, "hours": 1, **fields})
    assert answer.status_code == 201, answer.text
    return msgspec.json.decode(answer.content, type=wire.Reservation)


def error(answer: httpx.Response, status: int, code: str) -> wire.Error:
    """The error that an answer must be."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    found = msgspec.json.decode(answer.content, type=wire.ErrorBody).error
    assert found.code == code
    assert found.message
    return found


async def test_a_reservation_from_request_to_end(run: Running) -> None:
    async with run.client("alices") as alice:
        made = await reserve(alice, name="demo")
        assert (made.owner, made.gpus, made.nodes, made.total_gpus, made.hours) == ("alice", 2, 1, 2, 1.0)
        assert made.mine
        assert made.simulated
        shown = await alice.get(f"{API}/reservations/demo")
        assert shown.json()["id"] == made.id
        listed = await alice.get(f"{API}/reservations")
        assert [r["id"] for r in listed.json()["reservations"]] == [made.id]
        await run.make_ready(made.id)
        ready = (await alice.get(f"{API}/reservations/{made.id}")).json()
        assert ready["state"] == "ready"
        assert ready["url"] == f"http://127.0.0.1:8000/user/alice/{made.id}/lab"
        assert ready["ssh_command"] == "ssh gpu-demo"
        assert ready["ssh_commands"] == ["ssh gpu-demo"]
        assert ready["vscode_url"] == "vscode://vscode-remote/ssh-remote+gpu-demo/home/alice"
        assert [len(part["slots"]) for part in ready["allocation"]] == [2]
        assert ready["starts_at"].endswith("Z")
        longer = await alice.post(f"{API}/reservations/demo/extend", json={"hours": 0.5})
        assert longer.status_code == 200, longer.text
        assert longer.json()["ends_at"] > ready["ends_at"]
        ended = await alice.delete(f"{API}/reservations/demo")
        assert ended.status_code == 200, ended.text
        assert ended.json()["state"] in ("stopping", "ended")
        await run.gone(made.id)
        past = await alice.get(f"{API}/reservations", params={"ended": 1})
        assert [(r["id"], r["outcome"]) for r in past.json()["reservations"]] == [(made.id, "released")]
        story = (await alice.get(f"{API}/reservations/{made.id}/history")).json()["items"]
        assert story[0]["cause"] == "requested"
        assert story[0]["actor"] == "local:alice"
        assert story[-1]["state"] == "ended"
        assert (await alice.get(f"{API}/reservations/{made.id}")).json()["reason"] is None, "outcome says it"


async def test_created_answers_name_the_new_address(run: Running) -> None:
    async with run.client("alices") as alice:
        answer = await alice.post(f"{API}/reservations", json={"gpus": 1})
        assert answer.headers["Location"] == f"{PREFIX}{API}/reservations/{answer.json()['id']}"


async def test_a_repeated_request_id_makes_no_second_reservation(run: Running) -> None:
    async with run.client("alices") as alice:
        first = await reserve(alice, request_id="once-and-only")
        again = await reserve(alice, request_id="once-and-only")
        assert again.id == first.id
        assert len((await alice.get(f"{API}/reservations")).json()["reservations"]) == 1


async def test_a_repeated_extension_is_granted_once(run: Running) -> None:
    async with run.client("alices") as alice:
        made = await reserve(alice)
        await run.make_ready(made.id)
        body = {"hours": 1, "request_id": "once-and-only"}
        for _ in range(2):
            answer = await alice.post(f"{API}/reservations/{made.id}/extend", json=body)
            assert (answer.status_code, answer.json()["hours"]) == (200, 2)
        other = await alice.post(f"{API}/reservations/{made.id}/extend", json={**body, "hours": 2})
        error(other, 409, "request_id_reused")
        newline = {**body, "request_id": "once-and-only\n"}
        error(await alice.post(f"{API}/reservations/{made.id}/extend", json=newline), 400, "invalid_request")
        await alice.delete(f"{API}/reservations/{made.id}")
        await run.gone(made.id)
        late = await alice.post(f"{API}/reservations/{made.id}/extend", json=body)
        assert (late.status_code, late.json()["state"]) == (200, "ended"), "it was granted, and is over"


async def test_every_plain_read_is_answered(run: Running) -> None:
    async with run.client("alices") as alice:
        made = await reserve(alice)
        for path, kind in {
            "me": wire.Me,
            "timeline": wire.Timeline,
            "availability": wire.Availability,
            "availability?hours=2.5": wire.Availability,
            "ssh": wire.SshAccess,
            f"reservations/{made.id}/logs?lines=5": wire.Logs,
            f"reservations/{made.id}/history?limit=1": wire.History,
            "reservations?owner=all": wire.ReservationList,
        }.items():
            answer = await alice.get(f"{API}/{path}")
            assert answer.status_code == 200, (path, answer.text)
            msgspec.json.decode(answer.content, type=kind)


async def test_pages_of_history_and_of_past_reservations(run: Running) -> None:
    async with run.client("alices") as alice:
        ids = []
        for _ in range(3):
            made = await reserve(alice)
            await alice.delete(f"{API}/reservations/{made.id}")
            await run.gone(made.id)
            ids.append(made.id)
        for path, key, expected in (
            (f"{API}/reservations?ended=true", "reservations", ids[::-1]),
            (f"{API}/reservations/{ids[0]}/history?", "items", None),
        ):
            found: list[Any] = []
            cursor: str | None = None
            while True:
                more = f"&cursor={cursor}" if cursor else ""
                page = (await alice.get(f"{path}&limit=1{more}")).json()
                assert len(page[key]) <= 1
                found += page[key]
                cursor = page["next"]
                if cursor is None:
                    break
            if expected is not None:
                assert [r["id"] for r in found] == expected
            else:
                assert len(found) >= 2


async def test_a_long_poll_answers_at_the_change(run: Running) -> None:
    async with run.client("alices") as alice:
        made = await reserve(alice)
        path = f"{API}/reservations/{made.id}"
        poll = asyncio.create_task(alice.get(path, params={"wait": 20, "version": made.version}))
        await asyncio.sleep(0)
        await run.make_ready(made.id)
        changed = (await poll).json()
        assert changed["version"] > made.version
        at_once = await alice.get(path, params={"wait": 20, "version": made.version})
        assert at_once.elapsed.total_seconds() < 10
        quiet = await alice.get(path, params={"wait": 0.05, "version": at_once.json()["version"]})
        assert quiet.json()["version"] == at_once.json()["version"]


@pytest.mark.parametrize(
    ("body", "gpus"),
    [({}, 1), ({"nodes": 1}, 8), ({"gpus": 2}, 2)],
)
async def test_nodes_without_gpus_means_whole_nodes(run: Running, body: dict[str, int], gpus: int) -> None:
    async with run.client("alices") as alice:
        answer = await alice.post(f"{API}/reservations", json=body)
        assert (answer.status_code, answer.json()["gpus"], answer.json()["nodes"]) == (201, gpus, 1)


async def test_operators_drain_nodes(run: Running) -> None:
    async with run.client("operators") as olga:
        node = min(run.service.view.nodes)
        for action in ("drain", "undrain"):
            answer = await olga.post(f"{API}/nodes/{node}", json={"action": action})
            assert answer.status_code == 204, answer.text
            assert answer.content == b""
        error(await olga.post(f"{API}/nodes/nope", json={"action": "drain"}), 404, "not_found")
    async with run.client("alices") as alice:
        refused = error(await alice.post(f"{API}/nodes/{node}", json={"action": "drain"}), 403, "forbidden")
        assert "this token of alice is not an operator token" in refused.message
        assert "permission Operator (scope custom:gpudev:operate)" in refused.hint


async def test_a_node_that_was_lost_is_up_as_soon_as_it_is_put_back(run: Running) -> None:
    node = min(run.service.view.nodes)
    async with run.client("operators") as olga:
        for action, status in (("lost", "down"), ("undrain", "up")):
            await olga.post(f"{API}/nodes/{node}", json={"action": action})
            deadline = time.monotonic() + 10
            while run.service.view.nodes[node].status != status:
                assert time.monotonic() < deadline, f"{node} is {run.service.view.nodes[node].status}"
                await asyncio.sleep(0.01)


async def test_what_a_server_may_ask(run: Running) -> None:
    async with run.client("alices") as alice:
        made = await reserve(alice)
    await run.make_ready(made.id)
    attempt = run.service.view.reservations[made.id].attempt
    run.hub.failure = "500"  # none of this needs the Hub
    async with run.client(TOKENS.make(made.id, attempt)) as server:
        body = {"attempt": attempt, "rank": 0, "jupyter": True, "sshd": True}
        assert (await server.post(f"{API}/servers/{made.id}/report", json=body)).status_code == 204
        error(
            await server.post(f"{API}/servers/{made.id}/report", json={**body, "attempt": attempt + 1}),
            403,
            "forbidden",
        )
        error(
            await server.post(f"{API}/servers/{made.id}/report", json={**body, "rank": 1}),
            400,
            "invalid_request",
        )
        found = await server.get(f"{API}/servers/{made.id}/notices", params={"after": 0, "wait": 0.01})
        assert found.json()["ends_at"].endswith("Z")
        keys = await server.get(f"{API}/servers/{made.id}/keys", params={"fingerprint": FINGERPRINT})
        assert keys.status_code == 200
        assert keys.headers["Content-Type"].startswith("text/plain")
        assert keys.text == "ssh-ed25519 AAAA alice\n"
        other = FINGERPRINT.replace("AAA", "BBB")
        assert (await server.get(f"{API}/servers/{made.id}/keys", params={"fingerprint": other})).text == ""
        wrong = await server.get(f"{API}/servers/{made.id}/keys", params={"fingerprint": FINGERPRINT + "\n"})
        error(wrong, 400, "invalid_request")
        mine = f"{API}/servers/{made.id}"
        shown = msgspec.json.decode((await server.get(mine)).content, type=wire.ServerStatus)
        assert (shown.reservation.id, shown.reservation.mine, shown.outcome) == (made.id, True, None)
        assert shown.seconds_left is not None
        assert 3500 < shown.seconds_left <= 3600
        late = await server.get(mine, params={"wait": 1, "version": shown.reservation.version - 1})
        assert late.json()["reservation"]["version"] == shown.reservation.version
        longer = await server.post(f"{mine}/extend", json={"hours": 0.5})
        assert longer.json()["reservation"]["hours"] == 1.5
        refused = await server.post(f"{mine}/extend", json={"hours": 100})
        assert error(refused, 409, "extension_refused").longest_hours == 46.5
        ended = (await server.delete(mine)).json()
        assert (ended["reservation"]["state"], ended["outcome"]) == ("stopping", "released")


async def test_the_gate_answers_the_hub(run: Running) -> None:
    async with run.gate() as gate:
        minted = await gate.post("gate/mint", json={"subject": "local:alice"})
        assert minted.status_code == 200, minted.text
        asked = {
            "subject": "local:alice",
            "hub_user": "alice",
            "login": "alice",
            "server": minted.json()["id"],
            "form": True,
            "options": {"gpus": 1, "hours": 1},
        }
        admission = await gate.post("gate/admit", json=asked)
        assert admission.status_code == 200, admission.text
        assert admission.json()["verdict"] in ("start", "queued")
        stop = await gate.post(
            "gate/stop", json={"subject": "local:alice", "server": minted.json()["id"], "user": False}
        )
        assert stop.json() == {"stop": False}
        started = await gate.post("gate/started", json={"server": minted.json()["id"], "attempt": 1})
        assert started.status_code == 204
        body = {"server": minted.json()["id"], "attempt": 1, "reason": "no such image"}
        failed = await gate.post("gate/failed", json=body)
        assert failed.status_code == 204


async def test_health_and_metrics(run: Running) -> None:
    async with run.client() as anybody, run.client("alices") as alice:
        assert (await anybody.get("health/live")).json() == {"ok": True}
        assert (await anybody.get("health/ready")).json() == {"ok": True, "warnings": []}
        error(await anybody.get("metrics"), 401, "unauthenticated")
        await reserve(alice)
        text = (await alice.get("metrics")).text
        asked = {"route": "reserve", "method": "POST", "status": "201"}
        assert value(text, "gpudev_http_requests_total", **asked) == 1
        assert value(text, "gpudev_http_request_seconds_bucket", route="reserve", le="+Inf") == 1
        assert "gpudev_reservations{" in text
        for line in text.splitlines():
            assert line.startswith("# ") or float(line.rsplit(" ", 1)[1]) >= 0


@pytest.mark.parametrize(("live", "expected"), [(True, 200), (False, 503)])
async def test_health_says_what_is_away(
    run: Running, monkeypatch: pytest.MonkeyPatch, live: bool, expected: int
) -> None:
    monkeypatch.setattr(run.service, "health", lambda: Health(live, ["the database: disk full"]))
    async with run.client() as anybody:
        assert "disk full" in error(await anybody.get("health/ready"), 503, "unavailable").message
        assert (await anybody.get("health/live")).status_code == expected


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"{API}/nothing", 404, "not_found"),
        ("GET", "../../../etc/passwd", 404, "not_found"),
        ("PUT", f"{API}/me", 405, "method_not_allowed"),
        ("OPTIONS", f"{API}/reservations", 405, "method_not_allowed"),
        ("GET", f"{API}/reservations/%ff", 400, "invalid_request"),
        ("GET", f"{API}/reservations/nobody", 404, "not_found"),
        ("GET", f"{API}/reservations/{'x' * 4000}", 404, "not_found"),
        ("GET", f"{API}/reservations?owner=eve", 400, "invalid_request"),
        ("GET", f"{API}/reservations?limit=0", 400, "invalid_request"),
        ("GET", f"{API}/reservations?limit=1&limit=2", 400, "invalid_request"),
        ("GET", f"{API}/reservations?ended=1&cursor=-1", 400, "invalid_request"),
        ("GET", f"{API}/reservations?cursor=1", 400, "invalid_request"),
        ("GET", f"{API}/reservations?colour=red", 400, "invalid_request"),
        ("GET", f"{API}/reservations/x?wait=61", 400, "invalid_request"),
        ("GET", f"{API}/reservations/x?wait=nan", 400, "invalid_request"),
        ("GET", f"{API}/reservations/x?version=null", 400, "invalid_request"),
        ("GET", f"{API}/availability?hours=inf", 400, "invalid_request"),
        ("GET", f"{API}/availability?hours=1e300", 400, "invalid_hours"),
        ("GET", f"{API}/availability?hours=-1", 400, "invalid_hours"),
    ],
)
async def test_bad_addresses_and_queries(
    run: Running, method: str, path: str, status: int, code: str
) -> None:
    async with run.client("alices") as alice:
        error(await alice.request(method, path), status, code)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_request"),
        (b"{", 400, "invalid_request"),
        (b"\xff\xfe", 400, "invalid_request"),
        (b"[" * 15_000, 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (b"{}" + b" " * 20_000, 413, "too_large"),
        (b"{}" + b" " * 5_000_000, 413, "too_large"),
        (b'{"gpus": 2, "owner": "bob"}', 400, "invalid_request"),
        (b'{"gpus": "2"}', 400, "invalid_request"),
        (b'{"gpus": 0}', 400, "invalid_shape"),
        (b'{"gpus": 3}', 400, "invalid_shape"),
        (b'{"gpus": 9}', 400, "invalid_shape"),
        (b'{"gpus": 16}', 400, "invalid_shape"),
        (b'{"gpus": 8, "nodes": 3}', 400, "invalid_shape"),
        (b'{"gpus": 1e400}', 400, "invalid_request"),
        (b'{"hours": NaN}', 400, "invalid_request"),
        (b'{"hours": 1e308}', 400, "invalid_hours"),
        (b'{"hours": -1}', 400, "invalid_hours"),
        (b'{"hours": 0}', 400, "invalid_hours"),
        (b'{"name": "../etc"}', 400, "invalid_name"),
        (b'{"name": "a;b"}', 400, "invalid_name"),
        (b'{"name": "\\u0000"}', 400, "invalid_name"),
        (b'{"name": "' + b"x" * 300 + b'"}', 400, "invalid_name"),
        (b'{"name": "' + b"x" * 600 + b'"}', 400, "invalid_request"),
        (b'{"image": "evil:latest"}', 400, "invalid_image"),
        (b'{"gpu_type": "abacus"}', 400, "unknown_gpu_type"),
        (b'{"request_id": "short"}', 400, "invalid_request"),
    ],
)
async def test_bad_bodies(run: Running, body: bytes, status: int, code: str) -> None:
    async with run.client("alices") as alice:
        answer = await alice.post(
            f"{API}/reservations", content=body, headers={"Content-Type": "application/json"}
        )
        error(answer, status, code)
        assert not run.service.view.reservations


@pytest.mark.parametrize("size", [16 * 1024 + 1, 300 * 1024, 5_000_000])
async def test_a_chunked_body_has_the_same_limit(run: Running, size: int) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, size, 10_000):
            yield b" " * min(10_000, size - start)

    async with run.client("alices") as alice:
        for kind in ("application/json", "multipart/form-data; boundary=x"):
            headers = {"Content-Type": kind}
            answer = await alice.post(f"{API}/reservations", content=chunks(), headers=headers)
            found = error(answer, 413, "too_large")
            assert f"The body has {size} bytes; the limit is 16384." in found.message
        assert not run.service.view.reservations


@pytest.mark.parametrize("length", ["60000000,60000000", "60000000, 60000000", "+60000000"])
async def test_a_body_whose_size_is_stated_oddly_is_not_waited_for(run: Running, length: str) -> None:
    """Tornado makes a number of some of these; nobody has said who he is yet."""
    async with run.client() as anybody:
        host, port = anybody.base_url.host, anybody.base_url.port
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"POST {PREFIX}{API}/reservations HTTP/1.1\r\nHost: x\r\n".encode())
    writer.write(f"Content-Length: {length}\r\n\r\n".encode())
    async with asyncio.timeout(5):
        said = await reader.read()
    assert said.startswith(b"HTTP/1.1 400") or said == b""
    writer.close()


async def test_methods_that_there_are_none_of_are_counted_as_one(run: Running) -> None:
    async with run.client() as anybody, run.client("alices") as alice:
        for n in range(20):
            await anybody.request(f"X{n}", "health/live")
        text = (await alice.get("metrics")).text
    assert 'method="other"' in text
    assert 'method="X' not in text


async def test_a_cancelled_name_is_free_and_leads_to_the_new_reservation(run: Running) -> None:
    async with run.client("alices") as alice:
        first = await reserve(alice, name="demo")
        await run.make_ready(first.id)
        run.cluster.lasting = True
        stopped = await alice.delete(f"{API}/reservations/demo")
        assert stopped.json()["state"] == "stopping"
        assert (await alice.get(f"{API}/reservations/demo")).json()["id"] == first.id
        second = await reserve(alice, name="demo")
        assert (await alice.get(f"{API}/reservations/demo")).json()["id"] == second.id
        past = (await alice.get(f"{API}/reservations", params={"ended": 1})).json()["reservations"]
        assert [(r["id"], r["state"]) for r in past] == [(first.id, "stopping")]
        assert (await alice.delete(f"{API}/reservations/demo")).json()["id"] == second.id


async def test_a_reservation_without_a_name_gets_two_words(run: Running) -> None:
    async with run.client("alices") as alice:
        made = await alice.post(f"{API}/reservations", json={"gpus": 1, "request_id": "the-first-one"})
        name = made.json()["name"]
        assert re.fullmatch("[a-z]+-[a-z]+", name)
        again = await alice.post(f"{API}/reservations", json={"gpus": 1, "request_id": "the-first-one"})
        assert again.json()["id"] == made.json()["id"]
        assert (await alice.get(f"{API}/reservations/{name}")).json()["id"] == made.json()["id"]
        assert (await alice.delete(f"{API}/reservations/{name}")).status_code == 200


async def test_names_in_use_are_refused(run: Running) -> None:
    async with run.client("alices") as alice, run.client("bobs") as bob:
        await reserve(alice, name="demo")
        error(await alice.post(f"{API}/reservations", json={"gpus": 1, "name": "demo"}), 409, "name_taken")
        await reserve(bob, name="demo")


async def test_writes_must_be_json(run: Running) -> None:
    async with run.client("alices") as alice:
        made = await reserve(alice)
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            answer = await alice.post(
                f"{API}/reservations", content=b'{"gpus": 1}', headers={"Content-Type": kind}
            )
            error(answer, 415, "unsupported_media_type")
        answer = await alice.post(f"{API}/reservations/{made.id}/resume", content=b"gpus=1")
        error(answer, 400, "invalid_request")
        assert len(run.service.view.reservations) == 1


async def test_reading_changes_nothing(run: Running) -> None:
    """A link can't make a reservation, or end one."""
    async with run.client("alices") as alice:
        made = await reserve(alice)
        before = dict(run.service.view.reservations)
        for path in (
            f"{API}/reservations?gpus=1&hours=1",
            f"{API}/reservations/{made.id}/extend?hours=1",
            f"{API}/reservations/{made.id}/resume",
            f"{API}/nodes/node-1?action=drain",
        ):
            assert (await alice.get(path)).status_code in (400, 405)
        assert run.service.view.reservations == before


async def test_every_answer_has_the_security_headers(run: Running) -> None:
    async with run.client("alices") as alice, run.gate() as gate:
        for client, path in (
            (alice, f"{API}/me"),
            (alice, "nothing"),
            (alice, f"{API}/reservations?bad=1"),
            (gate, "gate/nothing"),
        ):
            headers = (await client.get(path)).headers
            assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["Cache-Control"] == "no-store"
            assert headers["X-Request-Id"]


async def test_request_ids_are_taken_over_when_harmless(run: Running) -> None:
    async with run.client("alices") as alice:
        kept = await alice.get(f"{API}/me", headers={"X-Request-Id": "from-the-client_1"})
        assert kept.headers["X-Request-Id"] == "from-the-client_1"
        for bad in ("x" * 65, "a b", '"}{'):
            other = await alice.get(f"{API}/me", headers={"X-Request-Id": bad})
            assert other.headers["X-Request-Id"] != bad


async def test_a_defect_is_answered_without_its_details(
    run: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(run.service, "submit", broken)
    async with run.client("alices") as alice:
        answer = await alice.post(f"{API}/reservations", json={"gpus": 1})
    found = error(answer, 500, "internal_error")
    assert "hunter2" not in answer.text
    assert answer.headers["X-Request-Id"] in found.message
    assert "hunter2" in caplog.text


async def test_what_the_service_could_not_decide_has_the_request_id_to_quote(
    run: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def undecided(*_: object, **__: object) -> None:
        raise Refused(Code.INTERNAL_ERROR, "Internal error; your request changed nothing.")

    monkeypatch.setattr(run.service, "submit", undecided)
    async with run.client("alices") as alice:
        answer = await alice.post(
            f"{API}/reservations", json={"gpus": 1}, headers={"X-Request-Id": "r-123-of-alice"}
        )
    found = error(answer, 500, "internal_error")
    assert found.message == "Internal error; your request changed nothing."
    assert found.hint == "Contact an operator and quote request id r-123-of-alice."


async def test_a_store_that_does_not_answer_is_unavailable(
    run: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpudev_hub.core.ports import OutcomeUnknown

    async def away(*_: object, **__: object) -> None:
        raise OutcomeUnknown("disk full")

    monkeypatch.setattr(run.service, "submit", away)
    async with run.client("alices") as alice:
        answer = await alice.post(f"{API}/reservations", json={"gpus": 1})
    error(answer, 503, "unavailable")


def test_the_log_line_is_json() -> None:
    import logging

    from gpudev_hub.web.logs import JsonFormatter

    record = logging.LogRecord("gpudev", logging.INFO, "f", 1, "hello %s", ("you",), None)
    record.fields = {"reservation": "abc", "request_id": "r1"}
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "hello you"
    short = logging.LogRecord("gpudev", logging.INFO, "f", 1, "hello", (), None)
    short.reservation = "def"
    assert json.loads(JsonFormatter().format(short))["reservation"] == "def"
    assert (line["reservation"], line["request_id"], line["level"]) == ("abc", "r1", "info")
    long = logging.LogRecord("gpudev", logging.INFO, "f", 1, "x" * 10_000, (), None)
    message = json.loads(JsonFormatter().format(long))["message"]
    assert len(message) < 5000
    assert message.endswith("(10000 characters)")
