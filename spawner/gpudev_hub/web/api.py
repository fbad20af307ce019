"""The routes below ``api/v1/`` that are not about one reservation: the pool, the caller, the installation."""

from __future__ import annotations

from gpudev import wire
from gpudev_hub.core.errors import Code, Refused

from . import present
from .routes import Access, Call, Param, Route
from .usage import USAGE_ROUTES


async def availability(call: Call) -> wire.Availability:
    """Return what is free now, and when each size could start."""
    hours = call.query["hours"]
    hold = call.site.service.policy.default_hold if hours is None else present.millis(hours)
    found = call.site.service.availability(call.person.owner, hold)
    return call.site.presenter.availability(found, hold, call.person)


async def timeline(call: Call) -> wire.Timeline:
    """Return the running reservations with their GPUs and ends, and the queue."""
    return call.site.presenter.timeline(call.person, call.site.service.clock.now())


async def me(call: Call) -> wire.Me:
    """Return who the caller is, and the caller's limits."""
    return call.site.presenter.me(call.person)


async def github_check(call: Call) -> wire.GithubCheck:
    """Check every fact about GitHub that the hub relies on. Takes several requests to GitHub."""
    if call.site.github_check is None:
        raise Refused(
            Code.WRONG_STATE,
            "This hub does not use GitHub: GPUDEV_GITHUB is not set.",
            "See docs/github-app.md for the set-up.",
        )
    found = await call.site.github_check()
    return wire.GithubCheck(
        ok=all(check.ok for check in found),
        facts=[wire.GithubFact(name=c.name, ok=c.ok, found=c.found, todo=c.todo) for c in found],
    )


async def doctor(call: Call) -> wire.Doctor:
    """Check the installation: database, Hub, cluster, nodes, network policies, bastion and GitHub."""
    if call.site.doctor is None:
        raise Refused(
            Code.WRONG_STATE,
            "This hub runs on one machine, without Kubernetes.",
            "Read /services/gpudev/health/ready instead: it names what does not answer.",
        )
    found = await call.site.doctor()
    return wire.Doctor(
        ok=all(one.ok for one in found),
        facts=[
            wire.DoctorFact(id=one.id, name=one.name, ok=one.ok, found=one.found, todo=one.todo)
            for one in found
        ],
    )


async def ssh(call: Call) -> wire.SshAccess:
    """Return the servers that the caller can connect to, and how."""
    return present.ssh_access(await call.site.access.hosts(call.person.owner))


async def operate_node(call: Call) -> None:
    """Drain a node, undrain it, or mark it as lost."""
    body: wire.NodeRequest = call.body
    name = call.path["name"]
    if name not in call.site.service.view.nodes:
        known = ", ".join(sorted(call.site.service.view.nodes))
        hint = f"Known nodes: {known}." if known else "There are no nodes."
        raise Refused(Code.NOT_FOUND, f"There is no node {name[:64]!r}.", hint)
    await call.site.service.operate_node(name, body.action, call.person.owner.subject)


API_ROUTES = [
    Route(
        "GET",
        f"{wire.API}/availability",
        availability,
        Access.PERSON,
        answers=wire.Availability,
        codes=(Code.INVALID_HOURS,),
        query=(Param("hours", float, "Hold time to plan for. Default: the default of the service."),),
    ),
    Route(
        "GET",
        f"{wire.API}/timeline",
        timeline,
        Access.PERSON,
        answers=wire.Timeline,
    ),
    Route("GET", f"{wire.API}/me", me, Access.PERSON, answers=wire.Me),
    *USAGE_ROUTES,
    Route(
        "GET",
        f"{wire.API}/ssh",
        ssh,
        Access.PERSON,
        answers=wire.SshAccess,
    ),
    Route(
        "GET",
        f"{wire.API}/github-check",
        github_check,
        Access.OPERATOR,
        answers=wire.GithubCheck,
        codes=(Code.WRONG_STATE,),
    ),
    Route(
        "GET",
        f"{wire.API}/doctor",
        doctor,
        Access.OPERATOR,
        answers=wire.Doctor,
        codes=(Code.WRONG_STATE,),
    ),
    Route(
        "POST",
        f"{wire.API}/nodes/{{name}}",
        operate_node,
        Access.OPERATOR,
        takes=wire.NodeRequest,
        codes=(Code.NOT_FOUND, Code.WRONG_STATE),
    ),
]
