"""A server's container as user, kubelet and service find it: the real first process, as uid 1000."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gpudev_hub.server import processes
from pod_world import PYTHON, UID, Pod, Pods, within
from ssh_world import eventually

pytestmark = [pytest.mark.integration, pytest.mark.root]

DUMP = f"{PYTHON} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
# What a session has of its own, or a shell sets; what JupyterLab's extension removes when it starts.
OWN = {"GPUDEV_SERVER_FOLDER", "TERM", "PWD", "OLDPWD", "SHLVL", "_", "MAIL", "LS_COLORS"}


@pytest.fixture(scope="module")
def pod(pods: Pods) -> Pod:
    (pod,) = pods.up("gx1", name="demo")
    return pod


def shared(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in OWN and name[:4] != "SSH_"}


def listener(pod: Pod) -> int:
    """sshd itself, below the first process."""
    return next(pid for pid in processes.descendants(pod.first()) if processes.is_sshd(pid))


def test_first_try_as_the_user_in_his_home(pods: Pods, pod: Pod) -> None:
    done = pods.world.run(
        "ssh", "gpu-demo", "id -un; id -u; pwd; echo $NODE_RANK $GPUDEV_NODE $GPUDEV_SERVER"
    )
    assert (done.stdout, done.stderr) == (f"dev\n{UID}\n/home/dev\n0 node-1 gx1/1/0\n", "")


def test_every_kind_of_session_has_the_environment_of_jupyter(pods: Pods, pod: Pod) -> None:
    world = pods.world
    jupyter = json.loads((pod.home / "jupyter-env").read_text())
    sessions = [
        world.run("ssh", "gpu-demo", DUMP),
        world.run("ssh", "-T", "gpu-demo", input=DUMP + "\n"),
        world.run("ssh", "-T", "gpu-demo", "bash", input=DUMP + "\n"),
        world.run("ssh", "-tt", "gpu-demo", DUMP),
    ]
    for done in sessions:
        assert shared(json.loads(done.stdout)) == shared(jupyter), done.stderr
    for name, value in (pod.env | pod.spec["env"]).items():
        if name != "PATH":
            assert jupyter[name] == value
    assert jupyter["PATH"].endswith(pod.env["PATH"])


def test_terminals_have_it_too(pods: Pods, pod: Pod) -> None:
    done = pods.world.run("ssh", "-tt", "gpu-demo", input=f"{DUMP} > ~/terminal-env\nexit\n")
    seen = json.loads((pod.home / "terminal-env").read_text())
    assert shared(seen) == shared(json.loads((pod.home / "jupyter-env").read_text()))
    assert "gpudev demo: 2 simulated GPUs" in done.stdout


def test_a_new_home_gets_what_new_accounts_get_and_the_examples(pods: Pods, pod: Pod) -> None:
    left = {path.name for path in pod.home.iterdir()} - {"jupyter-env", "terminal-env", ".bash_history"}
    given = {"gpu-dev-examples", ".local"}
    assert left == {path.name for path in Path("/etc/skel").iterdir()} | given
    assert (pod.home / "gpu-dev-examples").stat().st_uid == UID
    assert (pod.home / ".bashrc").stat().st_uid == UID


def test_the_service_hears_that_all_of_it_answers(pods: Pods, pod: Pod) -> None:
    eventually(lambda: any(one["jupyter"] and one["sshd"] for one in pods.world.service.reports))


def test_every_line_says_whose_it_is(pod: Pod) -> None:
    pod.says("agent| reported")
    names = {line.split("| ")[0] for line in pod.log().splitlines()}
    assert names == {"launcher", "jupyter", "sshd", "agent"}
    assert "launcher| gx1/1/0 starts on node-1" in pod.log()


def test_no_secret_is_in_the_log_or_readable_for_others(pods: Pods, pod: Pod) -> None:
    launch = pod.spec["launch"]
    assert launch["token"] not in pod.log()
    done = pods.world.run("ssh", "gpu-demo", "find /run/gpudev/private -perm /077 ! -type l")
    assert (done.stdout, done.returncode) == ("", 0)


def test_sshd_that_dies_is_started_again(pods: Pods, pod: Pod) -> None:
    os.kill(listener(pod), signal.SIGKILL)
    pod.says("sshd| sshd ended with exit code -9")
    eventually(lambda: pods.world.run("ssh", "gpu-demo", "true").returncode == 0)
    assert not pod.over()


LOGIN = """
for shell in 'sh -lc' 'bash -lc' 'env -i bash -lc' 'env -i HOME=/home/dev sh -lc'; do
    $shell 'command -v jupyterhub-singleuser; echo $CUDA_VISIBLE_DEVICES $NODE_RANK $GPUDEV_RESERVATION $HOME'
done
CUDA_VISIBLE_DEVICES=1 sh -lc 'echo $CUDA_VISIBLE_DEVICES'
"""


def test_login_shells_have_the_servers_environment_even_if_emptied(pods: Pods) -> None:
    (pod,) = pods.make("gl1")
    pod.env |= {"PATH": f"/opt/gpudev/bin:{pod.env['PATH']}", "CUDA_VISIBLE_DEVICES": "0,1"}
    pod.start()
    pod.says("sshd| Server listening")
    done = pods.world.run("ssh", "gpu-gl1", LOGIN)
    each = ["/opt/gpudev/bin/jupyterhub-singleuser", "0,1 0 gl1 /home/dev"]
    assert done.stdout.splitlines() == [*each * 4, "1"], done.stderr


@pytest.mark.parametrize("terminal", [[], ["-tt"]], ids=["plain", "terminal"])
def test_told_to_end(pods: Pods, terminal: list[str]) -> None:
    """Everybody may save his work, and it is over long before the grace is."""
    (pod,) = pods.up(f"gt{len(terminal)}")
    work = "trap 'echo saved > ~/saved; exit 5' HUP; echo up > ~/working; while :; do sleep 0.1; done"
    argv = ["ssh", "-F", str(pods.world.config), *terminal, f"gpu-{pod.hostname}", work]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as session:
        eventually((pod.home / "working").exists)
        pod.terminate()
        code, said = within(15, pod.ended)
        session.wait(10)
    assert (pod.home / "saved").exists(), pod.log()
    assert (code, said) == (
        0,
        {"code": 0, "reason": "it was asked to stop", "by_user": False, "with_hub": False},
    )


def test_what_does_not_end_is_killed_after_the_grace(pods: Pods) -> None:
    (pod,) = pods.make("gg1")
    pod.spec["grace"] = 1
    pod.start()
    pod.says("sshd| Server listening")
    deaf = "trap '' HUP TERM; echo up > ~/working; while :; do sleep 0.1; done"
    argv = ["ssh", "-F", str(pods.world.config), "gpu-gg1", deaf]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        eventually((pod.home / "working").exists)
        pod.terminate()
        code, said = within(15, pod.ended)
    assert (code, said["code"]) == (0, 0)


def answers(pods: Pods, pod: Pod) -> None:
    """Wait until the agent has seen that Jupyter answers."""
    answered = "test -e /run/gpudev/private/answered"
    eventually(lambda: pods.world.run("ssh", f"gpu-{pod.hostname}", answered).returncode == 0)


def serves(pod: Pod, times: int) -> None:
    eventually(lambda: pod.log().count("Jupyter's stand-in serves") == times)


def ask(pod: Pod, code: str) -> None:
    (pod.home / "exit-code.new").write_text(code)
    (pod.home / "exit-code.new").rename(pod.home / "exit-code")


def test_a_jupyter_that_ends_comes_back_beside_the_sessions(pods: Pods) -> None:
    """Whether it crashes, is killed or ends by an option of its own: only who asks it to ends them all."""
    (pod,) = pods.up("ge1")
    answers(pods, pod)
    work = "echo up > ~/working; cat > ~/heard; echo over > ~/over"
    argv = ["ssh", "-F", str(pods.world.config), "gpu-ge1", work]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, text=True) as session:
        eventually((pod.home / "working").exists)
        for times, (code, what) in enumerate(
            [
                ("3", "ended with exit code 3: the last words of Jupyter"),
                ("-9", "was killed by SIGKILL: the last words of Jupyter"),
                ("0", "ended with exit code 0: the last words of Jupyter"),
            ],
            start=2,
        ):
            ask(pod, code)
            pod.says(f"jupyter| jupyter {what}")
            serves(pod, times)
        answers(pods, pod)
        assert not (pod.home / "over").exists()
        session.communicate("the session goes on")
        assert (pod.home / "heard").read_text() == "the session goes on"
        ask(pod, "asked")
        expected = {"code": 0, "reason": "JupyterLab was shut down from inside", "by_user": True}
        assert pod.ended() == (0, expected | {"with_hub": False})


def no_sshd(pod: Pod) -> None:
    over(pod, "usr/sbin/sshd", "")


def bad_host_key(pod: Pod) -> None:
    pod.spec["launch"]["ssh"][0]["host_key"] = "no key"


def no_jupyter(pod: Pod) -> None:
    pod.spec["jupyter"] = ["jupyterhub-singleuser-of-another-image"]


def broken_jupyter(pod: Pod) -> None:
    pod.spec["jupyter"] = [PYTHON, "-c", "import jupyterlab_of_another_image"]


def foreign_home(pod: Pod) -> None:
    os.chown(pod.home, 0, 0)
    pod.home.chmod(0o755)


def no_account(pod: Pod) -> None:
    (pod.files / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")


def unreadable_spec(pod: Pod) -> None:
    pod.write_spec(json.dumps(pod.spec), 0o400)


def broken_spec(pod: Pod) -> None:
    pod.write_spec("{")


def old_spec(pod: Pod) -> None:
    pod.write_spec(json.dumps({name: value for name, value in pod.spec.items() if name != "peers"}))


def other_rank(pod: Pod) -> None:
    pod.rank = 2


def over(pod: Pod, path: str, text: str) -> None:
    """Another file in the place of the image's."""
    file = pod.files / "over" / path
    file.parent.mkdir(parents=True)
    file.write_text(text)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            no_sshd,
            "sshd could not be started: sshd is not installed (on Debian: apt-get install openssh-server)",
        ),
        (bad_host_key, "sshd could not be started: sshd refuses its configuration: "),
        (
            no_jupyter,
            "JupyterLab is not installed in this image: no jupyterhub-singleuser-of-another-image in ",
        ),
        (
            broken_jupyter,
            "JupyterLab ended with exit code 1: ModuleNotFoundError: No module named 'jupyterlab_of",
        ),
        (
            foreign_home,
            "the home /home/dev cannot be written by uid 1000: Permission denied (it belongs to 0:0",
        ),
        (no_account, "the image has no account for uid 1000"),
        (unreadable_spec, "the server's specification /etc/gpudev/spec.json cannot be read: [Errno 13]"),
        (
            broken_spec,
            "the server's specification /etc/gpudev/spec.json cannot be read: Expecting property name",
        ),
        (old_spec, "the server's specification /etc/gpudev/spec.json lacks peers"),
        (
            other_rank,
            "the server's specification /etc/gpudev/spec.json has no rank 2: its ranks are 0 to 0",
        ),
    ],
)
def test_what_can_not_start_is_named(pods: Pods, spoil: Any, reason: str) -> None:
    (pod,) = pods.make(f"gs-{spoil.__name__.replace('_', '-')}")
    spoil(pod)
    pod.start()
    code, said = pod.ended()
    assert (code, said["code"]) == (1, 1)
    assert said["reason"].startswith(reason), said["reason"]


@pytest.fixture(scope="module")
def pair(pods: Pods) -> list[Pod]:
    """Two ranks that know each other by the names that the cluster's DNS has."""
    pair = pods.make("gp1", name="pair", ranks=2)
    for pod in pair:
        # The names are of this machine, whose real addresses are not to be used.
        pod.spec["env"] |= {"OMPI_MCA_oob_tcp_if_include": "lo", "OMPI_MCA_btl_tcp_if_include": "lo"}
        pod.spec["sshd_port"] = pod.port
        pod.start()
    for pod in pair:
        pod.says("sshd| Server listening")
    return pair


@pytest.mark.parametrize("name", ["gp1-1", "pair-1", "gpu-gp1-1", "gpu-pair-1", "rank-1"])
def test_rank_1_from_rank_0_by_name(pods: Pods, pair: list[Pod], name: str) -> None:
    done = pods.world.run("ssh", "gpu-pair", f"ssh {name} 'hostname; echo $NODE_RANK $NNODES $GPUDEV_NODE'")
    assert (done.stdout, done.stderr) == ("gp1-1\n1 2 node-2\n", "")


def test_rank_0_from_rank_1(pods: Pods, pair: list[Pod]) -> None:
    assert pods.world.run("ssh", "gpu-pair-1", "ssh gp1 hostname").stdout == "gp1\n"


def test_rank_1_has_no_jupyter(pair: list[Pod]) -> None:
    assert "jupyter|" not in pair[1].log()


def test_the_gangs_key_counts_from_everywhere(pods: Pods, pair: list[Pod]) -> None:
    """Pods have addresses of their own, so that it can't be limited to this machine's."""
    line = pods.world.run("ssh", "gpu-pair", "cat /run/gpudev/private/gang_line").stdout
    assert line.startswith("ssh-ed25519 ")


@pytest.mark.parametrize("host", ["gpu-pair", "gpu-pair-1"])
def test_hostfile(pods: Pods, pair: list[Pod], host: str) -> None:
    assert pods.world.run("ssh", host, "cat ~/hostfile").stdout == "gp1 slots=8\ngp1-1 slots=8\n"


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="Open MPI is not installed")
def test_mpirun_over_both(pods: Pods, pair: list[Pod]) -> None:
    run = "mpirun --hostfile ~/hostfile --map-by ppr:2:node printenv NODE_RANK GPUDEV_NODE"
    done = pods.world.run("ssh", "gpu-pair", run, timeout=60)
    assert sorted(done.stdout.split()) == ["0", "0", "1", "1", "node-1", "node-1", "node-2", "node-2"], (
        done.stderr
    )


def test_its_end_leaves_the_hostfile_of_another_pair(pods: Pods, pair: list[Pod]) -> None:
    """The home is shared, and the link the same in all: who ends must not take it from who goes on."""
    other = pods.make("gp2", ranks=2, home=pair[0].home)
    other[0].start()
    other[0].says("sshd| Server listening")
    other[0].terminate()
    assert other[0].ended()[0] == 0
    assert pods.world.run("ssh", "gpu-pair", "cat ~/hostfile").stdout == "gp1 slots=8\ngp1-1 slots=8\n"


def test_a_container_that_is_killed_leaves_no_process(pods: Pods) -> None:
    """Or the tests would leave servers on the machine, for ever and for every other test to meet."""
    (one,) = pods.up("gk1")
    first = one.first()
    one.kill()
    assert processes.start_time(first) is None
