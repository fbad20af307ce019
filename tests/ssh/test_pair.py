"""Two servers of one reservation: each reaches the other by name, mpirun spans both, nothing is edited."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from all_reduce import ALL_REDUCE
from gpudev_hub.server import gang
from ssh_world import Rank, World

pytestmark = pytest.mark.integration
SHOW = "echo $NODE_RANK $NNODES $CUDA_VISIBLE_DEVICES"
ALL = "0,1,2,3,4,5,6,7"


@pytest.fixture(scope="module")
def pair(world: World) -> list[Rank]:
    return world.start("gp1", gpus=8, nodes=2, name="pair")


def inside(world: World, command: str, rank: str = "gpu-pair") -> subprocess.CompletedProcess[str]:
    """Run in a server, as its user would in a terminal there."""
    return world.run("ssh", rank, command, timeout=60)


@pytest.mark.parametrize("name", ["gp1-1", "pair-1", "gpu-gp1-1", "gpu-pair-1", "rank-1"])
def test_rank_1_from_rank_0_by_name(world: World, pair: list[Rank], name: str) -> None:
    done = inside(world, f"ssh {name} '{SHOW}'")
    assert (done.stdout, done.stderr, done.returncode) == (f"1 2 {ALL}\n", "", 0)


def test_rank_0_from_rank_1(world: World, pair: list[Rank]) -> None:
    assert inside(world, f"ssh gp1 '{SHOW}'", "gpu-pair-1").stdout == f"0 2 {ALL}\n"


def test_each_node_by_what_the_service_calls_it(world: World, pair: list[Rank]) -> None:
    named = [host.alias for host in world.wire_access().hosts if host.id == "gp1"]
    assert named == ["gpu-pair", "gpu-pair-1"]
    assert [inside(world, SHOW, name).stdout for name in named] == [f"0 2 {ALL}\n", f"1 2 {ALL}\n"]


def test_both_ranks_from_outside(world: World, pair: list[Rank]) -> None:
    assert inside(world, SHOW, "gpu-gp1-1").stdout == f"1 2 {ALL}\n"


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
def test_copies_between_ranks(world: World, pair: list[Rank]) -> None:
    done = inside(
        world,
        "echo text > from0 && scp -q from0 gp1-1:by-scp && rsync -a from0 gp1-1:by-rsync"
        " && echo 'put from0 by-sftp' | sftp -q -b - gp1-1 > /dev/null && cat by-scp by-rsync by-sftp",
    )
    assert (done.stdout, done.returncode) == ("text\ntext\ntext\n", 0), done.stderr


def test_the_gangs_key_opens_nothing_else(world: World, pair: list[Rank]) -> None:
    """Neither another server of the same owner, nor this one from outside its machine."""
    (other,) = world.start("gp2")
    try:
        done = inside(
            world,
            f"/usr/bin/ssh -F /dev/null -i {pair[0].folder}/gang_key -o IdentitiesOnly=yes -o BatchMode=yes"
            f" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -p {other.port}"
            " 127.0.0.1 true",
        )
        assert done.returncode == 255
        assert "Permission denied" in done.stderr
    finally:
        world.stop("gp2")
    assert 'from="127.0.0.1,::1"' in (pair[0].folder / "gang_line").read_text()


def test_ranks_reach_each_other_without_the_service(world: World, pair: list[Rank]) -> None:
    env = {**pair[0].env, "NODE_RANK": "0"}
    world.service.stop()
    try:
        done = subprocess.run(
            ["ssh", "gp1-1", SHOW],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        world.service.start()
    assert done.stdout == f"1 2 {ALL}\n", done.stderr


def test_hostfile(world: World, pair: list[Rank]) -> None:
    link = world.home / "hostfile"
    assert link.is_symlink()
    assert link.read_text() == "gp1 slots=8\ngp1-1 slots=8\n"


def test_a_hostfile_of_the_users_own_stays(world: World, pair: list[Rank], tmp_path: Path) -> None:
    (tmp_path / "hostfile").write_text("mine")
    gang._link_hostfile(pair[0].folder, tmp_path)
    gang.cleanup(pair[0].folder, {"HOME": str(tmp_path)})
    assert (tmp_path / "hostfile").read_text() == "mine"


def test_a_hostfile_goes_with_its_pair_only(tmp_path: Path) -> None:
    gang._link_hostfile(tmp_path / "old", tmp_path)
    gang._link_hostfile(tmp_path / "new", tmp_path)
    gang.cleanup(tmp_path / "old", {"HOME": str(tmp_path)})
    assert (tmp_path / "hostfile").readlink() == tmp_path / "new" / "hostfile"
    gang.cleanup(tmp_path / "new", {"HOME": str(tmp_path)})
    assert not (tmp_path / "hostfile").is_symlink()


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="Open MPI is not installed")
def test_mpirun_over_both(world: World, pair: list[Rank]) -> None:
    show = "bash -c 'echo $OMPI_COMM_WORLD_RANK/$OMPI_COMM_WORLD_SIZE node $NODE_RANK'"
    done = inside(world, f"mpirun --hostfile ~/hostfile --map-by ppr:2:node {show}".replace("~", "$HOME"))
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["0/4 node 0", "1/4 node 0", "2/4 node 1", "3/4 node 1"]


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="Open MPI is not installed")
def test_mpi_messages_pass_between_the_ranks(world: World, pair: list[Rank]) -> None:
    (world.home / "sum.py").write_text(ALL_REDUCE)
    # One process for each slot, 16 of them, would starve a small machine.
    done = inside(world, "mpirun --hostfile $HOME/hostfile --map-by ppr:2:node python $HOME/sum.py")
    assert (done.stdout, done.returncode) == ("6 2\n", 0), done.stderr


def test_each_rank_has_its_own_place_for_temporary_files(pair: list[Rank]) -> None:
    folders = {rank.env["TMPDIR"] for rank in pair}
    assert len(folders) == 2
    assert all(os.access(folder, os.W_OK) for folder in folders)


def test_other_hosts_go_by_the_users_own_configuration(world: World, pair: list[Rank]) -> None:
    done = inside(world, "ssh -G example.org; ssh -G gp1-1")
    first, second = re.split(r"^hostname ", done.stdout, flags=re.MULTILINE)[1:]
    assert first.startswith("example.org\nport 22\n")
    assert second.startswith(f"127.0.0.1\nport {pair[1].port}\n")
    assert f"{pair[0].folder}/gang_key" not in first
    assert "id_ed25519\n" in first


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="Open MPI is not installed")
def test_mpirun_on_one_node_alone(world: World) -> None:
    """Where the account is root, Open MPI asks for its consent on a single server too."""
    world.start("gm1", name="alone")
    try:
        done = world.run("ssh", "gpu-alone", "mpirun -np 2 --oversubscribe printenv OMPI_COMM_WORLD_RANK")
    finally:
        world.stop("gm1")
    assert sorted(done.stdout.split()) == ["0", "1"], done.stderr
