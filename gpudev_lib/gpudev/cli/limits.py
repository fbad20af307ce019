"""``quota``, and ``admin limits`` for operators."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, get_args

import click

from gpudev import clock, wire, words
from gpudev.cli import tables
from gpudev.cli.names import hours
from gpudev.cli.output import connect, console, echo, emit, json_option, say

TITLES: dict[wire.LimitName, str] = {
    "running_gpus": "GPUs at once",
    "queued_requests": "requests in the queue",
    "hours_per_request": "longest request",
    "hours_with_extensions": "longest reservation with extensions",
    "gpu_hours": "GPU-hours of live reservations",
    "gpu_hours_week": "GPU-hours this week",
    "gpu_hours_month": "GPU-hours this month",
}


@click.command()
@json_option
def quota_command(as_json: bool) -> None:
    """Show your limits: what you use, what is left, and where each limit comes from."""
    found = connect().api.limits()
    if as_json:
        emit(found)
        return
    now = clock.now()
    rows = [_row(one, now) for one in found.limits]
    console().print(tables.plain(("LIMIT", "TYPE", "USED", "OF", "LEFT", "FROM"), rows))


def _row(one: wire.Limit, now: datetime) -> tuple[str, ...]:
    if one.used is None:
        return TITLES[one.name], one.gpu_type or "all", "", words.hours(one.limit), "", _source(one.source)
    used = f"{_number(one.used)} + {_number(one.reserved)} reserved" if one.reserved else _number(one.used)
    left = "" if one.left is None else _number(one.left)
    renews = words.parse_time(one.renews_at)
    if renews is not None:
        left += f", renews {words.clock(renews, now)}"
    return TITLES[one.name], one.gpu_type or "all", used, _number(one.limit), left, _source(one.source)


def _number(value: float) -> str:
    """Return a number with two decimals at most, rounded down: what is left can be asked for."""
    return f"{int(value * 100) / 100:g}"


def _source(scope: str) -> str:
    kind, _, name = scope.partition(":")
    return "your own" if kind == "person" else f"team {name}" if kind == "team" else "default"


@click.group("limits", short_help="Show and change limits of everybody, a team or a user.")
def limits_group() -> None:
    """Show and change the limits of everybody, of a team or of one user (for operators).

    A change takes effect at once. It ends no reservation.
    """


@limits_group.command("show")
@json_option
def show(as_json: bool) -> None:
    """List all limits that are set."""
    found = connect().api.limit_rules()
    if as_json:
        emit(found)
        return
    rows = [("(base)", "all", _values(found.base), "", "")]
    rows += [
        (_scope(rule), rule.gpu_type or "all", _values(rule.limits), rule.set_by, rule.reason)
        for rule in found.rules
    ]
    console().print(tables.plain(("SCOPE", "TYPE", "LIMITS", "SET BY", "REASON"), rows))


def _values(limits: dict[wire.LimitName, float]) -> str:
    return "\n".join(f"{name} {value:g}" for name, value in limits.items())


def _scope(rule: wire.LimitRule) -> str:
    return f"person:{rule.login}" if rule.login else rule.scope


def _limit_options(command: Callable[..., None]) -> Callable[..., None]:
    for name in reversed(get_args(wire.LimitName)):
        kind: Any = hours if name.startswith("hours") else click.IntRange(min=0, max=1_000_000)
        option = f"--{name.replace('_', '-')}"
        title = TITLES[name].replace("this week", "in any week").replace("this month", "in any month")
        command = click.option(option, name, type=kind, help=f"{title[0].upper()}{title[1:]}.")(command)
    return command


@limits_group.command("set")
@click.argument("scope")
@_limit_options
@click.option("--gpu-type", help="Set limits for this GPU type. Default: for all types.")
@click.option("--reason", help="Why. It is recorded in the history.")
@json_option
def set_(scope: str, gpu_type: str | None, reason: str | None, as_json: bool, **limits: Any) -> None:
    """Set limits of SCOPE.

    SCOPE is `default`, `team:ORG/TEAM` or `person:LOGIN`. Limits that you do not give stay as they are.
    """
    body = wire.SetLimitsRequest(
        scope=scope, limits=wire.LimitValues(**limits), gpu_type=gpu_type, reason=reason
    )
    _tell(connect().api.set_limits(body), scope, as_json)


@limits_group.command("clear")
@click.argument("scope")
@click.option("--limit", type=click.Choice(get_args(wire.LimitName)), help="Only this limit. Default: all.")
@click.option("--gpu-type", help="Clear limits for this GPU type. Default: the limits for all types.")
@click.option("--reason", help="Why. It is recorded in the history.")
@json_option
def clear(scope: str, limit: str | None, gpu_type: str | None, reason: str | None, as_json: bool) -> None:
    """Clear limits of SCOPE.

    SCOPE is `default`, `team:ORG/TEAM` or `person:LOGIN`. The limits of the next wider scope apply again.
    """
    _tell(connect().api.clear_limits(scope, gpu_type, limit, reason), scope, as_json)


def _tell(changed: wire.LimitsChanged, scope: str, as_json: bool) -> None:
    if as_json:
        emit(changed)
        return
    if changed.rule is None:
        echo(f"The limits of {scope} are cleared.")
    else:
        where = f" ({changed.rule.gpu_type})" if changed.rule.gpu_type else ""
        echo(f"Limits of {_scope(changed.rule)}{where}: {_values(changed.rule.limits)}".replace("\n", ", "))
    for warning in changed.warnings:
        say(f"Warning: {warning}")
