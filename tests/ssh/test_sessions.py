"""A real ``ssh`` into a real server: first try, no prompt, host checking on, all that people do with it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from forwards import connects, greet, heard_as_vs_code
from gpudev_hub.core.model import HOUR
from gpudev_hub.server import processes
from hub_users import free_port
from ssh_world import Rank, World, eventually, now
from terminals import Terminal

pytestmark = pytest.mark.integration

SEEN = ["HOME", "CUDA_VISIBLE_DEVICES", "NODE_RANK", "NNODES", "MASTER_ADDR", "MASTER_PORT", "PATH", "TRICKY"]
SHOW = f"python -c 'import json, os; print(json.dumps([os.environ.get(n) for n in {json.dumps(SEEN)}]))'"
HOST = "gpu-demo"


@pytest.fixture(scope="module")
def rank(world: World) -> Rank:
    return world.start("gx1", name="demo")[0]


@pytest.fixture
def terminal(world: World, rank: Rank) -> Iterator[Terminal]:
    terminal = Terminal(world, "-tt", HOST)
    yield terminal
    terminal.close()


def test_first_try_without_a_prompt(world: World, rank: Rank) -> None:
    done = world.run("ssh", HOST, "echo $CUDA_VISIBLE_DEVICES; pwd")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"0,1\n{world.home}\n", "")


def test_the_id_is_a_name_too(world: World, rank: Rank) -> None:
    assert world.run("ssh", "gpu-gx1", "true").returncode == 0


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_codes_come_back(world: World, rank: Rank, code: int) -> None:
    assert world.run("ssh", HOST, f"exit {code}").returncode == code


def test_every_kind_of_session_has_the_servers_environment(world: World, rank: Rank) -> None:
    expected = [rank.env[name] for name in SEEN]
    command = world.run("ssh", HOST, SHOW)
    stdin = world.run("ssh", "-T", HOST, input=SHOW + "\n")
    bash = world.run("ssh", "-T", HOST, "bash", input=SHOW + "\n")
    assert [json.loads(done.stdout) for done in (command, stdin, bash)] == [expected] * 3
    terminal = Terminal(world, "-tt", HOST, SHOW)
    try:
        text = terminal.read_until(r"\[.*\]")
    finally:
        terminal.close()
    assert json.loads(re.search(r"\[.*\]", text).group()) == expected  # type: ignore[union-attr]


def test_an_interactive_shell_has_it_too(terminal: Terminal, rank: Rank) -> None:
    terminal.type(SHOW)
    text = terminal.read_until(r"[\r\n]\[.*\]")
    assert json.loads(re.search(r"[\r\n](\[.*\])", text).group(1)) == [  # type: ignore[union-attr]
        rank.env[name] for name in SEEN
    ]


def test_a_bashrc_does_not_hide_the_servers_programs(world: World, rank: Rank, tmp_path: Path) -> None:
    """The user's .bashrc counts in a terminal, but `python` stays the one that Jupyter's notebooks run on."""
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho another python\n")
    fake.chmod(0o755)
    bashrc = Path(rank.env["HOME"]) / ".bashrc"
    before = bashrc.read_bytes() if bashrc.exists() else None
    bashrc.write_text(f"export PATH={tmp_path}:$PATH MINE=1\n")
    try:
        which = "command -v python"
        wanted = shutil.which("python", path=rank.env["PATH"])
        assert world.run("ssh", HOST, which).stdout.strip() == wanted
        assert world.run("ssh", "-T", HOST, "bash", input=which + "\n").stdout.strip() == wanted
        terminal = Terminal(world, "-tt", HOST)
        try:
            terminal.type(f"echo path=$PATH; echo mine=$MINE at=$({which}).")
            text = terminal.read_until(r"[\r\n]mine=1 at=[^$].*\.")
        finally:
            terminal.close()
        assert f"mine=1 at={wanted}." in text
        assert f"path={rank.env['PATH']}:{tmp_path}\r" in text, "nothing twice, and the user's own after"
    finally:
        bashrc.unlink() if before is None else bashrc.write_bytes(before)


def test_banner_in_shells_only_and_current_after_an_extension(
    world: World, rank: Rank, terminal: Terminal
) -> None:
    text = terminal.read_until("To extend")
    assert "gpudev demo: 2 simulated GPUs (0, 1) on node-1" in text
    assert re.search(r"Ends at \d\d:\d\d \w+, in (1 h 5\d|2 h 00) min", text)
    terminal.read_until("gpu-dev extend demo --hours 1")
    assert "To extend" not in world.run("ssh", HOST, "true").stdout
    before = world.live.reservations["gx1"].hard_end
    world.change("gx1", hard_end=now() + 9 * HOUR + 90_000)
    again = Terminal(world, "-tt", HOST)
    try:
        again.read_until(r"in 9 h 0[01] min")
    finally:
        again.close()
        world.change("gx1", hard_end=before)


def test_hushlogin(world: World, rank: Rank) -> None:
    (world.home / ".hushlogin").touch()
    quiet = Terminal(world, "-tt", HOST)
    try:
        quiet.type("echo re''ady")
        assert "To extend" not in quiet.read_until("ready")
    finally:
        quiet.close()
        (world.home / ".hushlogin").unlink()


def test_sftp(world: World, rank: Rank, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(300_000))
    done = world.run("sftp", "-b", "-", HOST, input=f"put {source} sent\npwd\nls -l sent\n")
    assert done.returncode == 0, done.stderr
    assert str(world.home) in done.stdout
    assert (world.home / "sent").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("old", [[], ["-O"]])
def test_scp_there_and_back(world: World, rank: Rank, tmp_path: Path, old: list[str]) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(300_000))
    there = world.run("scp", "-q", *old, str(source), f"{HOST}:copied")
    here = world.run("scp", "-q", *old, f"{HOST}:copied", str(back))
    assert (there.returncode, here.returncode) == (0, 0), there.stderr + here.stderr
    assert back.read_bytes() == source.read_bytes()
    assert (world.home / "copied").exists()


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
def test_rsync(world: World, rank: Rank, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for number in range(20):
        (tmp_path / "tree" / f"file {number}").write_text("x" * number)
    done = subprocess.run(
        ["rsync", "-a", "-e", f"ssh -F {world.config}", f"{tmp_path}/tree", f"{HOST}:synced/"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (world.home / "synced/tree/file 19").read_text() == "x" * 19


@pytest.mark.parametrize("kind", ["-L", "-R", "-D"])
def test_port_forwarding(world: World, rank: Rank, kind: str) -> None:
    port = free_port()
    forward = str(port) if kind == "-D" else f"127.0.0.1:{port}:127.0.0.1:{rank.port}"
    argv = ["ssh", "-F", str(world.config), "-N", "-o", "ExitOnForwardFailure=yes", kind, forward, HOST]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: connects(port))
            assert greet(port, rank.port if kind == "-D" else None) == b"SSH-"
        finally:
            process.terminate()


def test_agent_forwarding(world: World, rank: Rank, tmp_path: Path) -> None:
    agent = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(agent)], stdout=subprocess.DEVNULL) as process:
        try:
            eventually(agent.exists)
            env = {**os.environ, "SSH_AUTH_SOCK": str(agent)}
            key = tmp_path / "key"
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
            subprocess.run(["ssh-add", "-q", str(key)], env=env, check=True, stderr=subprocess.DEVNULL)
            done = subprocess.run(
                ["ssh", "-A", "-F", str(world.config), HOST, "ssh-add -L"],
                env=env,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            assert done.stdout.split()[1] == key.with_name("key.pub").read_text().split()[1], done.stderr
        finally:
            process.terminate()


def test_the_way_of_vs_code(world: World, rank: Rank) -> None:
    assert heard_as_vs_code(world.argv, HOST) == b"CODE"


def test_sessions_by_the_dozen(world: World, rank: Rank) -> None:
    argv = ["ssh", "-F", str(world.config), HOST, "echo $NODE_RANK"]
    running = [
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) for _ in range(15)
    ]
    assert [process.communicate(timeout=60)[0] for process in running] == ["0\n"] * 15


def test_notices_appear_in_terminals(world: World, rank: Rank, terminal: Terminal) -> None:
    """Invariant 9: warned where he is."""
    # No other test's: sleepers without a terminal outlive their sessions.
    other = Terminal(world, "-tt", HOST, "sleep 4712")
    try:
        terminal.type("echo re''ady")
        terminal.read_until("ready")
        # The command itself: of the shell that is just becoming it, nothing can be read for a moment.
        eventually(lambda: "sleep 4712 " in commands(rank).splitlines())
        world.service.tell("demo ends in 15 min, at 14:10 UTC\x1b]0;evil\x07")
        assert "demo ends in 15 min" in terminal.read_until("14:10 UTC")
        other.read_until("demo ends in 15 min, at 14:10 UTC")
        assert "\x1b]0;evil" not in terminal.text
    finally:
        other.close()


def commands(rank: Rank) -> str:
    found = []
    for pid in processes.marked(rank.marker):
        try:
            found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return "\n".join(found)


def test_a_terminal_that_hangs_holds_up_nobody(world: World, rank: Rank, terminal: Terminal) -> None:
    stuck = Terminal(world, "-tt", HOST, "yes")
    try:
        stuck.read_until("y")
        terminal.type("echo re''ady")
        terminal.read_until("ready")
        world.service.tell("demo ends in 5 min")
        terminal.read_until("demo ends in 5 min")
    finally:
        stuck.close()


def test_what_runs_in_a_session_carries_the_marker(world: World, rank: Rank, terminal: Terminal) -> None:
    terminal.type("setsid nohup sleep 4711 > /dev/null 2>&1 & echo re''ady")
    terminal.read_until("ready")
    eventually(lambda: "sleep 4711" in commands(rank))


def test_server_files_are_private(rank: Rank) -> None:
    for path in rank.folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_python_of_the_server_first(world: World, rank: Rank) -> None:
    done = world.run("ssh", HOST, "command -v python")
    assert done.stdout.strip() == str(Path(sys.executable).parent / "python")
