"""Decisions inside a server: its environment, its log lines, who gets which signal, words about failures."""

from __future__ import annotations

import errno
import json
import os
import pwd
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpudev_hub.server import gang, places, pod, private, processes, sshd
from gpudev_hub.server.agent import Agent
from gpudev_hub.server.logs import LIMIT, Lines, Log, tail
from gpudev_hub.server.part import Part
from hub_users import free_port
from ssh_world import eventually

ACCOUNT = pwd.struct_passwd(("dev", "x", 1000, 1000, "", "/home/dev", "/bin/bash"))
ROOT = Path(__file__).resolve().parent.parent.parent
BOTH = {signal.SIGHUP, signal.SIGTERM}


def spec(**launch: Any) -> dict[str, Any]:
    place = {"node": "node-1", "slots": [0, 1]}
    return {
        "launch": {"id": "g1", "attempt": 2, "image": "default", "allocation": [place], **launch},
        "env": {},
    }


def environment(container: dict[str, str] | None = None, efa: bool = False, **launch: Any) -> dict[str, str]:
    return pod.environment(container or {}, spec(**launch), 0, ACCOUNT, efa)


def test_the_containers_environment_stays_below_the_spawners() -> None:
    asked = spec() | {"env": {"A": "spawner", "B": "spawner"}}
    env = pod.environment({"A": "image", "NCCL_DEBUG": "INFO"}, asked, 0, ACCOUNT, False)
    assert (env["A"], env["B"], env["NCCL_DEBUG"]) == ("spawner", "spawner", "INFO")
    assert (env["HOME"], env["USER"], env["SHELL"]) == ("/home/dev", "dev", "/bin/bash")
    assert (env["GPUDEV_SERVER"], env["NODE_RANK"], env["GPUDEV_NODE"]) == ("g1/2/0", "0", "node-1")


def test_what_a_user_installs_is_found_first_and_apart_for_each_image() -> None:
    env = environment({"PATH": "/opt/conda/bin:/usr/bin"}, image="registry.example/torch:2.7")
    packages = "/home/dev/.local/share/gpudev/registry.example-torch-2.7"
    assert env["PYTHONUSERBASE"] == packages
    assert env["PATH"] == f"{packages}/bin:/home/dev/.local/bin:/opt/conda/bin:/usr/bin"
    assert environment(image="..")["PYTHONUSERBASE"] == "/home/dev/.local/share/gpudev/image"


def test_libfabric_is_told_of_efa_only_where_there_is_some() -> None:
    assert "FI_PROVIDER" not in environment()
    assert environment(efa=True)["FI_PROVIDER"] == "efa"
    assert environment({"FI_PROVIDER": "tcp"}, efa=True)["FI_PROVIDER"] == "tcp"


@pytest.mark.parametrize(("code", "status"), [(0, 0), (3, 3), (127, 127), (-9, 137), (-15, 143)])
def test_exit_status(code: int, status: int) -> None:
    assert pod.exit_status(code) == status


def test_a_full_home_lets_its_user_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """He must get in to make room."""

    def full(**_: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    pod._check_home(tmp_path)


def test_a_home_in_use_is_left_as_it_is(tmp_path: Path) -> None:
    home, skeleton = tmp_path / "home", tmp_path / "skel"
    (skeleton / ".config").mkdir(parents=True)
    (skeleton / ".config" / "a").write_text("a")
    (skeleton / ".bashrc").write_text("new")
    (home / "lost+found").mkdir(parents=True)
    pod.furnish(home, skeleton)
    assert ((home / ".bashrc").read_text(), (home / ".config" / "a").read_text()) == ("new", "a")
    (home / ".config" / "a").unlink()
    (home / ".bashrc").write_text("mine")
    pod.furnish(home, skeleton)
    assert (home / ".bashrc").read_text() == "mine"
    assert not (home / ".config" / "a").exists()


@pytest.mark.parametrize(
    ("handled", "signals"),
    [
        (set(), (signal.SIGHUP, signal.SIGTERM)),
        ({signal.SIGHUP}, (signal.SIGHUP,)),
        ({signal.SIGTERM}, (signal.SIGTERM,)),
        (BOTH, (signal.SIGTERM,)),
    ],
)
def test_a_signal_that_is_handled_is_the_only_one_sent(
    handled: set[signal.Signals], signals: tuple[signal.Signals, ...]
) -> None:
    """A training run that saves itself at SIGTERM must not be killed by a SIGHUP before it has."""
    assert processes.farewell(handled) == signals


def test_what_a_process_handles_is_read_from_the_kernel() -> None:
    program = (
        "import signal; signal.signal(signal.SIGTERM, lambda *_: None); print('up', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert processes.caught(process.pid) == {signal.SIGTERM}
        process.communicate(b"\n")
    assert processes.caught(process.pid) == set()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    yield ends
    for end in ends:
        os.close(end)


def test_lines_are_whole_and_carry_the_name(pipe: tuple[int, int]) -> None:
    lines = Lines("sshd", pipe[1])
    lines.write(b"one\ntw")
    lines.write(b"o\r\n\nthr")
    assert os.read(pipe[0], 1000) == b"sshd| one\nsshd| two\nsshd| \n"
    lines.write(b"x" * 9000)
    pieces = os.read(pipe[0], 20_000).splitlines()
    assert [len(piece) for piece in pieces] == [4006, 4006]
    assert pieces[0].startswith(b"sshd| thrx")


def test_a_log_that_nobody_reads_holds_up_nobody(pipe: tuple[int, int]) -> None:
    lines = Lines("jupyter", pipe[1])
    for _ in range(100):
        lines.write(b"y" * 3000 + b"\n")
    kept = os.read(pipe[0], 1_000_000)
    assert kept.endswith(b"\n")
    assert set(re.findall(rb"^(\w+)\| ", kept, re.MULTILINE)) == {b"jupyter"}


@pytest.mark.parametrize("spoil", ["older is a folder", "folder is gone"])
def test_a_log_that_cannot_continue_in_a_new_file_touches_no_other_file(tmp_path: Path, spoil: str) -> None:
    """A descriptor that it closed would soon be another file's."""
    folder = tmp_path / "logs"
    folder.mkdir()
    log = Log(folder / "jupyter.log")
    if spoil == "folder is gone":
        folder.rename(tmp_path / "moved")
    else:
        (folder / "jupyter.log.1").mkdir()
    log.write(b"x" * LIMIT)
    log.write(b"one more\n")
    others = [(tmp_path / f"other-{n}").open("wb") for n in range(8)]
    log.write(b"y" * LIMIT)
    log.write(b"the end\n")
    for other in others:
        other.write(b"its own")
        other.close()
    assert {path.read_bytes() for path in tmp_path.glob("other-*")} == {b"its own"}
    if spoil != "folder is gone":
        (folder / "jupyter.log.1").rmdir()
        log.write(b"z" * LIMIT)
        assert tail(folder / "jupyter.log", 2).endswith("z")
        assert (folder / "jupyter.log.1").read_bytes() == b"the end\n"


@pytest.mark.timeout(10)
def test_what_is_not_a_file_is_no_log(tmp_path: Path) -> None:
    """Its user can put anything there."""
    (tmp_path / "secret").write_text("not for others")
    os.mkfifo(tmp_path / "pipe.log")
    (tmp_path / "link.log").symlink_to(tmp_path / "secret")
    (tmp_path / "folder.log").mkdir()
    (tmp_path / "folder.log.1").write_text("before\n")
    found = {name: tail(tmp_path / f"{name}.log", 5) for name in ("pipe", "link", "folder", "missing")}
    assert found == {"pipe": "", "link": "", "folder": "before", "missing": ""}


class Heard:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def test_the_last_words_of_a_part_are_heard_before_its_end_is_told() -> None:
    log = Heard()
    part = Part("sshd", ["sh", "-c", "echo first; printf 'last \\033[31mwords'"], dict(os.environ), "/", log)
    output = part.start()
    assert part.pid is not None
    os.waitpid(part.pid, 0)
    part.drain()
    os.close(output)
    assert (log.data, part.last_line()) == (b"first\nlast \x1b[31mwords\n", "last [31mwords")


def agent(folder: Path, jupyter: int | None, sshd_port: int) -> Agent:
    config = {
        "id": "g1",
        "service_url": "http://127.0.0.1:9/",
        "jupyter_url": f"http://127.0.0.1:{jupyter}/user/me/g1/" if jupyter else None,
        "sshd_port": sshd_port,
    }
    (folder / "agent.json").write_text(json.dumps(config))
    (folder / "token").write_text("t")
    return Agent(folder)


def test_the_agent_says_which_part_does_not_answer_and_why(tmp_path: Path) -> None:
    jupyter, ssh = free_port(), free_port()
    subject = agent(tmp_path, jupyter, ssh)
    assert subject._detail((True, True)) == ""
    assert subject._detail((False, True)) == f"no answer from Jupyter (nothing listens on port {jupyter} yet)"
    said = f"sshd ended with exit code 255: Bind to port {ssh} on 0.0.0.0 failed: Address already in use."
    private.write(private.trouble(tmp_path, "sshd"), f"{said}\n")
    assert subject._detail((True, False)) == f"no answer from sshd ({said})"


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", ""])
def test_the_agent_asks_jupyter_from_inside(address: str) -> None:
    """Where the Hub told it to listen may be no address to connect to."""
    env = {"JUPYTERHUB_SERVICE_URL": f"http://{address}:8888/user/me/g1/"}
    assert sshd._jupyter_url(env) == "http://127.0.0.1:8888/user/me/g1/"
    assert sshd._jupyter_url({}) is None


def test_a_child_that_ends_late_writes_into_no_file_of_its_launcher(tmp_path: Path) -> None:
    """The descriptor that its signals woke the launcher by is another file's by then: the record's."""
    script = f"""
import os, signal
from pathlib import Path
from gpudev_hub.server.launcher import Launcher
from gpudev_hub.server.logs import Log
spec = {{"rank": 0, "grace": 0, "home": "/", "env": {{"GPUDEV_SERVER": "{tmp_path.name}/1/0"}}}}
launcher = Launcher(spec, Path("private"), lambda name: Log(Path(name)))
launcher.run()
files = [open(f"file-{{n}}", "wb") for n in range(4)]
os.kill(os.getpid(), signal.SIGCHLD)
print(launcher.exit.code, [file.tell() or os.stat(file.name).st_size for file in files])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "1 [0, 0, 0, 0]\n", done.stderr


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a process of another account")
def test_what_runs_under_sudo_ends_no_other_process_early(tmp_path: Path) -> None:
    """It can't be signalled, and must not cut short those that can."""
    script = f"""
import os, subprocess, time
from pathlib import Path
from gpudev_hub.server.launcher import Exit, Launcher
from gpudev_hub.server.logs import Log
roots = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
spec = {{"rank": 0, "grace": 3, "home": "/", "env": {{"GPUDEV_SERVER": "{tmp_path.name}/1/0"}}}}
launcher = Launcher(spec, Path("private"), lambda name: Log(Path(name)))
saves = "trap 'sleep 0.5; touch saved; exit' TERM; touch up; while :; do sleep 0.1; done"
subprocess.Popen(["sh", "-c", saves])
while not Path("up").exists():
    time.sleep(0.02)
launcher.finish(Exit(0, "told"))
while not launcher._sweep():
    launcher._reap()
    time.sleep(0.02)
print(Path("saved").exists(), roots.pid)
"""
    for above in (tmp_path.parent.parent, tmp_path.parent):
        above.chmod(0o755)
    tmp_path.chmod(0o777)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    saved, roots = done.stdout.split()
    os.kill(int(roots), signal.SIGKILL)
    assert saved == "True", done.stderr


def test_a_home_without_room_starts_a_pair_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it does a single server: its user must get in to make room."""

    def full(*_: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(Path, "symlink_to", full)
    place = {"node": "node-1", "slots": [0]}
    material = {"gang_key": "key", "gang_public": "ssh-ed25519 AAAA"}
    launch = {"id": "g1", "name": "", "allocation": [place, place], "ssh": [material, material]}
    peers = [{"host": "g1.x", "port": 1}, {"host": "g1-1.x", "port": 1}]
    gang.prepare(tmp_path, launch, 0, "me", {"HOME": str(tmp_path / "home")}, peers)
    assert (tmp_path / "hostfile").read_text() == "g1 slots=1\ng1-1 slots=1\n"
    assert "Disk quota exceeded" in capsys.readouterr().err


def test_a_pair_that_is_called_as_one_of_its_ranks() -> None:
    launch = {"id": "g1", "name": "rank-1"}
    assert [gang._names(launch, rank) for rank in (0, 1)] == [
        ["g1", "gpu-g1", "rank-0"],
        ["g1-1", "gpu-g1-1", "rank-1"],
    ]


def test_last_words_without_a_newline_reach_the_log(pipe: tuple[int, int]) -> None:
    part = Part("jupyter", ["printf", "Fatal"], dict(os.environ), "/", Lines("jupyter", pipe[1]))
    part.start()
    assert part.pid is not None
    os.waitpid(part.pid, 0)
    part.drain()
    assert os.read(pipe[0], 100) == b"jupyter| Fatal\n"


def test_a_part_that_can_not_even_be_started_is_tried_ever_more_slowly(tmp_path: Path) -> None:
    part = Part("sshd", [str(tmp_path / "missing")], {}, "/", Log(tmp_path / "log"))
    for pause in (0.2, 0.4, 0.8):
        before = time.monotonic()
        with pytest.raises(FileNotFoundError):
            part.start()
        part.ended()
        assert part.due is not None
        assert before + pause <= part.due <= time.monotonic() + pause


@pytest.mark.parametrize("home", ["missing", "file", "link"])
def test_a_part_starts_whatever_became_of_the_home(tmp_path: Path, home: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("link")
    log = Heard()
    part = Part("sshd", ["pwd"], dict(os.environ), str(tmp_path / home), log)
    part.start()
    assert part.pid is not None
    os.waitpid(part.pid, 0)
    part.drain()
    assert log.data == b"/\n"


def test_the_end_of_a_pair_does_not_depend_on_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its private folder is removed next."""

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    (tmp_path / "hostfile").symlink_to(tmp_path / "private" / "hostfile")
    monkeypatch.setattr(Path, "unlink", read_only)
    gang.cleanup(tmp_path / "private", {"HOME": str(tmp_path)})


def test_two_servers_may_link_the_hostfile_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In containers all of them have the same pid, and the home is the same folder."""
    replace = Path.replace

    def other_first(self: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        gang._link_hostfile(Path("/run/gpudev/private"), tmp_path)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", other_first)
    gang._link_hostfile(Path("/run/gpudev/private"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["hostfile"]
    assert (tmp_path / "hostfile").readlink() == Path("/run/gpudev/private/hostfile")


def test_sockets_have_short_paths_and_temporary_files_no_place_in_memory(tmp_path: Path) -> None:
    """The private folder is in memory in a pod, whose /tmp is its own; on one machine all share /tmp."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
    found = [places.environment(folder, shared=True) for folder in (one, other)]
    assert found[0].keys() == {"XDG_RUNTIME_DIR", "TMUX_TMPDIR", "SCREENDIR", "TMPDIR"}
    assert not set(found[0].values()) & set(found[1].values())
    for name, value in found[0].items():
        assert len(value) <= 40, name
        assert (Path(value).stat().st_mode & 0o777, Path(value).stat().st_uid) == (0o700, os.getuid())
    assert places.environment(one, shared=True) == found[0], "a launcher that comes again finds the same"
    assert "TMPDIR" not in places.environment(other, shared=False)
    for folder in (one, other):
        places.remove(folder)
    assert not any(Path(value).exists() for each in found for value in each.values())


def test_the_image_gives_kernels_all_that_the_client_needs() -> None:
    """``install.sh`` names them, since our own code comes in a later, smaller step."""
    script = (ROOT / "infra/images/server/install.sh").read_text()
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = [re.split("[<>=~]", dependency)[0] for dependency in wanted]
    assert f"        {' '.join(names)}\n" in script.replace("'", "")


def test_an_agent_of_a_rank_without_jupyter_speaks_of_sshd_only(tmp_path: Path) -> None:
    subject = agent(tmp_path, None, free_port())
    assert subject._detail((None, False)).startswith("no answer from sshd (nothing listens on port ")


def test_the_farewell_reaches_a_process_that_saves_its_work(tmp_path: Path) -> None:
    """Handled: one signal, and the time to finish."""
    program = (
        "import pathlib, signal, sys, time\n"
        "def save(*_):\n    pathlib.Path(sys.argv[1]).write_text('saved'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, save)\nprint('up', flush=True)\nwhile True: time.sleep(1)\n"
    )
    saved = tmp_path / "saved"
    with subprocess.Popen([sys.executable, "-c", program, str(saved)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        processes.send([process.pid], *processes.farewell(processes.caught(process.pid)))
        assert process.wait(10) == 0
    eventually(saved.exists)
