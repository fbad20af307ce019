"""Answers of the gate as the Hub's handlers see them; a service that is silent, slow or talks nonsense."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

import pytest

from gpudev_hub.core.gate import Admission, AdmitRequest, NameAsked, Verdict
from gpudev_hub.hub.gate import ADMIT_TIMEOUT, GateClient, Refusal, refusal

PAGE = "/services/gpudev/reservations/gx1"
ASK = AdmitRequest("local:alice", "alice", "alice", "gx1", form=True)


@pytest.mark.parametrize(
    ("verdict", "form", "rest"),
    [
        (Verdict.QUEUED, 303, 409),
        (Verdict.REDIRECT, 303, 403),
        (Verdict.CONFLICT, 409, 409),
        (Verdict.INVALID, 400, 400),
        (Verdict.RETRY, 303, 429),
    ],
)
def test_every_answer_has_a_status_for_people_and_one_for_programs(
    verdict: Verdict, form: int, rest: int
) -> None:
    answer = Admission(verdict, "it says <so>", "do <this>", location="/there?a=<b>")
    for asked_by_form, status in ((True, form), (False, rest)):
        error = refusal(answer, form=asked_by_form, page=PAGE)
        assert error.status_code == status
        assert error.status_code < 500, "nothing of ours counts as a failure of the Hub"
        assert error.headers.get("Location") == ("/there?a=<b>" if status == 303 else None)
        assert ("Retry-After" in error.headers) == (status == 429)
        assert "it says <so>" in error.jupyterhub_message
        assert "<so>" not in error.jupyterhub_html_message
        assert "<b>" not in error.jupyterhub_html_message
    assert refusal(answer, form=True, page=PAGE).reason == verdict.value


def test_without_a_place_to_go_the_reservations_page_it_is() -> None:
    assert refusal(Admission(Verdict.QUEUED), form=True, page=PAGE).headers["Location"] == PAGE


def test_the_services_locations_are_below_the_base() -> None:
    answer = Admission(Verdict.QUEUED, location="services/gpudev/reservations/abc")
    assert refusal(answer, form=True, page=PAGE).headers["Location"] == "/services/gpudev/reservations/abc"
    below = refusal(answer, form=True, page=PAGE, base="/gpus/")
    assert below.headers["Location"] == "/gpus/services/gpudev/reservations/abc"


@pytest.fixture
async def silent() -> AsyncIterator[str]:
    """A listener that takes requests and never answers."""
    hold = asyncio.Event()

    async def taken(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hold.wait()
        writer.close()

    server = await asyncio.start_server(taken, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    hold.set()
    server.close()


async def test_a_silent_service_is_answered_for_before_the_hub_gives_up(silent: str) -> None:
    gate = GateClient(silent, "secret")
    began = time.monotonic()
    with pytest.raises(Refusal) as caught:
        await gate.admit(ASK, page=PAGE)
    assert time.monotonic() - began < ADMIT_TIMEOUT + 0.5
    assert (caught.value.status_code, caught.value.headers["Location"]) == (303, PAGE)


async def test_no_service_at_all_leaves_servers_alone() -> None:
    gate = GateClient("http://127.0.0.1:9", "secret")
    assert await gate.may_stop("local:alice", "gx1", user=True) is False
    await gate.started("gx1", 1)
    with pytest.raises(Refusal) as caught:
        await gate.admit(AdmitRequest("local:a", "a", "a", "gx1", form=False), page=PAGE)
    assert caught.value.status_code == 429


@asynccontextmanager
async def answering(said: bytes) -> AsyncIterator[GateClient]:
    """A gate that says the same to everything."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield GateClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "secret")


@pytest.mark.parametrize(("status", "shown"), [(b"413 Payload Too Large", 400), (b"500 Oops", 303)])
async def test_what_the_service_does_not_take_is_said(status: bytes, shown: int) -> None:
    async with answering(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n") as gate:
        with pytest.raises(Refusal, match=status.decode()[:3]) as caught:
            await gate.admit(ASK, page=PAGE)
        assert caught.value.status_code == shown


async def test_nonsense_opens_nothing() -> None:
    async with answering(b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"verdict": "start" }') as gate:
        assert await gate.may_stop("local:alice", "gx1", user=True) is False
        with pytest.raises(Refusal):
            await gate.admit(ASK, page=PAGE)


NAME = NameAsked("local:alice", "gx1")


@pytest.mark.parametrize(
    ("said", "form", "program"),
    [
        (b'200 OK|{"verdict":"start"}', None, None),
        (b'200 OK|{"verdict":"redirect","message":"no"}', None, 403),
        (b'200 OK|{"verdict":"conflict","message":"no"}', None, 409),
        (b'429 Too Many|{"error":{"code":"rate_limited","message":"too many"}}', 429, 429),
        (b"500 Oops|", None, 429),
    ],
)
async def test_a_name_is_refused_before_the_hub_keeps_it(
    said: bytes, form: int | None, program: int | None
) -> None:
    """Spawn pages lead on from what is no use; too many are refused there, too."""
    status, _, body = said.partition(b"|")
    length = f"Content-Length: {len(body)}\r\nRetry-After: 7\r\n\r\n".encode()
    async with answering(b"HTTP/1.1 " + status + b"\r\n" + length + body) as gate:
        for by_form, expected in ((True, form), (False, program)):
            with pytest.raises(Refusal) if expected else nullcontext() as caught:
                await gate.check_name(NAME, form=by_form)
            if caught is not None:
                assert caught.value.status_code == expected
                assert (caught.value.headers.get("Retry-After") == "7") == (b"429" in status)
