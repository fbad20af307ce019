"""The text of the SSH configuration, valid for OpenSSH 8.2 and later.

ssh uses the first value of an option, and these blocks come first. So each block sets all options that
servers need; ``docs/ssh.md`` explains the choice for every option.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from gpudev.errors import UnexpectedAnswer
from gpudev.wire import SshAccess, SshBastion, SshClosed, SshHost

PINNED: dict[str, str] = {
    "AddressFamily": "any",
    "CanonicalizeHostname": "no",
    "GlobalKnownHostsFile": "/dev/null",
    "StrictHostKeyChecking": "yes",
    "HostKeyAlgorithms": "ssh-ed25519-cert-v01@openssh.com",
    "CheckHostIP": "no",
    "NoHostAuthenticationForLocalhost": "no",
    "VerifyHostKeyDNS": "no",
    "UpdateHostKeys": "no",
    "IdentitiesOnly": "yes",
    "PubkeyAuthentication": "yes",
    "PreferredAuthentications": "publickey",
    # A plus sign means the default list of the ssh version in use, which already has the algorithm.
    "PubkeyAcceptedKeyTypes": "+ssh-ed25519",
    "KexAlgorithms": "+curve25519-sha256",
    "Ciphers": "+aes128-ctr",
    "MACs": "+hmac-sha2-256",
    "RemoteCommand": "none",
    "RequestTTY": "auto",
    "ServerAliveInterval": "30",
    "ServerAliveCountMax": "6",
    "ConnectTimeout": "20",
}
"""Options with the same value for all servers."""

DIRECT: dict[str, str] = {"ProxyCommand": "none"}
"""Options of servers that are reached directly."""

GATEWAY: dict[str, str] = {
    "ProxyCommand": "none",
    # A shared connection keeps the targets that it was opened with, so a later server is refused.
    "ControlMaster": "no",
    "ControlPath": "none",
    # Your agent is for your servers only.
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
}
"""Further options of the bastion."""

CLOSED: dict[str, str] = {
    "CanonicalizeHostname": "no",
    "ProxyUseFdpass": "no",
    "ControlMaster": "no",
    "ControlPath": "none",
    "ConnectTimeout": "20",
    "LogLevel": "QUIET",
}
"""Options of names without a server: ssh always runs ``gpu-dev ssh-why`` and prints nothing itself."""

SOCKET_LONGEST = 103 - 17
"""Most bytes of a ``ControlPath``: the limit of macOS, less what ssh adds for a temporary name."""

ALIAS = re.compile(r"gpu-[a-z0-9]+(-[a-z0-9]+)*")
"""SSH name of a server."""
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_HOST = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:-]*")
_USER = re.compile(r"(?!-)(?:[^\s\"%\\$]|[ ](?=\S)|\\(?=\w)|\$(?!\{))+")
_SAFE = {"alias": ALIAS, "host_key_alias": _NAME, "host": _HOST, "user": _USER}
_KNOWN_HOSTS = re.compile(r"@cert-authority [A-Za-z0-9*?.,!-]+ ([a-z0-9@.-]+) [A-Za-z0-9+/]+={0,2}")


def known_hosts(access: SshAccess) -> str:
    """Return the content of the ``known_hosts`` file: only the host CA."""
    line = access.known_hosts.strip()
    if not _KNOWN_HOSTS.fullmatch(line):
        raise UnexpectedAnswer(f"The service sent an invalid host CA: {line[:80]!r}.")
    return line + "\n"


def host_blocks(
    access: SshAccess, known_hosts_file: Path, keys: Iterable[Path], agent: bool, sockets: Path
) -> list[str]:
    """Return one block for each server that you can connect to.

    `keys`: private keys to offer, best first. `agent`: the first key is only in the agent of
    ``SSH_AUTH_SOCK``. `sockets`: the folder for the sockets of shared connections.
    """
    match = _KNOWN_HOSTS.fullmatch(access.known_hosts.strip())
    authority = match[1] if match else ""
    shared = {
        **PINNED,
        "UserKnownHostsFile": quoted(known_hosts_file),
        "CASignatureAlgorithms": "rsa-sha2-512,rsa-sha2-256" if authority == "ssh-rsa" else authority,
        **({"IdentityAgent": "SSH_AUTH_SOCK"} if agent else {}),
    }
    identity = [f"  IdentityFile {quoted(key)}" for key in keys]
    gateway = access.bastion and _gateway_name(access.bastion, known_hosts_file)
    way = {"ProxyJump": gateway, "ProxyUseFdpass": "no"} if gateway else DIRECT
    blocks = [_gateway_block(access.bastion, gateway, identity, shared)] if access.bastion and gateway else []
    for host in access.hosts:
        _check("server", host)
        # The id always works too.
        short = f"gpu-{host.host_key_alias}"
        lines = [
            f"Host {host.alias}" if host.alias == short else f"Host {host.alias} {short}",
            *_address(host),
            f"  ControlPath {_control_path(host, sockets)}",
            *identity,
            *(f"  {option} {value}" for option, value in {**way, **shared}.items()),
        ]
        blocks.append("\n".join(lines) + "\n")
    return blocks


def _gateway_name(bastion: SshBastion, known_hosts_file: Path) -> str:
    """Return the SSH name of a bastion, different for each account: each has its own keys."""
    about = f"{bastion.host} {bastion.port} {bastion.user} {known_hosts_file}"
    return f"gpudev-bastion-{hashlib.sha256(about.encode()).hexdigest()[:8]}"


def _gateway_block(bastion: SshBastion, name: str, identity: list[str], shared: dict[str, str]) -> str:
    """Return the block of the bastion, with a ``Match`` line: editors offer the names in ``Host`` lines."""
    _check("bastion", bastion)
    lines = [
        f"Match originalhost {name}",
        *_address(bastion),
        *identity,
        *(f"  {option} {value}" for option, value in {**GATEWAY, **shared}.items()),
    ]
    return "\n".join(lines) + "\n"


def closed_blocks(closed: Iterable[SshClosed], command: str) -> list[str]:
    """Return one block for each reservation without a server: connecting prints the reason and fails.

    `command` runs ``gpu-dev ssh-why`` for this account; the id is added. The names are in ``Match`` lines,
    because editors offer all names in ``Host`` lines.
    """
    blocks = []
    for one in closed:
        if not ALIAS.fullmatch(one.alias) or not _NAME.fullmatch(one.id):
            raise UnexpectedAnswer(f"The service sent an invalid reservation name: {one.alias[:80]!r}.")
        lines = [
            # If a block above has a server for this name, `host` no longer matches.
            f"Match originalhost {one.alias} host {one.alias}",
            f"  ProxyCommand {command} {one.id}",
            *(f"  {option} {value}" for option, value in CLOSED.items()),
        ]
        blocks.append("\n".join(lines) + "\n")
    return blocks


def quoted(value: Path | str) -> str:
    """Return a value quoted for the SSH configuration."""
    text = str(value).replace("%", "%%")
    return f'"{text}"' if re.search(r"[\s'#=\\]", text) else text


def _address(target: SshHost | SshBastion) -> list[str]:
    """Return the lines that say where a target is; on the loopback of this machine, with a source address."""
    lines = [
        f"  HostName {target.host}",
        f"  Port {target.port}",
        f"  HostKeyAlias {target.host_key_alias}",
        f"  User {quoted(target.user)}",
    ]
    with suppress(ValueError):  # a name, not an address
        if ipaddress.ip_address(target.host).is_loopback:
            lines.append(f"  BindAddress {target.host}")
    return lines


def _control_path(host: SshHost, folder: Path) -> str:
    """Return a socket path that is unique for this server and this start of it."""
    about = f"{host.host_key_alias} {host.host} {host.port} {host.user}"
    path = folder / f"mux-{hashlib.sha256(about.encode()).hexdigest()[:16]}"
    return quoted(path) if len(bytes(path)) <= SOCKET_LONGEST else "none"


def _check(kind: str, target: SshHost | SshBastion) -> None:
    """Refuse values that are not safe in an SSH configuration, which can run programs."""
    for name, pattern in _SAFE.items():
        value: str | None = getattr(target, name, None)  # a bastion has no alias
        if value is None:
            continue
        if len(value) > 255 or not pattern.fullmatch(value) or not value.isprintable():
            what = name.replace("_", " ")
            raise UnexpectedAnswer(f"The service sent a {kind} with an invalid {what}: {value[:80]!r}.")
    if not 0 < target.port < 65536:
        raise UnexpectedAnswer(f"The service sent a {kind} with an invalid port: {target.port}.")
