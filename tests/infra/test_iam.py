"""The simulator of IAM decides as the IAM User Guide says."""

from __future__ import annotations

from typing import Any

import pytest

from iam import Decision, Request, condition, decide, like

TABLE = "arn:aws:dynamodb:us-east-2:123456789012:table/gpudev-prod"


def policy(**statement: Any) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", **statement}]}


READ = policy(Action=["dynamodb:GetItem", "dynamodb:Query"], Resource=TABLE)


def test_nothing_is_allowed_by_itself() -> None:
    assert decide(Request("dynamodb:GetItem", TABLE)) is Decision.NOT_ALLOWED
    assert decide(Request("dynamodb:GetItem", TABLE), READ) is Decision.ALLOWED
    assert decide(Request("dynamodb:Scan", TABLE), READ) is Decision.NOT_ALLOWED
    assert decide(Request("dynamodb:Query", f"{TABLE}/index/i"), READ) is Decision.NOT_ALLOWED


def test_a_denial_wins_whatever_allows() -> None:
    never = policy(Effect="Deny", Action="dynamodb:*")
    for order in ((READ, never), (never, READ)):
        assert decide(Request("dynamodb:GetItem", TABLE), *order) is Decision.DENIED


def test_actions_and_resources_may_be_excluded() -> None:
    rest = policy(NotAction="iam:*")
    assert decide(Request("s3:GetObject", "*"), rest) is Decision.ALLOWED
    assert decide(Request("IAM:PassRole", "*"), rest) is Decision.NOT_ALLOWED
    other = {"Statement": {"Effect": "Allow", "Action": "dynamodb:Scan", "NotResource": TABLE}}
    assert decide(Request("dynamodb:Scan", f"{TABLE}-2"), other) is Decision.ALLOWED
    assert decide(Request("dynamodb:Scan", TABLE), other) is Decision.NOT_ALLOWED


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("*", "anything:at/all", True),
        ("gate-??????", "gate-a1B2c3", True),
        ("gate-??????", "gate-abcdef-a1B2c3", False),
        ("gate-*", "gates-1", False),
        ("a.c", "abc", False),
        ("table/gpudev", "table/gpudev-prod", False),
    ],
)
def test_wildcards(pattern: str, text: str, fits: bool) -> None:
    assert like(pattern, text) is fits


@pytest.mark.parametrize(
    ("operator", "values", "given", "holds"),
    [
        ("StringEquals", ["a", "b"], "b", True),
        ("StringEquals", ["a"], "A", False),
        ("StringEquals", ["a*"], "ab", False),
        ("StringEquals", ["a"], None, False),
        ("StringEqualsIfExists", ["a"], None, True),
        ("StringEqualsIfExists", ["a"], "b", False),
        ("StringNotEquals", ["a"], "b", True),
        ("StringNotEquals", ["a", "b"], "b", False),
        ("StringNotEquals", ["a"], None, True),
        ("StringLike", ["a*"], "ab", True),
        ("StringNotLike", ["a*"], "ab", False),
        ("Bool", ["false"], "false", True),
        ("Bool", ["false"], "true", False),
        ("Bool", ["false"], None, False),
        ("BoolIfExists", ["true"], None, True),
        ("Null", ["true"], None, True),
        ("Null", ["true"], "a", False),
        ("Null", ["false"], "a", True),
        ("ArnLike", ["arn:aws:logs:*:1:log-group:*"], "arn:aws:logs:eu:1:log-group:a:b", True),
        ("ArnLike", ["arn:aws:logs:*:1:x"], "arn:aws:logs:eu:2:1:x", False),
        ("ArnEquals", ["arn:aws:s3:::*"], "arn:aws:s3:::bucket", True),
    ],
)
def test_conditions(operator: str, values: list[str], given: str | None, holds: bool) -> None:
    context = {} if given is None else {"AWS:Key": given}
    assert condition(operator, "aws:key", values, context) is holds


def test_all_conditions_must_hold() -> None:
    both = policy(Action="s3:*", Condition={"StringEquals": {"aws:a": "1"}, "Bool": {"aws:b": "true"}})
    assert decide(Request("s3:GetObject", "*", {"aws:a": "1"}), both) is Decision.NOT_ALLOWED
    assert decide(Request("s3:GetObject", "*", {"aws:a": "1", "aws:b": "true"}), both) is Decision.ALLOWED


def test_variables_are_those_of_the_request() -> None:
    own = policy(Action="ssm:TerminateSession", Resource="arn:aws:ssm:::session/${aws:userid}-*")
    mine, other = "arn:aws:ssm:::session/alice-1", "arn:aws:ssm:::session/bob-1"
    alice = {"aws:userid": "alice"}
    assert decide(Request("ssm:TerminateSession", mine, alice), own) is Decision.ALLOWED
    assert decide(Request("ssm:TerminateSession", other, alice), own) is Decision.NOT_ALLOWED
    assert decide(Request("ssm:TerminateSession", mine), own) is Decision.NOT_ALLOWED


def test_trust_is_for_its_principals() -> None:
    pods = {"Service": "pods.eks.amazonaws.com"}
    trust = {"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": pods}]}
    for principal, found in (
        (("Service", "pods.eks.amazonaws.com"), Decision.ALLOWED),
        (("Service", "ec2.amazonaws.com"), Decision.NOT_ALLOWED),
        (("AWS", "arn:aws:iam::123456789012:root"), Decision.NOT_ALLOWED),
    ):
        assert decide(Request("sts:AssumeRole", "*", principal=principal), trust) is found


@pytest.mark.parametrize(
    "statement",
    [
        {"Action": "s3:*", "Condition": {"NumericLessThan": {"s3:max-keys": "10"}}},
        {"Action": "s3:*", "Condition": {"ForAnyValue:StringEquals": {"aws:TagKeys": "a"}}},
        {"Action": "s3:*", "NotPrincipal": "*"},
        {"Action": "s3:*", "Effect": "allow"},
        {"Sid": "NoAction"},
    ],
)
def test_what_is_not_understood_is_refused(statement: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not understood|the effect|no action"):
        decide(Request("s3:GetObject", "*", {"s3:max-keys": "1", "aws:TagKeys": "a"}), policy(**statement))
