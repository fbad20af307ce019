"""Every option of ssh is decided in the docs, and whatever a user's own blocks say, the pinned ones win."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gpudev import ssh, sshblocks, sshfiles, sshkeys
from gpudev.wire import SshAccess, SshBastion, SshClosed, SshHost

DOCS = Path(__file__).parents[2] / "docs" / "ssh.md"
CA = "@cert-authority * ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtra2tra2tra2tra2tra2tra2tra2tra2tra2tra2tr"
ALIASES = {"pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms"}
"""Names of 8.2 that later versions list by a new one."""
ACCUMULATED = {
    "identityfile",
    "certificatefile",
    "localforward",
    "remoteforward",
    "dynamicforward",
    "sendenv",
}

HOSTILE = """\
  AddressFamily inet6
  BindAddress 192.0.2.7
  BindInterface nowhere0
  CanonicalizeHostname always
  CanonicalDomains example.org
  CASignatureAlgorithms rsa-sha2-512
  CertificateFile /nowhere-cert.pub
  CheckHostIP yes
  Ciphers aes128-cbc
  ConnectTimeout 1
  ControlMaster auto
  ControlPath /tmp/shared-by-all
  ControlPersist 60
  ForwardAgent yes
  GlobalKnownHostsFile /etc/other
  HostKeyAlgorithms ssh-rsa
  HostKeyAlias other
  HostName other.example.org
  IdentitiesOnly no
  IdentityFile /other-key
  KexAlgorithms diffie-hellman-group1-sha1
  LocalForward 9999 localhost:9999
  MACs hmac-md5
  NoHostAuthenticationForLocalhost yes
  PasswordAuthentication yes
  Port 4444
  PreferredAuthentications password
  ProxyCommand false
  ProxyJump login.example.org
  PubkeyAcceptedAlgorithms ssh-rsa
  PubkeyAuthentication no
  RemoteCommand tmux
  RequestTTY force
  SendEnv OTHER
  ServerAliveCountMax 1
  ServerAliveInterval 1
  StrictHostKeyChecking no
  UpdateHostKeys yes
  User other
  UserKnownHostsFile /dev/null
  VerifyHostKeyDNS yes
"""
BLOCKS = [
    f"{head}\n{HOSTILE}" for head in ("Host *", "Host gpu-*", "Match all", "Match final all", "Match user me")
]


@pytest.fixture(autouse=True)
def config(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's file. ssh finds a gpu-dev that has nothing new to say."""
    program = home / "bin" / "gpu-dev"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    return home / ".ssh" / "config"


def access(user: str = "me", host: str = "127.0.0.1", port: int = 4022) -> SshAccess:
    names = {"id": "gx1", "name": "demo", "alias": "gpu-demo", "host_key_alias": "gx1"}
    server = SshHost(**names, rank=0, host=host, port=port, user=user, ends_at=None)
    closed = [SshClosed(alias="gpu-big", id="gx2")]
    return SshAccess(known_hosts=CA, hosts=[server], identity_file=None, accepted_keys=[], closed=closed)


def settings(file: Path, name: str = "gpu-demo", program: str = "ssh", *options: str) -> dict[str, list[str]]:
    """What ssh makes of a name: every option with its values."""
    done = subprocess.run(
        [program, "-G", "-F", str(file), *options, name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        option, _, value = line.partition(" ")
        found.setdefault(option.lower(), []).append(value)
    return found


def decisions() -> dict[str, tuple[str, str]]:
    rows = re.findall(
        r"^\| `(\w+)` \| (.+?) \| (.+) \|$", DOCS.read_text().split("<!-- options")[1], re.MULTILINE
    )
    assert [row[0].lower() for row in rows] == sorted(row[0].lower() for row in rows)
    return {option.lower(): (decision, why) for option, decision, why in rows}


def through_bastion() -> SshAccess:
    """The same server, reached through a bastion."""
    found = access(host="10.1.2.3", port=2222)
    found.bastion = SshBastion(
        host="bastion.example.org", port=22, user="jump", host_key_alias="gpudev-bastion"
    )
    return found


def written(*, bastion: bool = False) -> dict[str, str]:
    """What the block of a server sets, by the name that the docs have."""
    found = through_bastion() if bastion else access()
    *_, block = sshblocks.host_blocks(found, Path("/known"), [Path("/key")], True, Path("/s"))
    lines = [line.split(maxsplit=1) for line in block.splitlines()[1:]]
    return {ALIASES.get(option.lower(), option.lower()): value for option, value in lines}


def test_every_option_that_ssh_lists_is_decided(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    listed = set(settings(tmp_path / "empty")) - {"host"}
    assert listed <= set(decisions())


def test_the_table_says_what_is_written() -> None:
    table = decisions()
    pinned = {option for option, (decision, _) in table.items() if decision.startswith("pinned")}
    assert pinned == set(written()) | set(written(bastion=True))
    for option, value in {**sshblocks.PINNED, **sshblocks.DIRECT}.items():
        decision = table[ALIASES.get(option.lower(), option.lower())][0]
        expected = "the default of your ssh" if value.startswith("+") else f"`{value}`"
        assert decision == f"pinned: {expected}"


def test_pinned_options_win_over_every_block_of_the_users(config: Path, home: Path) -> None:
    """In the user's file before we come, above our line later, below it, and in the machine's own file."""
    config.parent.mkdir(mode=0o700)
    config.write_text("\n".join(BLOCKS))
    ssh.sync(access())
    alone = settings(sshfiles.include_path())
    config.write_text("\n".join(BLOCKS) + config.read_text() + "\n".join(BLOCKS))
    ssh.sync(access())
    assert config.read_text().startswith("Include ")
    got = settings(config)
    for option in written():
        if option in alone:
            kept = got[option][: len(alone[option])] if option in ACCUMULATED else got[option]
            assert kept == alone[option], option
    assert "proxyjump" not in got
    assert "proxycommand" not in got
    assert "remotecommand" not in got
    assert got["hostname"] == ["127.0.0.1"]
    assert got["forwardagent"] == ["yes"], "what is not pinned is the user's"
    assert got["controlmaster"] == ["auto"]
    assert got["certificatefile"] == ["/nowhere-cert.pub"]
    other = settings(config, "example.org", "ssh", "-o", "ProxyJump=none")
    assert other["hostname"] == ["other.example.org"]


def test_pinned_options_win_over_every_block_for_the_bastion_too(config: Path, home: Path) -> None:
    """The server is reached through the bastion alone, and the bastion through nothing else."""
    config.parent.mkdir(mode=0o700)
    config.write_text("\n".join(BLOCKS))
    ssh.sync(through_bastion())
    got = settings(config)
    (jump,) = got["proxyjump"]
    assert "proxycommand" not in got
    assert (got["hostname"], got["port"], got["hostkeyalias"]) == (["10.1.2.3"], ["2222"], ["gx1"])
    assert (got["proxyusefdpass"], got["forwardagent"]) == (["no"], ["yes"])
    way = settings(config, jump)
    assert (way["hostname"], way["port"], way["user"]) == (["bastion.example.org"], ["22"], ["jump"])
    assert (way["hostkeyalias"], way["stricthostkeychecking"]) == (["gpudev-bastion"], ["true"])
    assert (way["controlmaster"], way["forwardagent"]) == (["false"], ["no"])
    assert way["identityfile"][0].endswith("gpudev/id_ed25519")
    assert not {"proxyjump", "proxycommand", "remotecommand", "controlpath"} & set(way)
    alone = settings(sshfiles.include_path(), jump)
    for option in sshblocks.PINNED.keys() | sshblocks.GATEWAY.keys():
        name = ALIASES.get(option.lower(), option.lower())
        assert way.get(name) == alone.get(name), option


@pytest.mark.parametrize(
    "change", [{"host": "-oProxyCommand=id"}, {"host": "a b"}, {"user": "$(id)%h"}, {"port": 0}]
)
def test_what_is_no_bastion_is_refused(home: Path, change: dict[str, object]) -> None:
    from gpudev.errors import UnexpectedAnswer

    told = through_bastion()
    for name, value in change.items():
        setattr(told.bastion, name, value)
    with pytest.raises(UnexpectedAnswer):
        ssh.sync(told)


def test_each_account_has_its_own_way() -> None:
    """Two hubs, or two users, on one machine have other keys, and other bastions."""
    names = {
        line
        for known in ("/one", "/two")
        for block in sshblocks.host_blocks(through_bastion(), Path(known), [], False, Path("/s"))
        for line in block.splitlines()
        if "ProxyJump" in line
    }
    assert len(names) == 2


def test_other_hosts_see_nothing_of_ours(config: Path, tmp_path: Path) -> None:
    config.parent.mkdir(mode=0o700)
    config.write_text("Host *\n  Port 2200\n  IgnoreUnknown UseKeychain\n  UseKeychain yes\n")
    shutil.copy(config, tmp_path / "alone")
    ssh.sync(access())
    for name in ("example.org", "gpux", "my-gpu-1"):
        assert settings(config, name) == settings(tmp_path / "alone", name)


def test_a_machine_of_the_users_that_is_called_alike_stays_theirs(config: Path) -> None:
    config.parent.mkdir(mode=0o700)
    config.write_text("Host gpu-box\n  HostName box.example.org\n  ProxyJump login\n")
    ssh.sync(access())
    got = settings(config, "gpu-box")
    assert (got["hostname"], got["proxyjump"], got["port"]) == (["box.example.org"], ["login"], ["22"])


def test_names_that_lead_nowhere_always_say_why(config: Path) -> None:
    config.parent.mkdir(mode=0o700)
    config.write_text("\n".join(BLOCKS))
    ssh.sync(access())
    got = settings(config, "gpu-big")
    (command,) = got["proxycommand"]
    assert re.fullmatch(r".*gpu-dev ssh-why [0-9a-f]{12} gx2", command)
    assert got["loglevel"] in (["QUIET"], ["SILENT"])
    assert (got["controlmaster"], got["proxyusefdpass"]) == (["false"], ["no"])
    assert "controlpath" not in got


def test_no_two_servers_share_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on one machine at other ports, nor at a port that another one had, nor of another account."""
    seen = set()
    with TemporaryDirectory(prefix="gpudev-") as home:  # pytest's own folders are too deep
        monkeypatch.setenv("HOME", home)
        for changed in (access(), access(port=4023), access(host="127.0.0.2"), access(user="other")):
            (path,) = settings(ssh.sync(changed).config)["controlpath"]
            assert Path(path).parent.is_dir()
            assert len(path) <= sshblocks.SOCKET_LONGEST
            seen.add(path)
    assert len(seen) == 4


def test_a_home_too_deep_for_sockets_shares_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / ("deep" * 20)
    monkeypatch.setenv("HOME", str(home))
    assert "controlpath" not in settings(ssh.sync(access()).config)


@pytest.mark.parametrize(
    ("host", "bound"),
    [("127.0.0.1", ["127.0.0.1"]), ("::1", ["::1"]), ("10.1.2.3", None), ("pod.example", None)],
)
def test_a_server_on_this_machine_is_reached_from_it(home: Path, host: str, bound: list[str] | None) -> None:
    assert settings(ssh.sync(access(host=host)).config).get("bindaddress") == bound


@pytest.mark.parametrize(
    "user",
    [
        "me",
        "1001",
        "Jane.Doe@corp.example",
        "jané",
        "CORP\\jane",
        "jane doe",
        "o'neil",
        "host$",
        "a#b",
        "a=b",
        "_x",
    ],
)
def test_accounts_are_told_as_they_are(home: Path, user: str) -> None:
    assert settings(ssh.sync(access(user=user)).config)["user"] == [user]


@pytest.mark.parametrize(
    "user", ["", "-l", "a\n", "a\nb", 'a"b', "a%h", "a${HOME}", "a ", "a\\", "a\\\\b", "\u202e"]
)
def test_what_is_no_account_is_refused(home: Path, user: str) -> None:
    from gpudev.errors import UnexpectedAnswer

    with pytest.raises(UnexpectedAnswer):
        ssh.sync(access(user=user))


def test_the_agent_that_was_asked_for_the_key_is_the_one_that_signs(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`IdentityAgent` of the user's leads to another agent: its keys need not be ours."""
    key = home / ".ssh" / "id_mine"
    key.parent.mkdir()
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(key)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    fingerprint = sshkeys.fingerprint_of(key)
    assert fingerprint is not None
    monkeypatch.setattr(sshkeys, "agent_keys", lambda: {fingerprint})
    told = access()
    told.accepted_keys = [fingerprint]
    got = settings(ssh.sync(told).config)
    assert (got["identityagent"], got["identityfile"]) == (["SSH_AUTH_SOCK"], [str(key)])
    monkeypatch.setattr(sshkeys, "agent_keys", set)
    got = settings(ssh.sync(told).config)
    assert "identityagent" not in got
    assert got["identityfile"][0].endswith("gpudev/id_ed25519")


def test_nothing_but_options_of_8_2_is_written(home: Path) -> None:
    """An option that ssh does not know ends every connection, also to other hosts."""
    known = set(OPTIONS_OF_8_2.split())
    (block,) = sshblocks.host_blocks(access(), Path("/known"), [Path("/key")], True, Path("/s"))
    more = sshblocks.host_blocks(through_bastion(), Path("/known"), [Path("/key")], True, Path("/s"))
    (closed,) = sshblocks.closed_blocks(access().closed, "gpu-dev ssh-why 0")
    used = {line.split()[0].lower() for line in "".join([block, *more, closed]).splitlines()}
    assert used <= known


OPTIONS_OF_8_2 = """
addkeystoagent addressfamily batchmode bindaddress bindinterface canonicaldomains
canonicalizefallbacklocal canonicalizehostname canonicalizemaxdots canonicalizepermittedcnames
casignaturealgorithms certificatefile checkhostip ciphers clearallforwardings compression
connectionattempts connecttimeout controlmaster controlpath controlpersist dynamicforward
enablesshkeysign escapechar exitonforwardfailure fingerprinthash forwardagent forwardx11
forwardx11timeout forwardx11trusted gatewayports globalknownhostsfile hashknownhosts host
hostbasedauthentication hostbasedkeytypes hostkeyalgorithms hostkeyalias hostname identitiesonly
identityagent identityfile ignoreunknown include ipqos kbdinteractiveauthentication
kbdinteractivedevices kexalgorithms localcommand localforward loglevel macs match
nohostauthenticationforlocalhost numberofpasswordprompts passwordauthentication permitlocalcommand
pkcs11provider port preferredauthentications proxycommand proxyjump proxyusefdpass
pubkeyacceptedkeytypes pubkeyauthentication rekeylimit remotecommand remoteforward requesttty
revokedhostkeys securitykeyprovider sendenv serveralivecountmax serveraliveinterval setenv
streamlocalbindmask streamlocalbindunlink stricthostkeychecking syslogfacility tcpkeepalive tunnel
tunneldevice updatehostkeys user userknownhostsfile verifyhostkeydns visualhostkey xauthlocation
"""
