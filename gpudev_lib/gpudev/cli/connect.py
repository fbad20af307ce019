"""``ssh``, ``open`` and ``ssh-config``."""

from __future__ import annotations

import sys

import click

from gpudev import clock
from gpudev.cli.browser import graphical, open_page
from gpudev.cli.names import reservation_name
from gpudev.cli.output import connect, echo
from gpudev.errors import Forbidden, GpuDevError, WrongState
from gpudev.words import label, no_server, standing


def _check(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Show which SSH keys of the user open servers, and why others do not; then exit."""
    if not wanted:
        return
    from gpudev import sshfiles, sshinclude, sshkeys

    access = connect().api.ssh()
    here, made = sshkeys.paths(sshfiles.folder()), sshkeys.made_for(access)
    for key in access.accepted_keys:
        # The hub has one key for a demo user: the key that it made.
        where = here.get(key, "not on this machine") if made is None else f"{made} on the machine of the hub"
        echo(f"accepted: {key} ({where})")
    for refused in access.refused_keys:
        echo(f"refused: {refused.key}: {refused.reason}")
    if not access.accepted_keys and access.identity_file is None:
        raise GpuDevError(
            "The hub accepts none of your SSH keys.",
            hint="Add a key to the account that you log in with. On GitHub: Settings, SSH and GPG keys.",
            code="no_key",
        )
    sshkeys.check_made_for(access)
    if sshfiles.config_path().exists():
        sshinclude.check()
    ctx.exit()


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--check",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_check,
    help="Show which of your SSH keys the hub accepts, and exit. NAME is not needed.",
)
@reservation_name
@click.argument("cmd", nargs=-1)
def ssh_command(name: str, cmd: tuple[str, ...]) -> None:
    """Open a shell on a server, or run a command there: `gpu-dev ssh NAME -- CMD`.

    NAME-1 is the second node of a reservation with several nodes.

    A single argument is a command line: the shell on the server runs it. Of several arguments, the first is a
    program, and it gets the others unchanged. `gpu-dev` exits with the status of the command.
    """
    from gpudev import processes, remote

    if cmd[:1] == ("--",):
        cmd = cmd[1:]
    api = connect().api
    host = remote.find(api, *remote.locate(api, name))
    argv = ["ssh", "-F", str(host.config), host.alias]
    if cmd:
        argv += ["--", cmd[0] if len(cmd) == 1 else remote.line(cmd)]
    sys.stdout.flush()
    sys.stderr.flush()
    processes.replace(argv)


@click.command()
@reservation_name
def open_command(name: str) -> None:
    """Open JupyterLab in the browser.

    Also prints its address, for machines without a browser.
    """
    from gpudev import remote

    record = connect().api.reservation(name)
    remote.own(record)
    if record.url is None and record.shared and not record.lab_shared:
        raise Forbidden(
            f"Only {record.owner} can open JupyterLab of {label(record)}: this hub has no separate address "
            "for each user's JupyterLab.",
            hint=f"Use SSH: gpu-dev ssh {label(record)}",
        )
    if record.url is None:
        raise WrongState(
            f"JupyterLab of {label(record)} is not running: {standing(record)}.",
            hint=no_server(record, clock.now()),
        )
    echo(record.url)
    if graphical():
        open_page(record.url)


@click.group()
def ssh_config_command() -> None:
    """Set up `ssh gpu-NAME` for ssh, scp, rsync and VS Code.

    `enable` adds one line to ~/.ssh/config; `disable` removes it.
    """


@ssh_config_command.command()
def enable() -> None:
    """Add the line to ~/.ssh/config.

    Also updates the SSH settings of your servers.
    """
    from gpudev import ssh, sshfiles, sshinclude

    access = connect().api.ssh()
    sshinclude.enable()
    ssh.sync(access)
    sshinclude.check()
    echo(f"`ssh gpu-NAME` is set up: {sshfiles.config_path()} now includes {sshfiles.include_path()}.")


@ssh_config_command.command()
def disable() -> None:
    """Remove the line from ~/.ssh/config. The rest of your file stays unchanged."""
    from gpudev import sshfiles, sshinclude

    sshinclude.disable()
    echo(f"{sshfiles.config_path()} no longer includes {sshfiles.include_path()}.")


@ssh_config_command.command()
def show() -> None:
    """Print the SSH settings that gpu-dev wrote."""
    from gpudev import sshfiles

    file = sshfiles.include_path()
    text = file.read_text("utf-8") if file.exists() else f"# {file} has not been written yet."
    echo(text.removesuffix("\n"))
