"""Routes below ``api/v1/`` about the pool, the caller and the installation."""

from __future__ import annotations

from datetime import date
from typing import Annotated

import msgspec
from msgspec import Meta

from gpudev import wire
from gpudev.wire import API
from gpudev_hub.core.errors import Code, Refused
from gpudev_hub.core.usage import today

from . import present
from .routes import Access, Call, Text, route
from .usage import Range, report, table

Hours = Annotated[float, Meta(description="Hold time to plan for. Default: the default of the service.")]
GroupBy = Annotated[wire.UsageBy, Meta(description="What to group by.")]
Since = Annotated[date, Meta(description="First UTC day, like 2026-11-01. Default: 29 days before `until`.")]
Until = Annotated[date, Meta(description="Last UTC day, included. Default: today.")]
Whose = Annotated[wire.UsageOwner, Meta(description="Whose usage: the caller's, or (operators) everyone's.")]


@route("GET", f"{API}/availability", Code.INVALID_HOURS)
async def availability(call: Call, hours: Hours | None = None) -> wire.Availability:
    """Return what is free now, and when each size could start."""
    hold = call.site.service.policy.default_hold if hours is None else present.millis(hours)
    found = call.site.service.availability(call.person.owner, hold)
    return call.site.presenter.availability(found, hold, call.person)


@route("GET", f"{API}/timeline")
async def timeline(call: Call) -> wire.Timeline:
    """Return the running reservations with their GPUs and ends, and the queue."""
    return call.site.presenter.timeline(call.person)


@route("GET", f"{API}/me")
async def me(call: Call) -> wire.Me:
    """Return who the caller is, and the caller's limits."""
    return call.site.presenter.me(call.person)


@route("GET", f"{API}/usage")
async def usage(
    call: Call,
    by: GroupBy = "day",
    since: Since | None = None,
    until: Until | None = None,
    owner: Whose = "me",
) -> wire.Usage:
    """Return GPU-hours reserved and held, waits, starts and early releases, by UTC day or another group.

    Running reservations count until now. Only operators may ask for all users (`owner=all`).
    """
    days = Range.of(since, until, today(call.site.service.clock.now()))
    return report(call.site.service, call.person, by, days, owner)


@route("GET", f"{API}/usage.csv", media="text/csv")
async def usage_csv(
    call: Call,
    by: GroupBy = "day",
    since: Since | None = None,
    until: Until | None = None,
    owner: Whose = "me",
) -> Text:
    """Return the same as `usage` as CSV, one line per group. Without usage, there is only the header."""
    found = await usage(call, by, since, until, owner)
    name = f"gpudev-usage-{found.since}-{found.until}-by-{found.by}.csv"
    call.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return Text(table(found), "text/csv; charset=utf-8")


@route("GET", f"{API}/ssh")
async def ssh(call: Call) -> wire.SshAccess:
    """Return the servers that the caller can connect to, and how."""
    return await call.site.access.hosts(call.person.owner)


@route("GET", f"{API}/github-check", Code.WRONG_STATE, access=Access.OPERATOR)
async def github_check(call: Call) -> wire.GithubCheck:
    """Check every fact about GitHub that the hub relies on. Takes several requests to GitHub."""
    if call.site.github_check is None:
        raise Refused(
            Code.WRONG_STATE,
            "This hub does not use GitHub: GPUDEV_GITHUB is not set.",
            "See docs/github-app.md for the set-up.",
        )
    found = await call.site.github_check()
    facts = msgspec.convert(found, list[wire.GithubFact], from_attributes=True)
    return wire.GithubCheck(ok=all(one.ok for one in found), facts=facts)


@route("GET", f"{API}/doctor", Code.WRONG_STATE, access=Access.OPERATOR)
async def doctor(call: Call) -> wire.Doctor:
    """Check the installation: database, Hub, cluster, nodes, network policies, bastion and GitHub."""
    if call.site.doctor is None:
        raise Refused(
            Code.WRONG_STATE,
            "This hub runs on one machine, without Kubernetes.",
            "Read /services/gpudev/health/ready instead: it names what does not answer.",
        )
    found = await call.site.doctor()
    facts = msgspec.convert(found, list[wire.DoctorFact], from_attributes=True)
    return wire.Doctor(ok=all(one.ok for one in found), facts=facts)


@route("POST", API + "/nodes/{name}", Code.NOT_FOUND, Code.WRONG_STATE, access=Access.OPERATOR)
async def operate_node(call: Call, name: str, body: wire.NodeRequest) -> None:
    """Drain a node, undrain it, or mark it as lost."""
    if name not in call.site.service.view.nodes:
        known = ", ".join(sorted(call.site.service.view.nodes))
        hint = f"Known nodes: {known}." if known else "There are no nodes."
        raise Refused(Code.NOT_FOUND, f"There is no node {name[:64]!r}.", hint)
    await call.site.service.operate_node(name, body.action, call.person.owner.subject)
