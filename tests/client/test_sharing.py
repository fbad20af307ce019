"""``gpu-dev share`` and ``unshare``, the library's methods, and what a guest sees."""

from __future__ import annotations

import json

import pytest

from gpudev.cli.app import main
from gpudev.client import Client
from gpudev.errors import InvalidRequest, NotFound
from live_service import LiveService


@pytest.fixture(autouse=True)
def _configured(configured: LiveService) -> None:
    """The command line finds the service."""


class Run:
    """Runs commands and keeps what they wrote."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        self._capfd.readouterr()
        code = main(list(arguments))
        self.out, self.err = self._capfd.readouterr()
        return code


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    return Run(capfd)


def test_share_and_unshare(run: Run, service: LiveService) -> None:
    run("reserve", "-n", "demo")
    assert run("share", "demo", "bob") == 0
    assert "demo is shared with bob until it ends." in run.out
    assert run("show", "demo") == 0
    assert "shared with" in run.out
    assert "bob" in run.out
    assert run("share", "demo", "carol", "--json") == 0
    assert [guest["login"] for guest in json.loads(run.out)["guests"]] == ["bob", "carol"]
    assert run("share", "demo", "bob") == 0, "the same asked twice"
    assert run("share", "demo", "stranger") == 3
    assert run("unshare", "demo", "bob") == 0
    assert "demo is no longer shared with bob." in run.out
    assert run("unshare", "demo", "bob") == 0
    assert run.out == "demo was not shared with bob, so nothing changed.\n"
    assert [guest.login for guest in service.only.guests] == ["carol"]
    assert run("share", "demo", "") == 2
    assert "Give the login of a user" in run.err
    service.run.hub.users.add("a/../b")
    assert run("share", "demo", "a/../b") == 0, "quoted, whatever it holds"
    assert service.only.guests[-1].login == "a/../b"


def test_the_library_has_it_too(service: LiveService) -> None:
    with Client() as client:
        box = client.reserve(1, progress=False)
        assert box.share("bob").guests == ["bob"]
        assert box.share("bob").guests == ["bob"]
        assert box.unshare("bob").guests == []
        with pytest.raises(NotFound):
            box.share("stranger")
        with pytest.raises(InvalidRequest):
            box.share("..")


def test_a_guest_sees_whose_it_is(run: Run, service: LiveService) -> None:
    run("reserve", "-n", "demo")
    service.change(service.only.id, mine=False, shared=True, owner="alice")
    assert run("list") == 0
    assert "shared by alice" in run.out
