"""The routes of limits, below ``api/v1/``."""

from __future__ import annotations

from gpudev import wire
from gpudev_hub.core.access_model import LimitRule
from gpudev_hub.core.errors import Code

from . import limit_view, present
from .routes import Access, Call, Param, Route


async def my_limits(call: Call) -> wire.Limits:
    """Return every limit of the caller, with what is used and left, and where it comes from."""
    return wire.Limits(limits=call.site.presenter.limits(call.person.owner.subject))


async def limits(call: Call) -> wire.LimitRules:
    """Return all limits that are set: by operators, and in the policy file."""
    service = call.site.service
    logins = service.limits.people()
    rules = limit_view.ordered(service.view.limits.values()) + list(service.policy.personal.values())
    return wire.LimitRules(
        rules=[limit_view.rule(one, logins) for one in rules],
        base=limit_view.values(service.policy.allowances),
    )


async def set_limits(call: Call) -> wire.LimitsChanged:
    """Set limits of a scope. Limits that are left out stay as they are, and nothing that runs ends."""
    body: wire.SetLimitsRequest = call.body
    service = call.site.service
    rule, warnings = await service.limits.set(
        body.scope,
        body.gpu_type,
        limit_view.given(body.limits),
        call.person.owner.subject,
        present.reason(body.reason),
    )
    return _changed(call, rule, warnings)


async def clear_limits(call: Call) -> wire.LimitsChanged:
    """Clear limits of a scope: the next wider rule holds again."""
    asked: wire.LimitName | None = call.query["limit"]
    names = tuple(name for name, called in limit_view.WIRE_NAMES.items() if called == asked)
    rule, warnings = await call.site.service.limits.clear(
        call.query["scope"],
        call.query["gpu_type"],
        names,
        call.person.owner.subject,
        present.reason(call.query["reason"]),
    )
    return _changed(call, rule, warnings)


def _changed(call: Call, rule: LimitRule | None, warnings: list[str]) -> wire.LimitsChanged:
    logins = call.site.service.limits.people()
    return wire.LimitsChanged(rule=None if rule is None else limit_view.rule(rule, logins), warnings=warnings)


_CODES = (Code.NOT_FOUND, Code.UNKNOWN_GPU_TYPE)
LIMIT_ROUTES = [
    Route("GET", f"{wire.API}/me/limits", my_limits, Access.PERSON, answers=wire.Limits),
    Route("GET", f"{wire.API}/limits", limits, Access.OPERATOR, answers=wire.LimitRules),
    Route(
        "PUT",
        f"{wire.API}/limits",
        set_limits,
        Access.OPERATOR,
        answers=wire.LimitsChanged,
        takes=wire.SetLimitsRequest,
        codes=_CODES,
    ),
    Route(
        "DELETE",
        f"{wire.API}/limits",
        clear_limits,
        Access.OPERATOR,
        answers=wire.LimitsChanged,
        query=(
            Param("scope", str, "`default`, `team:ORG/TEAM` or `person:LOGIN`.", required=True),
            Param("gpu_type", str, "The GPU type of the rule. Default: the rule for all types."),
            Param("limit", wire.LimitName, "The only limit to clear. Default: all of the rule."),
            Param("reason", wire.Reason, "Why they are cleared. The history records it."),
        ),
        codes=_CODES,
    ),
]
