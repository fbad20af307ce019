"""Lost and broken answers: nothing is made twice, nothing is given up too early, errors have types."""

from __future__ import annotations

import json
import socket
import time
from fractions import Fraction

import httpx
import pytest

import gpudev
from fault_proxy import Fault
from gpudev import waiting
from gpudev.api import Api
from gpudev.cli.app import main
from gpudev.errors import from_answer
from gpudev_hub.core.errors import STATUS, Code
from live_service import LiveService


@pytest.mark.parametrize(
    "kind", ["drop", "truncate", "garbage", "502", "503", "404"], ids=lambda kind: f"first answer {kind}"
)
def test_a_lost_answer_never_makes_two_reservations(
    service: LiveService, client: gpudev.Client, kind: str
) -> None:
    service.faults.append(Fault(kind, times=2))
    box = client.reserve(2, wait=False)
    assert list(service.reservations) == [box.id]
    assert service.count("POST", "reservations") == 3


def test_two_requests_are_two_reservations(service: LiveService, client: gpudev.Client) -> None:
    service.faults.append(Fault("drop"))
    first, second = client.reserve(1, wait=False), client.reserve(1, wait=False)
    assert sorted(service.reservations) == sorted((first.id, second.id))


def test_it_gives_up_when_patience_is_over_and_says_what_to_do(service: LiveService) -> None:
    service.stop()
    try:
        api = Api(service.url, service.token, patience=0.5)
        began = time.monotonic()
        with pytest.raises(gpudev.NetworkError, match="cannot be reached") as caught:
            api.me()
        assert time.monotonic() - began < 3
        assert "gpu-dev login --url URL" in str(caught.value)
        assert caught.value.exit_code == 6
    finally:
        service.start()


def test_only_a_request_that_changes_something_may_have_taken_effect() -> None:
    def late(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("late", request=request)

    api = Api("http://hub.test", "t", patience=0, transport=httpx.MockTransport(late))
    with pytest.raises(gpudev.NetworkError, match="did not answer in time") as read:
        api.me()
    with pytest.raises(gpudev.NetworkError, match="did not answer in time") as changed:
        api.release("k1")
    assert read.value.hint.startswith("Try again in a minute.")
    assert changed.value.hint.startswith("The request may have taken effect.")


def test_an_extension_is_not_granted_twice_when_its_answer_is_lost(
    service: LiveService, client: gpudev.Client
) -> None:
    box = client.reserve(2, hours=1, wait=False)
    service.faults.append(Fault("drop", path="extend", times=2))
    box.extend(0.5)
    assert box.hours == service.only.hours == 1.5
    assert service.count("POST", "extend") == 3
    box.extend(0.5)
    assert box.hours == service.only.hours == 2, "another one is another one"


def test_an_extension_that_did_not_arrive_is_asked_for_again(
    service: LiveService, client: gpudev.Client
) -> None:
    box = client.reserve(2, hours=1, wait=False)
    service.faults.append(Fault("503", path="extend"))
    box.extend(0.5)
    assert box.hours == service.only.hours == 1.5
    assert service.count("POST", "extend") == 2


def test_a_release_whose_answer_is_lost_is_a_release(service: LiveService, client: gpudev.Client) -> None:
    box = client.reserve(2, progress=False)
    service.run.cluster.kept.add(box.id)
    service.faults.append(Fault("drop", method="DELETE"))
    assert box.release().state == "stopping"
    service.let_go(box.id)
    assert service.ended(box.id).outcome == "released"
    assert box.refresh().state == "ended"
    box.release()
    assert service.count("DELETE", box.id) == 2


def test_a_service_that_is_away_is_told_of(
    configured: LiveService, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two seconds, and again."""
    assert (waiting.FIRST, waiting.AGAIN) == (2.0, 5.0)
    assert main(["list"]) == 0
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(waiting, "FIRST", 0.1)
    monkeypatch.setattr(waiting, "AGAIN", 0.2)
    monkeypatch.setitem(gpudev.Client.__init__.__kwdefaults__ or {}, "patience", 1.5)
    configured.stop()
    try:
        assert main(["list", "--json"]) == 6
    finally:
        configured.start()
    out, err = capfd.readouterr()
    told = [line for line in err.splitlines() if "Still trying after" in line]
    assert len(told) >= 2
    assert all(line.startswith(f"{configured.url} cannot be reached: ") for line in told[1:])
    assert json.loads(out)["error"]["code"] == "network", "standard output has the document alone"


def test_a_service_that_hangs_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single request may take 15 s: who waits for it is not left in silence."""
    monkeypatch.setattr(waiting, "FIRST", 0.01)
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"

        def tell(line: str) -> None:
            told.append(line)
            listening.accept()[0].close()

        with gpudev.Client(url, "token", patience=0, tell=tell) as client, pytest.raises(gpudev.NetworkError):
            client.availability()
    assert told == [f"{url} has not answered yet. Still trying after 0 s. Press Ctrl-C to stop."]


@pytest.mark.parametrize("hours", [float("nan"), float("inf"), float("-inf"), "two"])
def test_hours_that_are_no_number_are_refused(client: gpudev.Client, hours: float) -> None:
    with pytest.raises(gpudev.InvalidHours):
        client.reserve(1, hours=hours)


@pytest.mark.parametrize("ref", ["", ".", ".."])
def test_what_would_change_the_address_is_no_name(client: gpudev.Client, ref: str) -> None:
    with pytest.raises(gpudev.NotFound, match="is not the name or id of a reservation"):
        client.get(ref)


def test_what_can_not_be_written_down_is_refused(client: gpudev.Client) -> None:
    with pytest.raises(gpudev.InvalidRequest, match="type Fraction"):
        client.reserve(Fraction(2))  # type: ignore[arg-type]


@pytest.mark.parametrize("ref", ["../x", "a/b", "a?b", "a;b", "ü" * 300, None, 5])
def test_any_other_name_is_asked_for_as_it_is(client: gpudev.Client, ref: str) -> None:
    with pytest.raises(gpudev.NotFound, match="no reservation"):
        client.get(ref)


def test_a_refusal_is_typed_and_shows_the_hint(client: gpudev.Client) -> None:
    with pytest.raises(gpudev.InvalidShape, match="Use --gpus 8 --nodes 2") as caught:
        client.reserve(16)
    assert caught.value.code == "invalid_shape"


def test_a_stale_token_says_how_to_log_in(service: LiveService) -> None:
    with (
        gpudev.Client(service.url, "stale") as client,
        pytest.raises(gpudev.NotLoggedIn, match="gpu-dev login"),
    ):
        client.reservations()


def test_an_answer_of_another_version_is_no_network_trouble(service: LiveService, api: Api) -> None:
    service.say("GET", "/reservations", {"reservations": [{"id": 1}]})
    with pytest.raises(gpudev.UnexpectedAnswer, match="pip install --upgrade"):
        api.reservations()


@pytest.mark.parametrize("code", list(Code))
def test_every_code_of_the_service_has_an_exit_code_of_its_kind(code: Code) -> None:
    status = STATUS[code]
    expected = {401: 5, 403: 5, 404: 3, 409: 4, 429: 6, 500: 6, 503: 6}.get(status, 2)
    error = from_answer(status, code.value, "what", "next")
    assert (error.exit_code, error.code, str(error)) == (expected, code.value, "what\nnext")


def test_rate_limits_are_waited_for(service: LiveService, client: gpudev.Client) -> None:
    service.faults.append(Fault("429", method="GET"))
    assert client.reservations() == []
    assert service.count("GET", "reservations") == 2


def test_refusals_are_not_repeated(service: LiveService, client: gpudev.Client) -> None:
    service.refuse(409, "quota_exceeded", "16 of 16 GPUs are yours")
    with pytest.raises(gpudev.QuotaExceeded):
        client.reserve(1)
    assert len(service.requests) == 1
