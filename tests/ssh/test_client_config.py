"""The user's ``~/.ssh``: our line comes and goes without a trace, and everything else stays his."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from gpudev import clock, ssh, sshfiles, sshinclude, sshkeys
from gpudev.errors import ConfigError, GpuDevError, UnexpectedAnswer
from gpudev.wire import SshAccess, SshHost
from ssh_world import eventually

CA = "@cert-authority * ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tr"


def host(name: str | None = "demo", id: str = "gx1", rank: int = 0, **changes: object) -> SshHost:
    suffix = f"-{rank}" if rank else ""
    values: dict[str, object] = {
        "id": id,
        "name": name,
        "alias": f"gpu-{name or id}{suffix}",
        "rank": rank,
        "host": "127.0.0.1",
        "port": 4022,
        "user": "me",
        "host_key_alias": f"{id}{suffix}",
        "ends_at": None,
    }
    return SshHost(**{**values, **changes})  # type: ignore[arg-type]


def access(*hosts: SshHost, keys: list[str] | None = None, identity: str | None = None) -> SshAccess:
    return SshAccess(known_hosts=CA, hosts=list(hosts), identity_file=identity, accepted_keys=keys or [])


def resolved(name: str, file: Path) -> dict[str, str]:
    """What ssh makes of a name."""
    done = subprocess.run(["ssh", "-GTF", str(file), name], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_from_nothing_and_back_to_nothing(home: Path) -> None:
    ssh.sync(access(host()))
    config = home / ".ssh" / "config"
    assert config.read_text().startswith("Include ")
    assert (mode(home / ".ssh"), mode(config)) == (0o700, 0o600)
    got = resolved("gpu-demo", config)
    assert (got["hostname"], got["port"], got["user"]) == ("127.0.0.1", "4022", "me")
    assert (got["hostkeyalias"], got["stricthostkeychecking"], got["identitiesonly"]) == (
        "gx1",
        "true",
        "yes",
    )
    assert got["userknownhostsfile"].endswith(".known")
    assert resolved("gpu-gx1", config)["port"] == "4022"
    assert resolved("example.org", config)["port"] == "22"
    sshinclude.disable()
    assert not config.exists()


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"\n",
        b"Host work\n  Port 2222\n",
        b"Host work\n  Port 2222",
        b"# no newline, \xff\xfe no UTF-8",
        b"Host work\r\n  Port 2222\r\n",
        b"\n\n\tHost *\n StrictHostKeyChecking no\n User someone\n\n",
        b"Include other/config\nHost *\n  ServerAliveInterval 5\n",
    ],
)
def test_byte_for_byte(home: Path, before: bytes) -> None:
    config = home / ".ssh" / "config"
    config.parent.mkdir(mode=0o700)
    config.write_bytes(before)
    config.chmod(0o640)
    ssh.sync(access(host()))
    assert config.read_bytes().endswith(before)
    if b"\xff" not in before:
        assert resolved("gpu-demo", config)["stricthostkeychecking"] == "true"
    assert mode(config) == 0o640
    ssh.sync(access(host()))
    sshinclude.enable()
    assert config.read_bytes().count(b"gpudev/config") == 1
    sshinclude.disable()
    assert config.read_bytes() == before
    assert mode(config) == 0o640


def test_who_takes_the_line_away_is_left_in_peace(home: Path) -> None:
    config = home / ".ssh" / "config"
    ssh.sync(access())
    config.write_text("Host work\n")
    ssh.sync(access(host()))
    assert config.read_text() == "Host work\n"
    sshinclude.disable()
    ssh.sync(access(host()))
    assert config.read_text() == "Host work\n"
    sshinclude.enable()
    assert config.read_text().endswith("Host work\n")
    assert config.read_text() != "Host work\n"


def test_lines_written_meanwhile_stay(home: Path) -> None:
    config = home / ".ssh" / "config"
    ssh.sync(access())
    with config.open("a") as file:
        file.write("Host work\n")
    sshinclude.disable()
    assert config.read_text() == "Host work\n"


def test_a_link_stays_a_link(home: Path) -> None:
    real = home / "dotfiles" / "ssh-config"
    real.parent.mkdir()
    real.write_text("Host work\n")
    (home / ".ssh").mkdir()
    (home / ".ssh" / "config").symlink_to("../dotfiles/ssh-config")
    ssh.sync(access(host()))
    assert (home / ".ssh" / "config").is_symlink()
    assert real.read_text().startswith("Include ")
    sshinclude.disable()
    assert real.read_text() == "Host work\n"
    assert (home / ".ssh" / "config").is_symlink()
    assert sorted(path.name for path in real.parent.iterdir()) == ["ssh-config"]


def make_config_a_folder(home: Path) -> None:
    (home / ".ssh" / "config").mkdir(parents=True)


def make_config_a_link_to_nowhere(home: Path) -> None:
    (home / ".ssh").mkdir()
    (home / ".ssh" / "config").symlink_to("../dotfiles/ssh/config")


def make_config_a_link_into_a_read_only_place(home: Path) -> None:
    """As Nix and others do; ``/proc`` is read-only for root, too."""
    (home / ".ssh").mkdir()
    (home / ".ssh" / "config").symlink_to("/proc/version")


def make_config_a_pipe(home: Path) -> None:
    """Some password managers do; reading it would wait for them."""
    (home / ".ssh").mkdir()
    os.mkfifo(home / ".ssh" / "config")


CONFIGS = [
    make_config_a_pipe,
    make_config_a_folder,
    make_config_a_link_to_nowhere,
    make_config_a_link_into_a_read_only_place,
]


@pytest.mark.parametrize("make", CONFIGS)
def test_a_config_that_cannot_be_changed_stops_nobody(home: Path, make: Callable[[Path], None]) -> None:
    make(home)
    for _ in range(2):
        written = ssh.sync(access(host()))
        assert resolved("gpu-demo", written.config)["port"] == "4022"
        assert "cannot be changed" in written.problem
        assert "Include gpudev/config" in written.problem or "Include /" in written.problem
        assert "gpu-dev ssh NAME" in written.problem
    with pytest.raises(ConfigError, match="cannot be changed"):
        sshinclude.enable()


def test_a_file_that_ssh_refuses_is_said(home: Path) -> None:
    (home / ".ssh").mkdir(mode=0o700)
    (home / ".ssh" / "config").write_text("Host work\n  User me\n")
    ssh.sync(access(host()))
    sshinclude.check()
    (home / ".ssh" / "config").write_text("\ufeffHost work\n  User me\n")
    sshinclude.enable()
    with pytest.raises(ConfigError, match="Bad configuration option"):
        sshinclude.check()


def make_ssh_a_file(home: Path) -> None:
    (home / ".ssh").write_text("")


def make_ssh_a_link_to_nowhere(home: Path) -> None:
    (home / ".ssh").symlink_to("/proc/nowhere")


def make_ssh_read_only(home: Path) -> None:
    (home / ".ssh").symlink_to("/proc/self")


@pytest.mark.parametrize("make", [make_ssh_a_file, make_ssh_a_link_to_nowhere, make_ssh_read_only])
def test_without_a_folder_of_ours_files_lie_elsewhere(
    home: Path, make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What gpu-dev starts itself works, with a key that needs no folder of ours."""
    make(home)
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    written = ssh.sync(access(host(), identity="/state/key"))
    assert written.config.is_relative_to(runtime)
    assert mode(written.config.parent) == 0o700
    got = resolved("gpu-demo", written.config)
    assert (got["port"], got["stricthostkeychecking"]) == ("4022", "true")
    assert str(runtime) in got["userknownhostsfile"]
    assert "cannot be written" in written.problem
    with pytest.raises(GpuDevError, match="id_ed25519 cannot be created"):
        ssh.sync(access(host()))


def test_a_folder_that_somebody_else_made_ready_is_not_used(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ssh_a_file(home)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "missing"))
    place = ssh.sync(access(host(), identity="/key")).config.parent
    place.chmod(0o755)
    with pytest.raises(ConfigError, match="cannot be written"):
        ssh.sync(access(host(), identity="/key"))
    shutil.rmtree(place)
    place.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="cannot be written"):
        ssh.sync(access(host(), identity="/key"))


@pytest.mark.skipif(os.getuid() != 0, reason="makes files as root in another account's home")
def test_what_root_makes_in_a_home_is_its_owners(home: Path) -> None:
    """A file below ``~/.ssh/config`` that its owner may not read would end every ``ssh``."""
    os.chown(home, 54321, 54321)
    ssh.sync(access(host()))
    made = [home / ".ssh", *(home / ".ssh").rglob("*")]
    assert len(made) > 8
    assert {path.name for path in made if path.stat().st_uid != 54321} <= {".lock"}


@pytest.mark.parametrize("named", ["", ".", "relative"])
def test_a_home_that_is_no_absolute_path_is_the_accounts(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    monkeypatch.setenv("HOME", named)
    assert sshfiles.folder() == Path(pwd.getpwuid(os.getuid()).pw_dir) / ".ssh"
    monkeypatch.delenv("HOME")
    assert sshfiles.folder() == Path(pwd.getpwuid(os.getuid()).pw_dir) / ".ssh"
    monkeypatch.setattr(os, "getuid", lambda: 987654)
    with pytest.raises(ConfigError, match="Set HOME"):
        sshfiles.folder()


@pytest.mark.parametrize(
    "above", [b"Host *\n  StrictHostKeyChecking no\n", b"Include other\n", b"Match all\n", b"Port 3\n"]
)
def test_our_line_comes_first_again(home: Path, above: bytes) -> None:
    """ssh keeps the first value that it finds: what stands above could lead elsewhere."""
    config = home / ".ssh" / "config"
    ssh.sync(access(host()))
    line = config.read_bytes()
    config.write_bytes(b"# mine\n\n" + line)
    ssh.sync(access(host()))
    assert config.read_bytes() == b"# mine\n\n" + line
    config.write_bytes(above + line + b"Host b\n")
    assert ssh.sync(access(host())).problem == ""
    assert config.read_bytes() == line + above + b"Host b\n"
    assert resolved("gpu-demo", config)["stricthostkeychecking"] == "true"
    sshinclude.disable()
    config.write_bytes(above)
    ssh.sync(access(host()))
    assert config.read_bytes() == above


def test_hosts_go_when_reservations_go(home: Path) -> None:
    ssh.sync(access(host(), host("other", "gx2", port=4023)))
    assert resolved("gpu-other", sshfiles.include_path())["port"] == "4023"
    ssh.sync(access(host("other", "gx2", port=4023)))
    assert resolved("gpu-demo", sshfiles.include_path())["hostname"] == "gpu-demo"
    assert resolved("gpu-other", sshfiles.include_path())["port"] == "4023"
    ssh.sync(access())
    assert resolved("gpu-other", sshfiles.include_path())["hostname"] == "gpu-other"
    files = "".join(path.read_text() for path in (home / ".ssh/gpudev").rglob("*.conf"))
    assert "Host gpu" not in files


def test_ranks_of_a_pair(home: Path) -> None:
    ssh.sync(access(host(), host(rank=1, port=4023)))
    assert resolved("gpu-demo-1", sshfiles.include_path())["hostkeyalias"] == "gx1-1"
    assert resolved("gpu-gx1-1", sshfiles.include_path())["port"] == "4023"


def test_accounts_keep_out_of_each_others_way(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("alice", "bob"):
        (home / f"{name}.json").write_text("{}")
    monkeypatch.setenv("GPUDEV_CONFIG", str(home / "alice.json"))
    ssh.sync(access(host("a", "ga")))
    monkeypatch.setenv("GPUDEV_CONFIG", str(home / "bob.json"))
    ssh.sync(access(host("b", "gb", port=4023)))
    assert resolved("gpu-a", sshfiles.include_path())["port"] == "4022"
    assert resolved("gpu-b", sshfiles.include_path())["port"] == "4023"
    assert set(ssh.known_accounts()) == {home / "alice.json", home / "bob.json"}
    ssh.sync(access(), home / "alice.json")
    assert resolved("gpu-a", sshfiles.include_path())["hostname"] == "gpu-a"
    assert resolved("gpu-b", sshfiles.include_path())["port"] == "4023"
    (home / "alice.json").unlink()
    assert ssh.known_accounts() == [home / "bob.json"]
    assert len(list((home / ".ssh/gpudev/hosts").glob("*.conf"))) == 1


def test_one_file_is_one_account_by_whatever_path(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = home / "config.json"
    file.write_text("{}")
    (home / "link").symlink_to(home)
    for path in (file, home / "link" / "config.json", home / "link" / ".." / home.name / "config.json"):
        monkeypatch.setenv("GPUDEV_CONFIG", str(path))
        ssh.sync(access(host()))
        assert ssh.known_accounts() == [file]
    assert len(list((home / ".ssh/gpudev/hosts").glob("*.json"))) == 1


def test_a_pipe_is_an_account_while_it_is_in_use(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(home / "pipe")
    monkeypatch.setenv("GPUDEV_CONFIG", str(home / "pipe"))
    ssh.sync(access(host()))
    assert ssh.known_accounts() == [home / "pipe"]
    monkeypatch.setenv("GPUDEV_CONFIG", str(home / "config.json"))
    assert ssh.known_accounts() == [home / "config.json"]
    assert not list((home / ".ssh/gpudev/hosts").glob("*.conf"))


def test_of_two_of_one_name_the_account_last_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts = [home / f"account-{number}" for number in range(4)]
    for port, account in enumerate(accounts, 4100):
        account.write_text("{}")
        monkeypatch.setenv("GPUDEV_CONFIG", str(account))
        ssh.sync(access(host(port=port)))
        assert resolved("gpu-demo", sshfiles.include_path())["port"] == str(port)
    ssh.sync(access(host(port=4100)), accounts[0])
    assert resolved("gpu-demo", sshfiles.include_path())["port"] == "4103"


@pytest.mark.parametrize("hours", [-30, -1, 1, 30])
def test_nothing_is_decided_by_the_clock(home: Path, hours: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that is wrong in either direction servers stay known, and are asked for as often."""
    end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))
    ssh.sync(access(host(ends_at=end)))
    accounts = ssh.known_accounts()
    shift_clock(monkeypatch, hours * 3600)
    with ssh.asking(accounts, 1) as due:
        assert due == []
    assert ssh.known_accounts() == accounts
    assert resolved("gpu-demo", sshfiles.include_path())["port"] == "4022"
    monkeypatch.setattr(ssh, "FRESH", 0.0)
    with ssh.asking(accounts, 1) as due:
        assert due == accounts


def shift_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """This machine's clock is wrong; the time since it was started is not."""
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + seconds)
    monkeypatch.setattr(
        clock,
        "datetime",
        type("Shifted", (datetime,), {"now": lambda zone: datetime.fromtimestamp(right() + seconds, zone)}),
    )


def program(home: Path, text: str) -> Path:
    path = home / "bin" / "gpu-dev"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path


def test_what_exec_writes_is_read_after_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reservation of a second ago is found, and the command runs for our names alone."""
    calls = home / "calls"
    with_blank = home / "with blank %h"
    with_blank.mkdir()
    made = program(
        with_blank,
        "import pathlib, sys\n"
        f"open({str(calls)!r}, 'a').write(' '.join(sys.argv[1:]) + chr(10))\n"
        f"folder = pathlib.Path({str(home / '.ssh/gpudev/hosts')!r})\n"
        "(folder / 'x.conf').write_text('Host gpu-new\\n  Port 4999\\n')\n",
    )
    monkeypatch.setattr(sys, "executable", str(made.parent / "python"))
    ssh.sync(access())
    config = home / ".ssh" / "config"
    assert resolved("gpu-new", config)["port"] == "4999"
    assert calls.read_text() == "ssh-sync\n"
    assert resolved("example.org", config)["port"] == "22"
    assert resolved("gpux", config)["port"] == "22"
    assert calls.read_text() == "ssh-sync\n"


@pytest.mark.parametrize("text", ["import sys; print('noise'); sys.exit(3)", "raise SystemExit(1)"])
def test_a_failing_sync_keeps_nobody_out(home: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    made = program(home, text)
    monkeypatch.setattr(sys, "executable", str(made.parent / "python"))
    ssh.sync(access(host()))
    assert resolved("gpu-demo", home / ".ssh/config")["port"] == "4022"
    made.unlink()
    assert resolved("gpu-demo", home / ".ssh/config")["port"] == "4022"


def test_names_typed_never_reach_a_shell(home: Path) -> None:
    """No ssh token (%h, %n, …) stands in what ssh hands to a shell."""
    ssh.sync(access(host()))
    (line,) = [one for one in sshfiles.include_path().read_text().splitlines() if "exec" in one]
    assert "%" not in line.replace("%%", "")


@pytest.mark.parametrize(
    "changes",
    [
        {"alias": "gpu-x\n  ProxyCommand id"},
        {"alias": "*"},
        {"alias": "gpu-*"},
        {"alias": "gpu-x other"},
        {"alias": "work"},
        {"host": "-oProxyCommand=id"},
        {"host": "a b"},
        {"host": "%h"},
        {"host": "x" * 300},
        {"user": "me\n"},
        {"user": "-l"},
        {"host_key_alias": "x y"},
        {"port": 0},
        {"port": 70000},
    ],
    ids=str,
)
def test_what_the_service_sends_is_checked(home: Path, changes: dict[str, object]) -> None:
    with pytest.raises(UnexpectedAnswer):
        ssh.sync(access(host(**changes)))  # type: ignore[arg-type]
    assert not list((home / ".ssh").rglob("*.conf"))


@pytest.mark.parametrize(
    "line", ["", "* ssh-ed25519 AAAA", CA + "\nevil ssh-ed25519 AAAA", "@revoked * x AAAA"]
)
def test_a_known_hosts_line_must_be_a_ca(home: Path, line: str) -> None:
    sent = access(host())
    sent.known_hosts = line
    with pytest.raises(UnexpectedAnswer):
        ssh.sync(sent)


def test_an_identity_file_of_the_services(home: Path) -> None:
    ssh.sync(access(host(), identity="/state/keys/al ice/id_ed25519"))
    assert resolved("gpu-demo", sshfiles.include_path())["identityfile"] == "/state/keys/al ice/id_ed25519"
    for bad in ("relative", '/a"\n  ProxyCommand id', "/a\nProxyCommand id"):
        with pytest.raises(UnexpectedAnswer):
            ssh.sync(access(host(), identity=bad))


def key(path: Path, passphrase: str = "", *arguments: str) -> str:
    """A key of the user's; its fingerprint."""
    path.parent.mkdir(exist_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path), *arguments]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    found = sshkeys.fingerprint_of(path)
    assert found is not None
    return found


def test_without_any_key_one_is_made(home: Path) -> None:
    (made,) = sshkeys.choose(home / ".ssh", [])
    assert made == home / ".ssh/gpudev/id_ed25519"
    assert mode(made) == 0o600
    assert sshkeys.choose(home / ".ssh", []) == [made]
    assert sshkeys.usable(made)
    assert not [path.name for path in made.parent.iterdir() if path.name.startswith(".")]


def test_the_users_own_key_if_it_asks_nothing(home: Path) -> None:
    mine = home / ".ssh" / "id_ed25519"
    accepted = key(mine)
    assert sshkeys.choose(home / ".ssh", [accepted]) == [mine]
    other = home / ".ssh" / "id_other"
    assert sshkeys.choose(home / ".ssh", [key(other)]) == [other]
    assert not (home / ".ssh/gpudev").exists()


@pytest.mark.parametrize("form", [[], ["-m", "PEM", "-t", "rsa"]], ids=["openssh", "pem"])
def test_a_passphrase_comes_last(home: Path, form: list[str]) -> None:
    mine = home / ".ssh" / "id_mine"
    accepted = key(mine, "secret", *form)
    assert not sshkeys.usable(mine)
    assert sshkeys.choose(home / ".ssh", [accepted]) == [home / ".ssh/gpudev/id_ed25519", mine]


def open_to_others(mine: Path) -> None:
    mine.chmod(0o644)


def cut_short(mine: Path) -> None:
    mine.write_bytes(mine.read_bytes()[:200])


def emptied(mine: Path) -> None:
    mine.write_bytes(b"")


def beside_another_public_part(mine: Path) -> None:
    key(mine.with_name("id_other"))
    mine.with_name("id_other").replace(mine)


@pytest.mark.parametrize("spoil", [open_to_others, cut_short, emptied, beside_another_public_part])
def test_a_key_that_ssh_cannot_use_comes_last(home: Path, spoil: Callable[[Path], None]) -> None:
    mine = home / ".ssh" / "id_ed25519"
    accepted = key(mine)
    spoil(mine)
    assert sshkeys.choose(home / ".ssh", [accepted]) == [home / ".ssh/gpudev/id_ed25519", mine]


def test_our_own_key_is_repaired(home: Path) -> None:
    made = sshkeys.own_key(home / ".ssh")
    first = sshkeys.fingerprint_of(made)
    assert first is not None
    made.chmod(0o664)
    assert sshkeys.choose(home / ".ssh", [first]) == [made]
    assert mode(made) == 0o600
    made.write_bytes(b"")
    assert sshkeys.choose(home / ".ssh", [first]) == [made]
    assert sshkeys.usable(made)
    assert sshkeys.fingerprint_of(made) != first


def test_without_ssh_keygen_keys_stay(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sshkeys.own_key(home / ".ssh")
    monkeypatch.setenv("PATH", "/nowhere")
    assert sshkeys.own_key(home / ".ssh") == made
    assert made.exists()


def test_a_pipe_among_the_keys_holds_up_nobody(home: Path) -> None:
    mine = home / ".ssh" / "id_ed25519"
    accepted = key(mine)
    os.mkfifo(home / ".ssh" / "a.pub")
    assert sshkeys.choose(home / ".ssh", [accepted]) == [mine]


def test_a_key_in_the_agent_asks_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = home / ".ssh" / "id_mine"
    accepted = key(mine, "secret")
    address = home / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(address)], stdout=subprocess.DEVNULL) as process:
        try:
            eventually(address.exists)
            monkeypatch.setenv("SSH_AUTH_SOCK", str(address))
            assert sshkeys.agent_keys() == set()
            asked = home / "asked"
            asked.write_text("#!/bin/sh\necho secret\n")
            asked.chmod(0o700)
            env = {**os.environ, "SSH_ASKPASS": str(asked), "SSH_ASKPASS_REQUIRE": "force"}
            subprocess.run(["ssh-add", "-q", str(mine)], env=env, check=True, stdin=subprocess.DEVNULL)
            assert sshkeys.agent_keys() == {accepted}
            assert sshkeys.choose(home / ".ssh", [accepted]) == [mine]
            mine.unlink()
            assert sshkeys.choose(home / ".ssh", [accepted]) == [mine], "its public part is enough"
        finally:
            process.terminate()


def due(wait: float = 1.0) -> list[Path]:
    with ssh.asking(ssh.known_accounts(), wait) as accounts:
        return accounts


def test_a_cache_of_seconds(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(due()) == 1
    ssh.sync(access(host()))
    assert due() == []
    monkeypatch.setattr(ssh, "FRESH", 0.0)
    assert len(due()) == 1


def test_who_is_stuck_holds_up_nobody_for_long(home: Path) -> None:
    with ssh.asking(ssh.known_accounts(), 1) as accounts:
        assert len(accounts) == 1
        assert due(0.05) == []


def test_many_at_once_ask_once(home: Path) -> None:
    """Those who come while one asks wait for its answer; if it gets none, nobody asks again at once."""
    # On a busy machine, some of them start later than the period of a few seconds.
    code = (
        "import time\nfrom gpudev import ssh\nssh.FRESH = 60.0\n"
        "with ssh.asking(ssh.known_accounts(), 20) as due:\n"
        "    for _ in due:\n        time.sleep(0.5)\n        print('asked')\n"
    )
    argv = [sys.executable, "-c", code]
    running = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(5)]
    answers = [process.communicate(timeout=30)[0] for process in running]
    assert sorted(answers) == ["", "", "", "", "asked\n"]
