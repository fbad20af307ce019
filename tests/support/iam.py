"""How IAM decides about one request, as far as our own policies need it.

Anything in a policy that is not understood raises ``ValueError``: a condition that nobody evaluates must not
pass for one that holds. Not here: boundaries, organisation and session policies, which only take away.
Source: the IAM User Guide, "Policy evaluation logic" and "IAM JSON policy elements: Condition operators".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias

Policy: TypeAlias = Mapping[str, Any]
Statement: TypeAlias = Mapping[str, Any]


class Decision(Enum):
    """The decision about a request."""

    ALLOWED = "allowed"
    DENIED = "denied by a statement"
    NOT_ALLOWED = "no statement allows it"


@dataclass(frozen=True)
class Request:
    """One call to AWS."""

    action: str
    """``dynamodb:Query``."""
    resource: str
    """ARN of the resource of the call; ``*`` for calls without one."""
    context: Mapping[str, str] = field(default_factory=dict)
    """Condition keys of the call. Keys that it does not have are left out."""
    principal: tuple[str, str] = ("", "")
    """(kind, name) of the caller, for policies of resources and of trust: ``("AWS", "arn:aws:iam::…")``."""


def decide(request: Request, *policies: Policy) -> Decision:
    """Return the decision of these policies together: a denial wins, and nothing is allowed by itself."""
    found = Decision.NOT_ALLOWED
    for statement in statements(policies):
        if applies(statement, request):
            if statement["Effect"] == "Deny":
                return Decision.DENIED
            found = Decision.ALLOWED
    return found


def statements(policies: Iterable[Policy]) -> list[Statement]:
    """Return all statements of policies. Raises ``ValueError`` for what is not understood."""
    found = [each for policy in policies for each in _many(policy["Statement"])]
    for statement in found:
        if unknown := statement.keys() - _ELEMENTS:
            raise ValueError(f"a statement has {', '.join(sorted(unknown))}, which is not understood")
        if statement["Effect"] not in ("Allow", "Deny"):
            raise ValueError(f"a statement has the effect {statement['Effect']!r}")
    return found


_ELEMENTS: Final = {
    "Sid", "Effect", "Principal", "Action", "NotAction", "Resource", "NotResource", "Condition",
}  # fmt: skip


def applies(statement: Statement, request: Request) -> bool:
    """Return whether a statement is about this request, and its conditions hold."""
    return (
        _principal(statement.get("Principal"), request.principal)
        and _element(statement, "Action", request.action.lower(), str.lower)
        and _element(statement, "Resource", request.resource, lambda text: filled(text, request.context))
        and all(
            condition(operator, key, _many(values), request.context)
            for operator, keys in statement.get("Condition", {}).items()
            for key, values in keys.items()
        )
    )


def _principal(wanted: Any, caller: tuple[str, str]) -> bool:
    """Return whether the caller is a principal. Policies of identities name none."""
    if wanted is None or wanted == "*":
        return True
    kind, name = caller
    return any(one in ("*", name) for one in _many(wanted.get(kind, ())))


def _element(statement: Statement, name: str, asked: str, prepare: Callable[[str], str]) -> bool:
    """Return whether ``Action`` or ``Resource`` fits, or its negation. Trust policies have no resource."""
    if name in statement:
        return any(like(prepare(one), asked) for one in _many(statement[name]))
    if f"Not{name}" in statement:
        return not any(like(prepare(one), asked) for one in _many(statement[f"Not{name}"]))
    if name == "Action":
        raise ValueError("a statement names no action")
    return True


def like(pattern: str, text: str) -> bool:
    """Return whether a text matches a pattern: ``*`` is any characters, ``?`` is exactly one."""
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def filled(text: str, context: Mapping[str, str]) -> str:
    """Return a text with its policy variables replaced; one without a value matches nothing."""
    known = {key.lower(): value for key, value in context.items()}
    return re.sub(r"\$\{([^}]+)\}", lambda found: known.get(found[1].lower(), "\0"), text)


def condition(operator: str, key: str, values: Sequence[str], context: Mapping[str, str]) -> bool:
    """Return whether one line of a ``Condition`` holds: one of the values is enough.

    A key that the request does not have fits no positive operator, but every negated one and ``…IfExists``.
    """
    known = {name.lower(): value for name, value in context.items()}
    present = key.lower() in known
    if operator == "Null":
        return present != (values[0].lower() == "true")
    plain = operator.removesuffix("IfExists")
    if plain not in _OPERATORS:
        raise ValueError(f"the condition operator {operator} is not understood")
    compare, negated = _OPERATORS[plain]
    if not present:
        return operator.endswith("IfExists") or negated
    fits = any(compare(filled(one, context), known[key.lower()]) for one in values)
    return fits != negated


def _arn_like(pattern: str, arn: str) -> bool:
    """Compare ARNs part by part. A wildcard matches no colon, except in the last part."""
    wanted, given = pattern.split(":", 5), arn.split(":", 5)
    return len(wanted) == len(given) and all(map(like, wanted, given))


_OPERATORS: Final[Mapping[str, tuple[Callable[[str, str], bool], bool]]] = {
    "StringEquals": (lambda wanted, given: wanted == given, False),
    "StringNotEquals": (lambda wanted, given: wanted == given, True),
    "StringLike": (like, False),
    "StringNotLike": (like, True),
    "ArnLike": (_arn_like, False),
    "ArnNotLike": (_arn_like, True),
    "ArnEquals": (_arn_like, False),
    "Bool": (lambda wanted, given: wanted.lower() == given.lower(), False),
}
"""The comparison of an operator, and whether the operator negates it."""


def _many(value: Any) -> list[Any]:
    """Return a list: policies may have a single value instead."""
    return list(value) if isinstance(value, (list, tuple)) else [value]
