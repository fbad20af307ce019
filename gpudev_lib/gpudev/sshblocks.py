"""The text of our part of ssh's configuration. Everything in it parses with OpenSSH 8.2 and later.

ssh keeps the first value that it finds for an option, and our part stands first. So a block states every
option that must have one value for our servers; ``docs/ssh.md`` has the decision for every option there is.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path

from gpudev.errors import UnexpectedAnswer
from gpudev.wire import SshAccess, SshClosed, SshHost

PINNED: dict[str, str] = {
    "AddressFamily": "any",
    "CanonicalizeHostname": "no",
    "ProxyCommand": "none",
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
    # A plus sign stands for ssh's own default list, whatever the version: what follows is in it already.
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
"""Options that have the same value for all servers."""

CLOSED: dict[str, str] = {
    "CanonicalizeHostname": "no",
    "ProxyUseFdpass": "no",
    "ControlMaster": "no",
    "ControlPath": "none",
    "ConnectTimeout": "20",
    "LogLevel": "QUIET",
}
"""Options of names that lead nowhere now: only ``gpu-dev ssh-why`` speaks, and it is always asked."""

SOCKET_LONGEST = 103 - 17
"""Bytes of a ``ControlPath``: what a socket's address holds on macOS, less what ssh adds for a moment."""

_ALIAS = re.compile(r"gpu-[a-z0-9]+(-[a-z0-9]+)*")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_HOST = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:-]*")
_USER = re.compile(r"(?!-)(?:[^\s\"%\\$]|[ ](?=\S)|\\(?=\w)|\$(?!\{))+")
_KNOWN_HOSTS = re.compile(r"@cert-authority [A-Za-z0-9*?.,!-]+ ([a-z0-9@.-]+) [A-Za-z0-9+/]+={0,2}")


def is_alias(name: str) -> bool:
    """Whether a name is one that ssh knows a server by."""
    return _ALIAS.fullmatch(name) is not None


def known_hosts(access: SshAccess) -> str:
    """The contents of the ``known_hosts`` file: the host CA and nothing else."""
    line = access.known_hosts.strip()
    if not _KNOWN_HOSTS.fullmatch(line):
        raise UnexpectedAnswer(f"The service sent no host CA but {line[:80]!r}.")
    return line + "\n"


def host_blocks(
    access: SshAccess, known_hosts_file: Path, keys: Iterable[Path], agent: bool, sockets: Path
) -> list[str]:
    """One block for each server that can be entered.

    `keys`: what to offer, best first. `agent`: the first of them is in the agent of ``SSH_AUTH_SOCK`` alone.
    `sockets`: the folder for the connections that several sessions share, where the user wants that.
    """
    match = _KNOWN_HOSTS.fullmatch(access.known_hosts.strip())
    authority = match[1] if match else ""
    shared = {
        **PINNED,
        "UserKnownHostsFile": quoted(known_hosts_file),
        "CASignatureAlgorithms": "rsa-sha2-512,rsa-sha2-256" if authority == "ssh-rsa" else authority,
        **({"IdentityAgent": "SSH_AUTH_SOCK"} if agent else {}),
    }
    blocks = []
    for host in access.hosts:
        _check(host)
        # The id always works, whatever the name.
        short = f"gpu-{host.host_key_alias}"
        lines = [
            f"Host {host.alias}" if host.alias == short else f"Host {host.alias} {short}",
            f"  HostName {host.host}",
            f"  Port {host.port}",
            f"  HostKeyAlias {host.host_key_alias}",
            f"  User {quoted(host.user)}",
            *(f"  BindAddress {address}" for address in _bind_addresses(host.host)),
            f"  ControlPath {_control_path(host, sockets)}",
            *(f"  IdentityFile {quoted(key)}" for key in keys),
            *(f"  {option} {value}" for option, value in shared.items()),
        ]
        blocks.append("\n".join(lines) + "\n")
    return blocks


def closed_blocks(closed: Iterable[SshClosed], command: str) -> list[str]:
    """One block for each reservation that can't be entered now: connecting says why, and fails.

    `command` runs ``gpu-dev ssh-why`` for this account; the id is added. The names stand behind ``Match``,
    because editors offer every name that stands behind ``Host``.
    """
    blocks = []
    for one in closed:
        if not _ALIAS.fullmatch(one.alias) or not _NAME.fullmatch(one.id):
            raise UnexpectedAnswer(f"The service sent a reservation called {one.alias[:80]!r}.")
        lines = [
            # Where a block above leads somewhere, the host is called otherwise by now.
            f"Match originalhost {one.alias} host {one.alias}",
            f"  ProxyCommand {command} {one.id}",
            *(f"  {option} {value}" for option, value in CLOSED.items()),
        ]
        blocks.append("\n".join(lines) + "\n")
    return blocks


def quoted(value: Path | str) -> str:
    """A value as ssh's configuration takes it."""
    text = str(value).replace("%", "%%")
    return f'"{text}"' if re.search(r"[\s'#=\\]", text) else text


def _bind_addresses(host: str) -> list[str]:
    """Where the connection starts: a server on this machine is reached from this machine's loopback."""
    try:
        return [host] if ipaddress.ip_address(host).is_loopback else []
    except ValueError:
        return []


def _control_path(host: SshHost, folder: Path) -> str:
    """A socket that no other server, nor another attempt of this one elsewhere, ever shares."""
    about = f"{host.host_key_alias} {host.host} {host.port} {host.user}"
    path = folder / f"mux-{hashlib.sha256(about.encode()).hexdigest()[:16]}"
    return quoted(path) if len(bytes(path)) <= SOCKET_LONGEST else "none"


def _check(host: SshHost) -> None:
    """What the service sends goes into a file that can run programs: let nothing in but names and numbers."""
    fields: list[tuple[str, str, re.Pattern[str]]] = [
        ("alias", host.alias, _ALIAS),
        ("host key alias", host.host_key_alias, _NAME),
        ("host", host.host, _HOST),
        ("user", host.user, _USER),
    ]
    for what, value, pattern in fields:
        if len(value) > 255 or not pattern.fullmatch(value) or not value.isprintable():
            raise UnexpectedAnswer(f"The service sent a server whose {what} is {value[:80]!r}.")
    if not 0 < host.port < 65536:
        raise UnexpectedAnswer(f"The service sent a server at port {host.port}.")
