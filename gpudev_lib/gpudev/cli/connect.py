"""``ssh``, ``open`` and ``ssh-config``."""

from __future__ import annotations

import os
import sys
import webbrowser

import click

from gpudev.cli.names import reservation_name
from gpudev.cli.output import connect, echo
from gpudev.errors import WrongState
from gpudev.words import label


@click.command(context_settings={"allow_interspersed_args": False})
@reservation_name
@click.argument("cmd", nargs=-1)
def ssh_command(name: str, cmd: tuple[str, ...]) -> None:
    """Open a shell on a server, or run a command there: `gpu-dev ssh NAME -- CMD`.

    NAME-1 is the second node of a reservation of several nodes.

    One word is a line for the shell there, several are run word for word. The exit status is the command's.
    """
    from gpudev import processes, remote

    if cmd[:1] == ("--",):
        cmd = cmd[1:]
    api = connect().api
    host = remote.find(api, *remote.locate(api, name))
    argv = ["ssh", "-F", str(host.config)]
    if cmd:
        argv += [host.alias, "--", cmd[0] if len(cmd) == 1 else remote.line(cmd)]
    else:
        argv += [host.alias]
    sys.stdout.flush()
    sys.stderr.flush()
    processes.replace(argv)


@click.command()
@reservation_name
def open_command(name: str) -> None:
    """Open JupyterLab in the browser; print its address where there is none."""
    from gpudev import remote

    record = connect().api.reservation(name)
    remote.own(record)
    if record.url is None:
        raise WrongState(
            f"{label(record)} has no JupyterLab to open: it is {record.state}.",
            hint=record.reason or f"Wait for it: gpu-dev wait {label(record)}",
        )
    echo(record.url)
    graphical = sys.platform == "darwin" or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
    if graphical:
        webbrowser.open(record.url)


@click.group()
def ssh_config_command() -> None:
    """Let ssh, scp, rsync and VS Code find gpu-NAME.

    `enable` adds one line to ~/.ssh/config, `disable` takes it away again.
    """


@ssh_config_command.command()
def enable() -> None:
    """Add the line, and write how to reach what you hold now."""
    from gpudev import ssh

    access = connect().api.ssh()
    ssh.enable()
    ssh.sync(access)
    ssh.check()
    echo(f"ssh gpu-NAME works: {ssh.config_path()} includes {ssh.include_path()}.")


@ssh_config_command.command()
def disable() -> None:
    """Take the line away; your file is as it was."""
    from gpudev import ssh

    ssh.disable()
    echo(f"{ssh.config_path()} no longer includes {ssh.include_path()}.")


@ssh_config_command.command()
def show() -> None:
    """Print what ssh is told."""
    from gpudev import ssh

    file = ssh.include_path()
    text = file.read_text("utf-8") if file.exists() else f"# {file} has not been written yet."
    echo(text.removesuffix("\n"))
