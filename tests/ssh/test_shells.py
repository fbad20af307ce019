"""Shells of all kinds over SSH: none hides the server's programs, and no start file locks anybody out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssh_world import Rank, World
from terminals import Terminal

pytestmark = pytest.mark.integration

START_FILES = {
    "bash": [".bashrc", ".bash_profile"],
    "zsh": [".zshenv", ".zprofile", ".zshrc", ".zlogin"],
    "fish": [".config/fish/config.fish", ".config/fish/conf.d/own.fish"],
}
SEEN = [
    "CUDA_VISIBLE_DEVICES",
    "NODE_RANK",
    "NNODES",
    "MASTER_ADDR",
    "MASTER_PORT",
    "GPUDEV_SERVER",
    "TRICKY",
]
PROBE = (
    "import json, os, shutil;"
    f" print(json.dumps([shutil.which('python'), *(os.environ.get(n) for n in {SEEN!r})]))"
)


@pytest.fixture(scope="module", params=sorted(START_FILES))
def shell(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    if os.getuid() != 0:
        pytest.skip("changes the account's record")
    return name


@pytest.fixture(scope="module")
def rank(world: World, shell: str) -> Iterator[Rank]:
    yield world.start(f"g{shell}", name=f"{shell}-user", shell=shutil.which(shell))[0]
    world.stop(f"g{shell}")


@pytest.fixture(scope="module")
def bash(world: World) -> Iterator[Rank]:
    yield world.start("gbash2", name="bash")[0]
    world.stop("gbash2")


@pytest.fixture
def broken(world: World, shell: str) -> Iterator[Path]:
    """Start files that print and end the shell; they leave a trace."""
    trace = world.home / "was-read"
    files = [world.home / name for name in (*START_FILES[shell], ".ssh/rc")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"echo {file.name} >> {trace}; echo hi from {file.name}; exit 1\n")
    yield trace
    for file in files:
        file.unlink()
    trace.unlink(missing_ok=True)


def test_commands_read_no_start_file(
    world: World, rank: Rank, shell: str, broken: Path, tmp_path: Path
) -> None:
    host = f"gpu-{shell}-user"
    done = world.run("ssh", host, "echo $CUDA_VISIBLE_DEVICES; pwd; exit 3")
    assert (done.stdout, done.stderr, done.returncode) == (f"0,1\n{world.home}\n", "", 3)
    done = world.run("ssh", "-T", host, input="echo $NODE_RANK\n")
    assert (done.stdout, done.stderr) == ("0\n", "")
    source = tmp_path / "source"
    source.write_bytes(os.urandom(100_000))
    assert world.run("scp", "-q", "-O", str(source), f"{host}:copied").returncode == 0
    assert world.run("sftp", "-b", "-", host, input=f"put {source} sent\n").returncode == 0
    rsync = ["rsync", "-e", f"ssh -F {world.config}", str(source), f"{host}:synced"]
    if shutil.which("rsync") is not None:
        subprocess.run(rsync, check=True, timeout=30, stdin=subprocess.DEVNULL)
        assert (world.home / "synced").read_bytes() == source.read_bytes()
    assert not broken.exists(), broken.read_text()


def test_commands_keep_characters_that_are_not_ascii(world: World, rank: Rank, shell: str) -> None:
    assert world.run("ssh", f"gpu-{shell}-user", 'echo "é données $LANG"').stdout == "é données C.UTF-8\n"


def test_an_interactive_shell_reads_them_and_a_command_is_the_way_in(
    world: World, rank: Rank, shell: str, broken: Path
) -> None:
    terminal = Terminal(world, "-tt", f"gpu-{shell}-user")
    try:
        terminal.read_until(r"hi from [^r]")
    finally:
        terminal.close()
    read = set(broken.read_text().split())
    assert read > {"rc"}
    assert read - {"rc"} <= {name.rpartition("/")[2] for name in START_FILES[shell]}
    # As docs/quick-start.md says.
    terminal = Terminal(world, "-tt", f"gpu-{shell}-user", "bash --norc")
    try:
        terminal.type("echo way$((1 + 1))in")
        terminal.read_until("way2in")
    finally:
        terminal.close()


NESTED = """
run='python "$HOME/probe.py"'
$run
bash -c "$run"
bash -lc "$run"
bash -lc "bash -lc '$run'"
"$SHELL" -lc "$run"
"$SHELL" -ilc "$run" 2> /dev/null
for shell in zsh fish; do
    if command -v $shell > /dev/null; then $shell -lc "$run"; else $run; fi
done
"""


@pytest.fixture
def own_files(world: World, tmp_path: Path) -> Iterator[None]:
    """Start files that put another ``python`` in front; ``probe.py`` tells what is found."""
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho another python\n")
    fake.chmod(0o755)
    contents = {
        "probe.py": PROBE,
        "nested.sh": NESTED.replace("$run\n", 'eval "$run"\n', 1),
        ".profile": f'export PATH="{tmp_path}:$PATH" MINE=1\n. ~/.bashrc\n',
        ".bashrc": "export MORE=1\n",
    }
    for name, text in contents.items():
        (world.home / name).write_text(text)
    yield
    for name in contents:
        (world.home / name).unlink()


def expected(rank: Rank) -> list[str | None]:
    return [shutil.which("python", path=rank.env["PATH"]), *(rank.env[name] for name in SEEN)]


def test_every_shell_finds_the_same(world: World, bash: Rank, own_files: None) -> None:
    done = world.run("ssh", "gpu-bash", "sh ~/nested.sh")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [expected(bash)] * 8, done.stderr
    terminal = Terminal(world, "-tt", "gpu-bash")
    try:
        terminal.type("echo mine=$MINE more=$MORE; python ~/probe.py")
        text = terminal.read_until(r'[\r\n]\["/[^\]]*\]')
    finally:
        terminal.close()
    assert "mine=1 more=1" in text
    assert json.loads(text[text.rindex('["/') :].partition("]")[0] + "]") == expected(bash)


def test_a_script_keeps_its_virtual_environment(world: World, bash: Rank) -> None:
    """What brings the server's programs back after a login shell's files is no business of scripts."""
    done = world.run("ssh", "gpu-bash", "PATH=/venv/bin:$PATH bash -c 'echo $PATH'")
    assert done.stdout == f"/venv/bin:{bash.env['PATH']}\n"


PANE = """
tmux new-session -d -s $1
tmux send-keys -t $1 'python ~/probe.py > ~/pane.new && mv ~/pane.new ~/pane' Enter
for i in $(seq 900); do test -e ~/pane && break; sleep 0.05; done
cat ~/pane
rm ~/pane
tmux ls -F '#S'
"""


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_a_terminal_multiplexer_is_the_servers_own(world: World, bash: Rank, own_files: None) -> None:
    """Two servers of one person on one machine: each has its panes, its GPUs and its programs."""
    (other,) = world.start("gother", name="other", gpus=1)
    (world.home / "pane.sh").write_text(PANE)
    try:
        for name, server in (("bash", bash), ("other", other)):
            done = world.run("ssh", f"gpu-{name}", f"sh ~/pane.sh {name}")
            pane, _, sessions = done.stdout.partition("\n")
            assert json.loads(pane) == expected(server), done.stderr
            assert sessions == f"{name}\n"
    finally:
        world.stop("gother")
