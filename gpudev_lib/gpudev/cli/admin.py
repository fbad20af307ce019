"""``admin``: commands for operators that concern the whole hub."""

from __future__ import annotations

import sys

import click

from gpudev import wire
from gpudev.cli import tables
from gpudev.cli.limits import limits_group
from gpudev.cli.output import confirm, connect, console, echo, emit, json_option, say


@click.group()
def admin_command() -> None:
    """Check the hub, access and limits (for operators).

    These commands need an operator token in GPUDEV_TOKEN. Tokens from `gpu-dev login` are not operator
    tokens.
    """


@admin_command.command("github-check", short_help="Check the GitHub App, team, repository and rate limit.")
@json_option
def github_check(as_json: bool) -> None:
    """Check the GitHub App, the team, the repository and the rate limit.

    Exits with 1 if a check fails. Before anyone can log in, run `gpudev-hub github-check` on the machine of
    the service.
    """
    _facts(connect().api.github_check(), as_json=as_json)


@admin_command.command("doctor", short_help="Check the whole installation.")
@json_option
def doctor(as_json: bool) -> None:
    """Check the installation: database, Hub, cluster, nodes, network policies, bastion and GitHub.

    Exits with 1 if a check fails; the line below a failed check says what to do. If the service does not
    answer, run `gpudev-hub doctor` in its pod. For hubs on Kubernetes only.
    """
    _facts(connect().api.doctor(), as_json=as_json)


def _facts(found: wire.GithubCheck | wire.Doctor, *, as_json: bool) -> None:
    """Print every fact, and exit with 1 if one does not hold."""
    if as_json:
        emit(found)
    else:
        for fact in found.facts:
            echo(f"{'ok' if fact.ok else 'FAILED':6}  {fact.name}: {fact.found}")
            if fact.todo:
                echo(f"        {fact.todo}")
    if not found.ok:
        click.get_current_context().exit(1)


@admin_command.command("access", short_help="List who has access, and confirm revocations.")
@click.option(
    "--confirm-revocations",
    is_flag=True,
    help="Revoke the access of everybody listed as held, after GitHub was asked about each of them again.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def access(confirm_revocations: bool, yes: bool, as_json: bool) -> None:
    """List everybody who has logged in with GitHub, and whether they have access.

    If too many people would lose access at once, all of them keep it and are listed as held. Check the team,
    the repository and the GitHub App first. If they are correct, use --confirm-revocations.
    """
    client = connect()
    found = client.api.people()
    if confirm_revocations:
        held = [person for person in found.people if person.held]
        if not held:
            echo("Nobody is listed as held. Nothing was changed.")
            return
        if not yes and sys.stdin.isatty():
            say(f"About to lose access: {', '.join(person.login for person in held)}.")
            if not confirm(f"Revoke the access of {len(held)} people?"):
                echo("Nothing was changed.")
                return
        found = client.api.confirm_revocations([person.subject for person in held])
    if as_json:
        emit(found)
        return
    rows = [
        (
            person.login,
            "held" if person.held else person.access,
            "operator" if person.operator else "",
            person.reason or "",
            person.subject,
        )
        for person in found.people
    ]
    console().print(tables.plain(("LOGIN", "ACCESS", "ROLE", "REASON", "ID"), rows))
    for problem in found.problems:
        say(problem)


admin_command.add_command(limits_group)
