"""Terminals that lack characters, full devices and closed streams: words, and never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpudev.client import Client
from gpudev.progress import Lines, Silent, for_stream
from live_service import LiveService

GPU_DEV = Path(sys.executable).with_name("gpu-dev")
COMMANDS = [
    ["list"],
    ["list", "--json"],
    ["show", "demo"],
    ["show", "demo", "--json"],
    ["logs", "demo"],
    ["avail"],
    ["avail", "--json"],
    ["node", "list"],
    ["wait", "demo"],
    ["extend", "demo", "--hours", "0.1"],
    ["config", "list"],
    ["ssh-config", "show"],
    ["open", "demo"],
    ["--help"],
    ["reserve", "--help"],
    ["--version"],
    ["frobnicate", "--json"],
    ["show", "nobody", "--json"],
]
DRIVER = """
import json, os, sys
from gpudev.cli import app, main, reading, reserve, streams, tables
import rich.console, rich.live, rich.table, httpx, certifi

commands, streams = json.loads(sys.argv[1])
for number, command in enumerate(commands):
    if os.fork() == 0:
        for descriptor, name in enumerate(streams, 1):
            if name == "gone":
                reader, there = os.pipe()
                os.close(reader)
            else:
                there = os.open(name or f"{number}.{descriptor}", os.O_WRONLY | os.O_CREAT, 0o600)
            os.dup2(there, descriptor)
        sys.argv = ["gpu-dev", *command]
        main()
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""
"""Each command in a process of its own, which has loaded everything already: its start costs nothing."""


@pytest.fixture
def service(configured: LiveService, home: Path, monkeypatch: pytest.MonkeyPatch) -> LiveService:
    with Client(configured.url, configured.token) as client:
        client.reserve(2, name="demo", progress=False)
    (home / "config.json").write_text(json.dumps({"url": configured.url, "who": "Ünïcode · × …"}))
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    return configured


def run(
    folder: Path, commands: list[list[str]], out: str = "", err: str = "", **environment: str
) -> list[tuple[int, str, str]]:
    """Exit code, output and complaints of each; `out` and `err`: where they go instead, ``gone``: nowhere."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps([commands, [out, err]])],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=folder,
        text=True,
        check=True,
        timeout=100,
    )

    def read(number: int, stream: int) -> str:
        file = folder / f"{number}.{stream}"
        return file.read_text("utf-8", "replace") if file.exists() else ""

    return [(int(code), read(n, 1), read(n, 2)) for n, code in enumerate(done.stdout.split())]


def test_a_terminal_that_has_only_ascii(service: LiveService, tmp_path: Path) -> None:
    service.change(service.only.id, reason="größer · ×")
    results = dict(zip(map(tuple, COMMANDS), run(tmp_path, COMMANDS, PYTHONIOENCODING="ascii"), strict=True))
    for command, (code, out, err) in results.items():
        assert "Traceback" not in err, (command, err)
        assert code in (0, 2, 3), (command, err)
        assert err.isascii(), (command, err)
        if "--json" in command:
            json.loads(out)
        else:
            assert out.isascii(), (command, out)
    assert "gpu-demo - 2 GPUs" in results["show", "demo"][1]
    assert json.loads(results["show", "demo", "--json"][1])["reason"] == "größer · ×", "JSON is UTF-8"


def test_a_full_device_is_told(service: LiveService, tmp_path: Path) -> None:
    for command, (code, _, err) in zip(COMMANDS, run(tmp_path, COMMANDS, "/dev/full"), strict=True):
        assert "Traceback" not in err, (command, err)
        assert "Exception ignored" not in err, (command, err)
        assert code == 1, command
        assert "The result could not be written to standard output: No space left on device." in err, (
            command,
            err,
        )
        assert "Check with: gpu-dev list" in err


def test_a_reader_that_has_gone_is_not_worth_a_word(service: LiveService, tmp_path: Path) -> None:
    for command, (code, _, err) in zip(COMMANDS[::4], run(tmp_path, COMMANDS[::4], "gone"), strict=True):
        assert code == 1
        assert "Traceback" not in err, (command, err)
        assert "Exception ignored" not in err, (command, err)
        assert "could not be written" not in err, command


@pytest.mark.parametrize("err", ["/dev/full", "gone"])
def test_what_cannot_be_told_changes_no_result(service: LiveService, tmp_path: Path, err: str) -> None:
    made, unknown = run(tmp_path, [["reserve", "--json"], ["show", "nobody"]], err=err)
    assert made[0] == 0
    assert json.loads(made[1])["state"] == "ready"
    assert unknown[0] == 3
    ((code, _, _),) = run(tmp_path, [["show", "nobody", "--json"]], "/dev/full", err)
    assert code == 1


def test_closed_streams(service: LiveService) -> None:
    """Whoever starts it so (cron, a daemon) wants to see nothing, and what is done is done all the same."""
    done = subprocess.run(
        ["bash", "-c", '"$0" reserve -n quiet >&- 2>&- <&- && "$0" show quiet --json 2>&-', GPU_DEV],
        stdout=subprocess.PIPE,
        check=True,
        timeout=100,
    )
    assert json.loads(done.stdout)["name"] == "quiet"


def test_progress_without_a_place_to_show_it(service: LiveService, tmp_path: Path) -> None:
    assert isinstance(for_stream(None), Silent)
    with (tmp_path / "closed").open("w") as closed:
        pass
    assert isinstance(for_stream(closed), Silent)
    full = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")
    Lines(full).update(service.only, None)
    with pytest.raises(OSError, match="No space left"):
        full.close()
