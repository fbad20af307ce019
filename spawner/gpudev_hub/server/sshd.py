"""sshd of one rank: all its files, which are in one private folder, and its command line.

``launch`` is the JSON of ``core.gate.Launch``. ``peers`` has one ``{"host", "port"}`` per rank, including
this one: the address of its sshd. With fewer than two peers, no gang key is written. ``env`` must have
``HOME``, ``PATH`` and the marker ``GPUDEV_SERVER``; its ``JUPYTERHUB_SERVICE_URL`` is the address of Jupyter
on rank 0.

Three facts matter when a server ends. sshd overwrites its environment with its title, so its own processes
have no marker (processes in sessions have one). Every connection is a separate session, so no process group
has all of them. The end of the listener does not end the connections.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from . import gang, preflight, private, shells

_ENTER = """\
#!/bin/bash
# Every session starts with this script, which gives it the environment of Jupyter.
folder={folder}
unset LANG # sshd set it for the account's shell, which runs this script
set -a
. "$folder/env"
set +a
cd "$HOME" 2> /dev/null || {{
    printf 'gpudev: your home %s cannot be opened, so this session starts in /\\n' "$HOME" >&2
    cd /
}}
if [ -n "${{SSH_ORIGINAL_COMMAND+x}}" ]; then
    original=$SSH_ORIGINAL_COMMAND
    unset SSH_ORIGINAL_COMMAND
    # Bash reads ~/.bashrc for commands over SSH, unless SHLVL says that it runs inside another shell.
    export SHLVL=2
    exec {quiet} -c "$original"
fi
if ! [ -t 0 ]; then
{no_terminal}    export SHLVL=2
    exec {quiet}
fi
unset SHLVL
[ -e "$HOME/.hushlogin" ] || . "$folder/banner"
[ -f "$HOME/.ssh/rc" ] && timeout 5 /bin/sh "$HOME/.ssh/rc" < /dev/null >&2
exec {interactive}
"""

_NO_TERMINAL = """\
    printf '%s\\n' {problem} >&2
"""

_BANNER = """\
ends=
read -r ends < "$folder/ends"
left=$((ends - EPOCHSECONDS))
printf '\\n  %s\\n' {what}
if ((left > 0)); then
    printf '  Ends at %(%H:%M %Z)T, in %d h %02d min. To extend: %s\\n\\n' \\
        "$ends" $((left / 3600)) $((left / 60 % 60)) {extend}
else
    printf '  The reservation has expired, and this server will end now.\\n\\n'
fi
[ -s "$folder/notice" ] && printf '  %s\\n\\n' "$(< "$folder/notice")"
"""

_KEYS = """\
# sshd runs this script to get the authorized_keys line for a fingerprint. It prints only complete answers of
# the service. Otherwise it exits with 1, and sshd refuses the login.
LC_ALL=C
umask 077
fingerprint=$1
folder={folder}
if [ -r "$folder/gang_fingerprint" ] && [ "$fingerprint" = "$(< "$folder/gang_fingerprint")" ]; then
    printf '%s\\n' "$(< "$folder/gang_line")"
    exit 0
fi
offered=$fingerprint
record() {{
    # For the agent, which ends this connection when the person loses access. The parent of this script's
    # parent is the connection's own sshd, which leads a session. If it has ended, the parent is another
    # process, which must never be ended in its place. Its start time tells it from a later process with the
    # same pid.
    local stat connection files=$folder/sessions
    read -r stat < "/proc/$PPID/stat" || return 1
    stat=(${{stat##*) }})
    connection=${{stat[1]}}
    [ "$connection" = "${{stat[3]}}" ] || return 1
    read -r stat < "/proc/$connection/stat" || return 1
    stat=(${{stat##*) }})
    printf '%s %s %s\\n' "${{stat[19]}}" "$offered" "$1" > "$files/.$$" || return 1
    mv -f "$files/.$$" "$files/$connection"
}} 2> /dev/null
# Record the key before the request: if access ends meanwhile, the agent finds the connection by its key.
record -
fingerprint=${{fingerprint//%/%25}}
fingerprint=${{fingerprint//+/%2B}}
fingerprint=${{fingerprint//\\//%2F}}
fingerprint=${{fingerprint//=/%3D}}
exec 3<> /dev/tcp/{host}/{port} || exit 1
printf 'GET %s?fingerprint=%s HTTP/1.0\\r\\nHost: %s\\r\\nAuthorization: Bearer %s\\r\\n\\r\\n' \\
    {path} "$fingerprint" {netloc} "$(< "$folder/token")" >&3
IFS= read -r status <&3 || exit 1
[[ $status == HTTP/1.[01]' 200 '* ]] || exit 1
length=
while IFS= read -r line <&3; do
    line=${{line%$'\\r'}}
    [ -n "$line" ] || break
    [[ ${{line,,}} == content-length:* ]] && length=${{line#*:}} && length=${{length// /}}
done
[[ $length =~ ^[0-9]+$ ]] || exit 1
((length > 0)) || exit 0
IFS= read -r -N "$length" body <&3 || exit 1
((${{#body}} == length)) || exit 1
if [[ $body =~ \\ subject=([^ ]+) ]]; then
    # If the disk is full, the owner must still be able to log in and free space.
    record "${{BASH_REMATCH[1]}}" || [ "${{BASH_REMATCH[1]}}" = {owner} ] || exit 1
fi
if [[ $body =~ \\ ends=([0-9]+) ]] && [ "${{BASH_REMATCH[1]}}" != "$(< "$folder/ends")" ]; then
    # For the banner of the session that this key is about to open.
    printf '%s\\n' "${{BASH_REMATCH[1]}}" > "$folder/ends.$$" && mv -f "$folder/ends.$$" "$folder/ends"
fi
printf '%s' "$body"
"""

_CONFIG = """\
Port {port}
{listen}HostKey "{folder}/host_ed25519"
HostCertificate "{folder}/host_ed25519-cert.pub"
PidFile none
UsePAM no
AllowUsers {allowed}
PermitRootLogin {root}
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile none
AuthorizedKeysCommand {timeout} 5 /bin/bash "{folder}/keys" %f
AuthorizedKeysCommandUser {user}
RequiredRSASize 2048
MaxAuthTries 20
LoginGraceTime 30
MaxSessions 100
MaxStartups 200:30:400
AllowTcpForwarding yes
AllowAgentForwarding yes
AllowStreamLocalForwarding yes
X11Forwarding no
PermitTTY {tty}
PermitUserEnvironment no
PermitUserRC no
PrintMotd no
PrintLastLog no
ClientAliveInterval 60
ClientAliveCountMax 30
LogLevel VERBOSE
# Without a locale, fish as the account's shell changes characters that are not ASCII.
SetEnv GPUDEV_SERVER={marker} SHLVL=1 "HOME={folder}/void" LANG=C.UTF-8
AcceptEnv GPUDEV_RUN
ForceCommand {enter}
Subsystem sftp {sftp}
"""
# OpenSSH has these penalties, on by default, since 9.8. All users and the agent connect from one address.
_NO_PENALTIES = "PerSourcePenalties no\n"


class SshdUnusable(Exception):
    """sshd cannot run here. The message says why and what to do."""


def prepare(
    folder: Path,
    launch: Mapping[str, Any],
    rank: int,
    port: int,
    env: Mapping[str, str],
    peers: Sequence[Mapping[str, Any]] = (),
    listen: str | None = gang.LOOPBACK,
) -> list[str]:
    """Write the files of this rank's sshd and return its argv. Raises ``SshdUnusable``.

    sshd listens on the address ``listen``; ``None`` means all addresses.
    """
    absent = preflight.missing()
    if absent:
        raise SshdUnusable(f"{absent[0]} is not installed (on Debian: apt-get install openssh-server)")
    if not re.fullmatch(r"/[^\"'\\%\n]*", str(folder)):
        raise SshdUnusable(
            f"OpenSSH does not support a quote, backslash or percent sign in the name of a folder: {folder}"
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    # sshd uses the account's shell only to run `enter`, with a home without start files.
    for name in ("void", "sessions"):
        (folder / name).mkdir(mode=0o700, exist_ok=True)
    material = launch["ssh"][rank]
    problem = preflight.terminal_problem()
    files = {
        "host_ed25519": private.line(material["host_key"]),
        "host_ed25519-cert.pub": private.line(material["host_certificate"]),
        "known_hosts": private.line(launch["known_hosts"]),
        "token": private.line(launch["token"]),
        "env": shells.assignments(env),
        "ends": f"{int(launch['ends_at']) // 1000}\n",
        "banner": _banner(launch, rank),
        "keys": _keys(folder, launch),
        "agent.json": json.dumps(_agent(launch, rank, port, env), indent=1) + "\n",
    }
    for name, text in files.items():
        private.write(folder / name, text)
    private.write(folder / "enter", _enter(folder, env, problem), 0o700)
    if len(peers) > 1:
        gang.prepare(folder, launch, rank, pwd.getpwuid(os.getuid()).pw_name, env, peers)
    program = preflight.program("sshd")
    assert program is not None
    argv = [program, "-D", "-e", "-f", str(folder / "sshd_config")]
    config = _config(folder, port, env, listen, terminal=not problem)
    private.write(folder / "sshd_config", config + _NO_PENALTIES)
    complaint = _complaint(argv)
    if "PerSourcePenalties" in complaint:
        private.write(folder / "sshd_config", config)
        complaint = _complaint(argv)
    if complaint:
        raise SshdUnusable(f"sshd refuses its configuration: {complaint}")
    return argv


def _config(folder: Path, port: int, env: Mapping[str, str], listen: str | None, *, terminal: bool) -> str:
    account = pwd.getpwuid(os.getuid()).pw_name
    return _CONFIG.format(
        port=port,
        listen=f"ListenAddress {listen}\n" if listen else "",
        folder=folder,
        user=f'"{account}"',
        allowed=preflight.account_pattern(account),
        root="prohibit-password" if os.getuid() == 0 else "no",
        timeout=preflight.program("timeout"),
        tty="yes" if terminal else "no",
        marker=env["GPUDEV_SERVER"],
        enter=shlex.quote(str(folder / "enter")),
        sftp=preflight.sftp_server() or "/usr/lib/openssh/sftp-server",
    )


def _complaint(argv: list[str]) -> str:
    """Return the errors of ``sshd -t`` for a configuration; empty if there are none."""
    done = subprocess.run(
        [argv[0], "-t", "-f", argv[-1]], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"


def _banner(launch: Mapping[str, Any], rank: int) -> str:
    place = launch["allocation"][rank]
    count = len(place["slots"])
    gpus = f"{count} {'simulated ' if launch['simulated'] else ''}GPU{'s' if count > 1 else ''}"
    shown = launch["name"] or launch["id"]
    what = f"gpudev {shown}: {gpus} ({', '.join(map(str, place['slots']))}) on {place['node']}"
    if len(launch["allocation"]) > 1:
        what += f", rank {rank} of {len(launch['allocation'])}"
    return _BANNER.format(what=shlex.quote(what), extend=shlex.quote(f"gpu-dev extend {shown} --hours 1"))


def _enter(folder: Path, env: Mapping[str, str], problem: str | None) -> str:
    no_terminal = _NO_TERMINAL.format(problem=shlex.quote(f"gpudev: {problem}")) if problem else ""
    return _ENTER.format(
        folder=shlex.quote(str(folder)),
        no_terminal=no_terminal,
        quiet=shlex.join(shells.quiet(env)),
        interactive=shlex.join(shells.interactive(env)),
    )


def _keys(folder: Path, launch: Mapping[str, Any]) -> str:
    url = urlsplit(launch["service_url"])
    if url.scheme != "http" or not url.hostname:
        raise SshdUnusable(f"keys can be looked up only over plain http, not at {launch['service_url']}")
    return _KEYS.format(
        folder=shlex.quote(str(folder)),
        owner=shlex.quote(quote(str(launch["subject"]), safe=":@")),
        host=url.hostname,
        port=url.port or 80,
        path=shlex.quote(f"{url.path.rstrip('/')}/api/v1/servers/{launch['id']}/keys"),
        netloc=shlex.quote(url.netloc),
    )


def _agent(launch: Mapping[str, Any], rank: int, port: int, env: Mapping[str, str]) -> dict[str, object]:
    """Return the settings of the agent, without the token, which has its own file."""
    return {
        "id": launch["id"],
        "attempt": launch["attempt"],
        "rank": rank,
        "service_url": launch["service_url"],
        "sshd_port": port,
        "jupyter_url": _jupyter_url(env) if rank == 0 else None,
        "marker": env["GPUDEV_SERVER"],
    }


def _jupyter_url(env: Mapping[str, str]) -> str | None:
    """Return the local address of Jupyter, which may listen on all addresses."""
    if not env.get("JUPYTERHUB_SERVICE_URL"):
        return None
    url = urlsplit(env["JUPYTERHUB_SERVICE_URL"])
    return f"{url.scheme}://{gang.LOOPBACK}:{url.port or 80}{url.path}"
