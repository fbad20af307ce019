"""Commands and copies with a real sshd at the other end, from the library, the CLI and a notebook."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from nbclient import NotebookClient
from nbformat import v4

import gpudev
from fault_proxy import Answer
from gpudev import ssh, sshfiles, wire
from live_service import LiveService
from patient_gpu_dev import patient_gpu_dev
from ssh_world import World

pytestmark = pytest.mark.integration

GPU_DEV = Path(sys.executable).with_name("gpu-dev")
CELLS = (
    "import gpudev",
    "box = gpudev.reserve(1, hours=1)",
    "box",
    "box.run('echo GPUs: $CUDA_VISIBLE_DEVICES')",
    "result = box.run(['python3', '-c', 'print(6 * 7)'], capture=True)\nint(result.stdout)",
    "box.release()\nprint(box.state)",
)
"""What somebody does in a notebook of a machine that is not a server's."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server that listens, for the reservation that the service will call k1."""
    with pytest.MonkeyPatch.context() as patch, World(tmp_path_factory.mktemp("ssh")) as made:
        patch.setenv("HOME", str(made.home))
        patch.setenv("GPUDEV_CONFIG", str(made.home / ".gpu-dev-config"))
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        made.start("k1", name="demo")
        yield made


def tell(service: LiveService, access: Callable[[], wire.SshAccess]) -> None:
    """Lead to a server that really listens."""
    service.instead["GET", "/ssh"] = lambda _: Answer(access())


@pytest.fixture
def service(world: World, configured: LiveService, monkeypatch: pytest.MonkeyPatch) -> LiveService:
    monkeypatch.setenv("HOME", str(world.home))
    monkeypatch.setenv("GPUDEV_CONFIG", str(world.home / ".gpu-dev-config"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    tell(configured, world.wire_access)
    return configured


@pytest.fixture
def box(service: LiveService) -> gpudev.Reservation:
    return gpudev.reserve(2, name="demo", progress=False)


def test_a_string_goes_to_the_shell_and_a_list_word_for_word(box: gpudev.Reservation) -> None:
    assert box.run("echo $CUDA_VISIBLE_DEVICES | tr , -", capture=True).stdout == "0-1\n"
    assert box.run(["echo", "a  b", "$HOME;'\""], capture=True).stdout == "a  b $HOME;'\"\n"


@pytest.mark.parametrize("command", ["", "  ", []])
def test_an_empty_command_opens_no_shell(box: gpudev.Reservation, command: str | list[str]) -> None:
    with pytest.raises(gpudev.InvalidRequest, match="The command for reservation demo is empty"):
        box.run(command)


def test_output_appears_as_it_comes(box: gpudev.Reservation, capsys: pytest.CaptureFixture[str]) -> None:
    result = box.run("echo out; echo err >&2; cat", input="in\n")
    assert (result.returncode, result.stdout) == (0, "")
    out, err = capsys.readouterr()
    assert out == "out\nin\n"
    assert "err\n" in err


def test_a_failure_is_raised_with_what_it_wrote(box: gpudev.Reservation) -> None:
    with pytest.raises(gpudev.RemoteCommandFailed, match="status 3") as caught:
        box.run("echo so far; exit 3", capture=True)
    assert (caught.value.returncode, caught.value.stdout) == (3, "so far\n")
    assert box.run("exit 3", check=False).returncode == 3


def started(world: World, name: str) -> list[int]:
    """The processes that a command wrote down when it started them."""
    return [int(line) for line in (world.home / name).read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# A shell, a child in the background, one in a session of its own, and a last one that hears no SIGTERM.
STUBBORN = """
echo $$ > pids
sleep 600 & echo $! >> pids
setsid sh -c 'echo $$ >> pids; exec sleep 600' &
sh -c 'trap "" TERM; echo $$ >> pids; touch started; while :; do sleep 1; done' &
until [ -e started ] && [ $(wc -l < pids) = 4 ]; do sleep 0.01; done
echo so far
wait
"""


def test_a_command_that_takes_too_long_is_ended_there(
    box: gpudev.Reservation, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    (world.home / "started").unlink(missing_ok=True)
    with pytest.raises(
        gpudev.CommandTimeout, match=r"did not finish within 8 s\. It was stopped\."
    ) as caught:
        box.run(STUBBORN, capture=True, timeout=8)
    assert isinstance(caught.value, gpudev.GpuDevError)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.stdout == "so far\n"
    assert len(started(world, "pids")) == 4
    assert not any(map(alive, started(world, "pids")))
    with pytest.raises(gpudev.CommandTimeout):
        box.run(["sh", "-c", "echo $$ > pid; echo shown; exec sleep 600"], timeout=6)
    assert capsys.readouterr().out == "shown\n"
    assert not any(map(alive, started(world, "pid")))
    with pytest.raises(gpudev.InvalidRequest, match="The timeout is -1 seconds"):
        box.run("true", timeout=-1)


def test_a_time_limit_leaves_other_commands_alone(box: gpudev.Reservation, world: World) -> None:
    box.run("sleep 600 > /dev/null 2>&1 & echo $! > kept")
    with pytest.raises(gpudev.CommandTimeout):
        box.run("sleep 600", timeout=1, input="x" * 1_000_000)
    (kept,) = started(world, "kept")
    assert alive(kept)
    os.kill(kept, signal.SIGKILL)


def test_output_that_cannot_be_written_ends_the_command(
    box: gpudev.Reservation, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        with pytest.raises(OSError, match="No space left"):
            box.run("echo $$ > pid; yes")
    with suppress(OSError):
        full.close()
    assert not any(map(alive, started(world, "pid")))


def test_output_of_every_encoding(box: gpudev.Reservation, monkeypatch: pytest.MonkeyPatch) -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), "ascii")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", ascii_only)
        box.run("echo größer")
    assert ascii_only.buffer.getvalue() == b"gr??er\n"
    assert box.run(r"printf 'a\377b\r\n'", capture=True).stdout == "a\ufffdb\n"


def tree(folder: Path) -> dict[str, str | None]:
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_text()
        for path in sorted(folder.rglob("*"))
    }


def test_a_folder_is_the_same_tree_however_often_it_is_copied(
    box: gpudev.Reservation, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a folder"
    (folder / "deep/er").mkdir(parents=True)
    (folder / "x; y").write_text("1")
    (folder / "deep/z").write_text("2")
    (folder / "link").symlink_to("deep/z")
    (folder / "run").write_text("3")
    (folder / "run").chmod(0o750)
    for source, target, place in (
        (folder, "tree", "tree"),
        (folder, "in/", "in/a folder"),
        (f"{folder}/", "~/in/", "in/a folder"),
    ):
        box.upload(source, target)
        assert tree(world.home / place) == tree(folder), target
    assert [path.name for path in (world.home / "in").iterdir()] == ["a folder"]
    assert (world.home / "tree/link").readlink() == Path("deep/z")
    assert (world.home / "tree/run").stat().st_mode & 0o777 == 0o750
    (folder / "x; y").write_text("changed")
    (folder / "deep/z").unlink()
    box.upload(folder, "~/tree")
    assert (world.home / "tree/x; y").read_text() == "changed"
    assert (world.home / "tree/deep/z").read_text() == "2", "what is there besides stays"
    monkeypatch.chdir(tmp_path)
    for target, place in (("back", "back"), (".", "tree"), ("back", "back")):
        box.download("tree/", target)
        assert tree(tmp_path / place) == tree(world.home / "tree"), target
    with pytest.raises(gpudev.InvalidRequest, match="The copy of / needs a name"):
        box.upload("/", ".")


def test_files_and_folders_go_there_and_back(box: gpudev.Reservation, world: World, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "x; y").write_bytes(b"\0data")
    box.upload(folder, "there")
    assert (world.home / "there" / "x; y").read_bytes() == b"\0data"
    box.download("there/x; y", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"\0data"
    box.upload(tmp_path / "back", "new/")
    assert (world.home / "new/back").read_bytes() == b"\0data"
    with pytest.raises(FileNotFoundError):
        box.upload(tmp_path / "nothing")
    with pytest.raises(gpudev.GpuDevError, match="could not be copied"):
        box.download("nothing", tmp_path)
    with pytest.raises(gpudev.GpuDevError, match=r"could not be copied to gpu-demo:/proc/new: .*mkdir"):
        box.upload(folder, "/proc/new")


def test_a_hub_that_accepts_no_key_of_this_machine_is_said(
    world: World, box: gpudev.Reservation, service: LiveService
) -> None:
    """As where the hub was started with another home than the client."""
    tell(service, lambda: msgspec.structs.replace(world.wire_access(), accepted_keys=[]))
    with pytest.raises(gpudev.GpuDevError, match="accepts none of the SSH keys in") as caught:
        box.run("true")
    assert str(world.home / ".ssh/gpudev/id_ed25519.pub") in caught.value.hint


def test_a_key_made_just_now_is_accepted(world: World, box: gpudev.Reservation, service: LiveService) -> None:
    answers: list[list[str]] = [[], world.wire_access().accepted_keys]
    tell(service, lambda: msgspec.structs.replace(world.wire_access(), accepted_keys=answers.pop(0)))
    assert box.run("echo in", capture=True).stdout == "in\n"
    assert answers == []


def test_a_missing_program_is_named(box: gpudev.Reservation, monkeypatch: pytest.MonkeyPatch) -> None:
    host = box._host()
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(box, "_host", lambda: host)
    with pytest.raises(gpudev.GpuDevError, match="ssh is not installed on this machine"):
        box.run("true")


def test_gpu_dev_ssh_names_a_missing_program(box: gpudev.Reservation) -> None:
    done = subprocess.run(
        [GPU_DEV, "ssh", "demo", "--", "echo"],
        env={**os.environ, "PATH": "/nowhere"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ssh is not installed on this machine" in done.stderr


def test_no_shell_of_the_user_is_needed(box: gpudev.Reservation, monkeypatch: pytest.MonkeyPatch) -> None:
    """ssh runs the programs of its configuration with SHELL, which names a missing program in a toolbox."""
    monkeypatch.setenv("SHELL", "/usr/bin/nope")
    host = box._host()
    config = host.config.with_name("needs-a-shell")
    config.write_text(f'Match exec true\nMatch all\nInclude "{host.config}"\n')
    monkeypatch.setattr(box, "_host", lambda: dataclasses.replace(host, config=config))
    assert box.run("echo x", capture=True).stdout == "x\n"
    done = subprocess.run(
        [GPU_DEV, "ssh", "demo", "--", "echo x"], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"x\n")


def test_exit_statuses_come_back_where_a_parent_ignores_sigchld(
    box: gpudev.Reservation, tmp_path: Path
) -> None:
    """A program that ignores SIGCHLD hands this on: the command undoes it, the library refuses."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(gpudev.GpuDevError, match=r"ssh was not started: your program ignores SIGCHLD"):
            box.run("exit 3")
        with pytest.raises(gpudev.GpuDevError, match="ignores SIGCHLD"):
            box.upload(tmp_path, "zz/")
    finally:
        signal.signal(signal.SIGCHLD, before)
    ignore = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
    start = " os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", ignore + start, GPU_DEV, "ssh", "demo", "--", "exit 3"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr


@pytest.mark.parametrize("path", ["~other/folder", "~other"])
def test_the_home_of_another_user_is_refused(box: gpudev.Reservation, tmp_path: Path, path: str) -> None:
    with pytest.raises(gpudev.InvalidRequest, match="home of another user") as caught:
        box.upload(tmp_path, path)
    assert f"./{path}" in caught.value.hint
    with pytest.raises(gpudev.InvalidRequest, match="home of another user"):
        box.download(path, tmp_path)


def test_a_reservation_without_a_server_says_so(box: gpudev.Reservation, service: LiveService) -> None:
    service.reserve_as("bob", 8, nodes=2)
    other = gpudev.reserve(8, nodes=2, wait=False)
    with pytest.raises(gpudev.WrongState, match="it is queued"):
        other.run("true")


def test_gpu_dev_ssh_mirrors_the_exit_code(box: gpudev.Reservation) -> None:
    def run(*args: str) -> tuple[int, str]:
        done = subprocess.run(
            [GPU_DEV, "ssh", *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout

    assert run("demo", "--", "echo $CUDA_VISIBLE_DEVICES; exit 7") == (7, "0,1\n")
    assert run("demo", "--", "echo", "a  b", "--json") == (0, "a  b --json\n")
    assert run("nobody", "--", "true")[0] == 3


def test_ssh_finds_what_was_reserved_elsewhere(
    box: gpudev.Reservation, service: LiveService, world: World
) -> None:
    """``ssh`` itself runs ``gpu-dev ssh-sync``: nothing was written before."""
    for file in (world.home / ".ssh" / "gpudev" / "hosts").iterdir():
        file.unlink()
    done = subprocess.run(
        ["ssh", "-F", str(sshfiles.include_path()), "gpu-demo", "echo $CUDA_VISIBLE_DEVICES"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "0,1\n"), done.stderr


def test_ssh_sync_asks_once_in_a_while_and_never_complains(
    box: gpudev.Reservation, service: LiveService
) -> None:
    box.run("true")
    before, began = service.count("GET", "/ssh"), time.monotonic()
    for _ in range(3):
        done = subprocess.run([GPU_DEV, "ssh-sync"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    periods = int((time.monotonic() - began) / ssh.FRESH)
    assert service.count("GET", "/ssh") - before <= 1 + periods
    service.stop()
    try:
        time.sleep(ssh.FRESH)
        done = subprocess.run([GPU_DEV, "ssh-sync"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    finally:
        service.start()


def test_ssh_sync_keeps_the_servers_of_each_configuration_file(
    box: gpudev.Reservation, service: LiveService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A demo user's file, used a moment ago, is asked for with its own address and token."""
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"url": service.url, "token": service.token}))
    monkeypatch.setenv("GPUDEV_CONFIG", str(other))
    program = patient_gpu_dev(tmp_path, monkeypatch)
    assert subprocess.run([program, "ssh-sync"], check=False).returncode == 0
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(sshfiles.folder().parent))
    assert other in ssh.known_accounts()


def test_interrupting_a_command_ends_it_here_and_there(box: gpudev.Reservation, world: World) -> None:
    code = (
        "import gpudev\n"
        "box = gpudev.get('demo')\n"
        "try: box.run('echo $$ > pid; echo started; exec sleep 600')\n"
        "except KeyboardInterrupt: print('interrupted')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "interrupted\n"
    assert process.returncode == 0
    assert not any(map(alive, started(world, "pid")))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_reserving_and_running_in_a_notebook(service: LiveService, world: World) -> None:
    service.run.cluster.kept.add("k1")
    cells = [v4.new_code_cell(cell) for cell in CELLS]  # type: ignore[no-untyped-call]
    notebook = v4.new_notebook(cells=cells)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(world.home)}}).execute(
        env=os.environ | {"IPYTHONDIR": str(world.home / ".ipython")}
    )
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    assert "GPUs: 0,1" in text
    assert "stopping" in text
    shown = [output["data"] for output in outputs if "data" in output]
    assert any("application/vnd.jupyter.widget-view+json" in data for data in shown)
    assert any(data.get("text/plain") == "42" for data in shown)
    assert not [output for output in outputs if output.output_type == "error"]
    service.let_go("k1")
    assert service.ended("k1").outcome == "released"
