"""Routes for limits below ``api/v1/``."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from gpudev import wire
from gpudev_hub.core.access_model import LimitRule
from gpudev_hub.core.errors import Code
from gpudev_hub.policyfile import limit_values

from . import limit_view, present
from .routes import Access, Call, route

Scope = Annotated[str, Meta(description="`default`, `team:ORG/TEAM` or `person:LOGIN`.")]
GpuType = Annotated[str, Meta(description="The GPU type of the rule. Default: the rule for all types.")]
One = Annotated[wire.LimitName, Meta(description="The only limit to clear. Default: all of the rule.")]
Why = Annotated[wire.Reason, Meta(description="Why they are cleared. The history records it.")]
CODES = (Code.NOT_FOUND, Code.UNKNOWN_GPU_TYPE)


@route("GET", f"{wire.API}/me/limits")
async def my_limits(call: Call) -> wire.Limits:
    """Return every limit of the caller, with what is used and left, and where it comes from."""
    return wire.Limits(limits=call.site.presenter.limits(call.person.owner.subject))


@route("GET", f"{wire.API}/limits", access=Access.OPERATOR)
async def limits(call: Call) -> wire.LimitRules:
    """Return all limits that are set: by operators, and in the policy file."""
    service = call.site.service
    logins = service.limits.people()
    rules = limit_view.ordered(service.view.limits.values()) + list(service.policy.personal.values())
    return wire.LimitRules(
        rules=[limit_view.rule(one, logins) for one in rules],
        base=limit_view.values(service.policy.allowances),
    )


@route("PUT", f"{wire.API}/limits", *CODES, access=Access.OPERATOR)
async def set_limits(call: Call, body: wire.SetLimitsRequest) -> wire.LimitsChanged:
    """Set limits of a scope. Limits that are left out stay as they are. Running servers continue."""
    service = call.site.service
    rule, warnings = await service.limits.set(
        body.scope,
        body.gpu_type,
        limit_values(body.limits),
        call.person.owner.subject,
        present.reason(body.reason),
    )
    return _changed(call, rule, warnings)


@route("DELETE", f"{wire.API}/limits", *CODES, access=Access.OPERATOR)
async def clear_limits(
    call: Call,
    scope: Scope,
    gpu_type: GpuType | None = None,
    limit: One | None = None,
    reason: Why | None = None,
) -> wire.LimitsChanged:
    """Clear limits of a scope: the rule of the next wider scope applies again."""
    names = tuple(name for name, called in limit_view.WIRE_NAMES.items() if called == limit)
    rule, warnings = await call.site.service.limits.clear(
        scope, gpu_type, names, call.person.owner.subject, present.reason(reason)
    )
    return _changed(call, rule, warnings)


def _changed(call: Call, rule: LimitRule | None, warnings: list[str]) -> wire.LimitsChanged:
    logins = call.site.service.limits.people()
    return wire.LimitsChanged(rule=None if rule is None else limit_view.rule(rule, logins), warnings=warnings)
