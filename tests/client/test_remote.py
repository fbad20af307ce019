"""Commands and copies with a real sshd at the other end, from the library, the CLI and a notebook."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import gpudev
from fake_service import FakeService
from gpudev import ssh
from ssh_world import World

pytestmark = pytest.mark.integration

GPU_DEV = Path(sys.executable).with_name("gpu-dev")
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server that listens, for the reservation that the service will call k1."""
    with pytest.MonkeyPatch.context() as patch, World(tmp_path_factory.mktemp("ssh")) as made:
        patch.setenv("HOME", str(made.home))
        patch.setenv("GPUDEV_CONFIG", str(made.home / ".gpu-dev-config"))
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        made.start("k1", name="demo")
        yield made


@pytest.fixture
def service(world: World, configured: FakeService, monkeypatch: pytest.MonkeyPatch) -> FakeService:
    monkeypatch.setenv("HOME", str(world.home))
    monkeypatch.setenv("GPUDEV_CONFIG", str(world.home / ".gpu-dev-config"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    configured.ssh = world.wire_access
    return configured


@pytest.fixture
def box(service: FakeService) -> gpudev.Reservation:
    return gpudev.reserve(2, name="demo", progress=False)


def test_a_string_goes_to_the_shell_and_a_list_word_for_word(box: gpudev.Reservation) -> None:
    assert box.run("echo $CUDA_VISIBLE_DEVICES | tr , -", capture=True).stdout == "0-1\n"
    assert box.run(["echo", "a  b", "$HOME;'\""], capture=True).stdout == "a  b $HOME;'\"\n"


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


def test_a_command_has_a_time_limit(box: gpudev.Reservation) -> None:
    for capture in (True, False):
        with pytest.raises(subprocess.TimeoutExpired):
            box.run("sleep 60", capture=capture, timeout=2)


def test_files_and_folders_go_there_and_back(box: gpudev.Reservation, world: World, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "x; y").write_bytes(b"\0data")
    box.upload(folder, "there")
    assert (world.home / "there" / "x; y").read_bytes() == b"\0data"
    box.download("there/x; y", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"\0data"
    with pytest.raises(FileNotFoundError):
        box.upload(tmp_path / "nothing")
    with pytest.raises(gpudev.GpuDevError, match="was not copied"):
        box.download("nothing", tmp_path)


def test_a_reservation_without_a_server_says_so(box: gpudev.Reservation, service: FakeService) -> None:
    service.starts = False
    other = gpudev.reserve(2, wait=False)
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
    box: gpudev.Reservation, service: FakeService, world: World
) -> None:
    """``ssh`` itself runs ``gpu-dev ssh-sync``: nothing was written before."""
    for file in (world.home / ".ssh" / "gpudev" / "hosts").iterdir():
        file.unlink()
    done = subprocess.run(
        ["ssh", "-F", str(ssh.include_path()), "gpu-demo", "echo $CUDA_VISIBLE_DEVICES"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "0,1\n"), done.stderr


def test_ssh_sync_asks_once_in_a_while_and_never_complains(
    box: gpudev.Reservation, service: FakeService
) -> None:
    box.run("true")
    before = service.count("GET", "/ssh")
    for _ in range(3):
        done = subprocess.run([GPU_DEV, "ssh-sync"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert service.count("GET", "/ssh") <= before + 1
    service.stop()
    try:
        time.sleep(ssh.FRESH)
        done = subprocess.run([GPU_DEV, "ssh-sync"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    finally:
        service.start()


def test_ssh_sync_keeps_the_servers_of_each_configuration_file(
    box: gpudev.Reservation, service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A demo user's file, used a moment ago, is asked for with its own address and token."""
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"url": service.url, "token": service.token}))
    monkeypatch.setenv("GPUDEV_CONFIG", str(other))
    assert subprocess.run([GPU_DEV, "ssh-sync"], check=False).returncode == 0
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(ssh.folder().parent))
    assert other in ssh.known_accounts()


def test_interrupting_a_command_ends_it_here(box: gpudev.Reservation) -> None:
    code = (
        "import gpudev\n"
        "box = gpudev.get('demo')\n"
        "try: box.run('echo started; exec sleep 60')\n"
        "except KeyboardInterrupt: print('interrupted')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "interrupted\n"
    assert process.returncode == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_notebook_of_first_steps_runs(service: FakeService, world: World) -> None:
    notebook = nbformat.read(NOTEBOOKS / "first-steps.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(world.home)}}).execute(
        env=os.environ | {"IPYTHONDIR": str(world.home / ".ipython")}
    )
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    assert "GPUs: 0,1" in text
    assert "ended" in text
    shown = [output["data"] for output in outputs if "data" in output]
    assert any("application/vnd.jupyter.widget-view+json" in data for data in shown)
    assert any(data.get("text/plain") == "42" for data in shown)
    assert not [output for output in outputs if output.output_type == "error"]
    assert service.only.outcome == "released"
