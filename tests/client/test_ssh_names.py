"""Names that lead nowhere say why in ssh's own output; other machines are left alone; nobody waits long."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

import gpudev
from gpudev import clock, ssh, wire
from gpudev.cli import sync
from gpudev.client import Client
from hub_users import free_port
from live_service import NO_ACCESS, LiveService
from patient_gpu_dev import patient_gpu_dev


@pytest.fixture
def service(configured: LiveService, home: Path, monkeypatch: pytest.MonkeyPatch) -> LiveService:
    """The service, with a reservation `big` that waits; ssh reads the configuration of the test's home."""
    program = home / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {home}/.ssh/config "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    patient_gpu_dev(home, monkeypatch)
    configured.fill()
    Client().reserve(2, name="big", wait=False)
    assert configured.access.closed == [wire.SshClosed(alias="gpu-big", id="k2")]
    ssh.sync(configured.access)
    return configured


def connect(name: str) -> tuple[int, list[str]]:
    """What ssh says to somebody who connects."""
    done = subprocess.run(
        ["ssh", name, "true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def test_a_queued_one_says_when_it_starts(service: LiveService) -> None:
    code, lines = connect("gpu-big")
    assert code == 255
    (line,) = lines
    assert line.startswith("gpu-dev: gpu-big is queued, starts about 15:00 (in ")
    assert line.endswith(
        ": waiting for 2 GPUs: node-1 is free by 15:00 (bob). Wait for it with: gpu-dev wait big"
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"state": "starting", "server": "starting"},
            "gpu-big is starting: as told. Wait for it with: gpu-dev wait big",
        ),
        ({"state": "ready", "server": "stopped"}, "gpu-big is yours, but its server is stopped: as told."),
        ({"state": "ready", "server": "running"}, "gpu-big has just become ready. Connect again."),
        ({"state": "stopping"}, "gpu-big is stopping: as told."),
        ({"state": "ended", "outcome": "released", "reason": ""}, "gpu-big ended: released."),
        (
            {"state": "ended", "outcome": "failed", "reason": "3 starts failed"},
            "gpu-big ended: failed: 3 starts failed.",
        ),
        (
            {"planned_start": None, "guaranteed_by": None, "reason": "blocked: node-1 is down"},
            "gpu-big is queued: blocked: node-1 is down. Wait for it with: gpu-dev wait big",
        ),
    ],
)
def test_every_other_state_is_said(service: LiveService, values: dict[str, str | None], said: str) -> None:
    from gpudev.cli.why import how_it_stands

    record = service.change("k2", **{"reason": "as told", **values})
    assert how_it_stands(record) == said


def test_one_that_has_ended_says_so_for_a_day(service: LiveService, monkeypatch: pytest.MonkeyPatch) -> None:
    service.call(service.run.service.end("k2", "local:alice", None))
    service.change("k2", outcome="expired", ended_at="2020-01-01T12:30:00Z")
    ssh.sync(service.access)
    _, lines = connect("gpu-big")
    assert lines == [
        line for line in lines if line.startswith("gpu-dev: gpu-big ended at 2020-01-01 12:30 (")
    ]
    assert lines[0].endswith(" ago): expired.")
    with monkeypatch.context() as forgetful:
        forgetful.setattr(ssh, "REMEMBERED", ssh.REMEMBERED * 0)
        ssh.sync(service.access)
    assert ssh.names_of(ssh.known_accounts()[0]) == ({}, [])


def test_an_unknown_one_is_said_before_ssh_looks_for_it(service: LiveService) -> None:
    code, lines = connect("me@gpu-nosuch")
    assert code == 255
    assert lines[0] == "gpu-dev: you have no reservation called nosuch. Your reservations: gpu-big."
    assert "gpu-nosuch" in lines[1]
    assert len(lines) == 2


def test_a_name_in_capitals_is_told_how_to_write_it(service: LiveService) -> None:
    _, lines = connect("GPU-BIG")
    assert lines[0].startswith("gpu-dev: gpu-big is queued"), "why it leads nowhere, as in lower case"
    _, lines = connect("GPU-NOSUCH")
    assert lines[0] == "gpu-dev: you have no reservation called nosuch. Your reservations: gpu-big."
    names = {"id": "g9", "name": "live", "alias": "gpu-live", "host_key_alias": "g9", "user": "me"}
    host = wire.SshHost(**names, rank=0, host="127.0.0.1", port=4022, ends_at=None)
    ssh.sync(
        wire.SshAccess(known_hosts=NO_ACCESS.known_hosts, hosts=[host], identity_file=None, accepted_keys=[])
    )
    _, lines = connect("me@GPU-Live")
    assert lines[0] == "gpu-dev: names of reservations are in lower case. Use: ssh gpu-live"


def test_an_old_token_is_said(service: LiveService, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUDEV_TOKEN", "another")
    for file in (home / ".ssh" / "gpudev" / "hosts").glob("*.tried"):
        file.unlink()
    _, lines = connect("gpu-nosuch")
    assert "gpu-dev: " in lines[0]
    assert "The SSH settings for gpu-nosuch may be out of date." in lines[0]


def test_other_machines_are_connected_without_a_word(service: LiveService, home: Path) -> None:
    """The user's own `gpu-box`, by their configuration; and hosts that are called otherwise ask nobody."""
    port = free_port()
    with (home / ".ssh" / "config").open("a") as file:
        file.write(f"Host gpu-box other\n  HostName 127.0.0.1\n  Port {port}\n")
    before = 0
    for name in ("gpu-box", "other"):
        before = len(service.requests)
        code, (line,) = connect(name)
        assert code == 255
        assert f"connect to host 127.0.0.1 port {port}: Connection refused" in line
    assert len(service.requests) == before


def test_an_account_whose_reservation_ended_hides_no_others(
    service: LiveService, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two accounts had `big`, the other has it: ssh connects, and no reason stands in the way."""
    ssh.sync(NO_ACCESS)
    other = home / "other.json"
    other.write_text("{}")
    names = {"id": "g9", "name": "big", "alias": "gpu-big", "host_key_alias": "g9", "user": "me"}
    host = wire.SshHost(**names, rank=0, host="127.0.0.1", port=4022, ends_at=None)
    ssh.sync(
        wire.SshAccess(known_hosts=NO_ACCESS.known_hosts, hosts=[host], identity_file=None, accepted_keys=[]),
        other,
    )
    done = subprocess.run(["ssh", "-G", "gpu-big"], capture_output=True, text=True, check=True)
    assert "\nport 4022\n" in done.stdout
    assert "proxycommand" not in done.stdout
    assert "loglevel INFO" in done.stdout


def test_services_that_are_silent_hold_up_nobody_for_long(
    service: LiveService, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A service that takes connections and never answers, for thirty accounts: all of them at once."""
    monkeypatch.setattr(sync, "PATIENCE", 0.3)
    monkeypatch.setattr(ssh, "FRESH", 0.0)
    monkeypatch.setattr(sync, "typed_name", lambda: "gpu-nosuch")
    import gpudev.api  # noqa: F401  (loading it is not what is measured)

    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("GPUDEV_URL", url)
        for number in range(30):
            account = home / f"account-{number}.json"
            account.write_text(f'{{"url": "{url}", "token": "t"}}')
            ssh.sync(NO_ACCESS, account)
        start = time.monotonic()
        assert sync.main() == 0
        took = time.monotonic() - start
    assert 0.2 < took < 5.0, "one after the other they take 9 s"
    assert "The SSH settings for gpu-nosuch may be out of date." in capfd.readouterr().err


def test_the_limit_is_what_the_docs_say() -> None:
    assert sync.PATIENCE + 0.4 <= 2.0, "starting gpu-dev takes a while, too"


@pytest.mark.parametrize("hours", [-30, -1 / 3, 0, 1 / 3, 30])
def test_lengths_of_time_are_counted_by_the_services_clock(
    service: LiveService, monkeypatch: pytest.MonkeyPatch, hours: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """This machine's clock is wrong, in either direction: as far as the client can see, the service's is."""
    at = time.time() + hours * 3600
    service.now = lambda: at
    starts = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at + 2 * 3600 + 60))
    service.change("k2", planned_start=starts)
    box = gpudev.get("big")
    assert "(in 2 h 1 min)" in repr(box) or "(in 2 h)" in repr(box)
    service.make_ready("k2")
    service.change("k2", ends_at=starts)
    box.wait(timeout=5, progress=True)
    assert "(2 h 1 min left)" in capsys.readouterr().err or "(2 h left)" in repr(box)


@pytest.mark.parametrize(
    "date", [None, "", "yesterday", "Tue, 99 Nov 2026 01:00:00 GMT", "Sun, 29 Nov 2026 01:00:00 -0000"]
)
def test_a_date_that_is_none_changes_nothing(date: str | None) -> None:
    before = clock._ahead
    clock.learn(date)
    assert clock._ahead == before
