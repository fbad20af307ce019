"""What each role may do, and what none may, by the policies that a plan of production has."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from iam import Decision, Policy, Request, decide, statements
from role_rules import PODS, ROLE_RULES, RoleRule, may, secret
from tofu import Json, Tofu
from tofu_plan import planned
from tofu_roles import (
    ACCESS_LOGS,
    ACCOUNT,
    ALARMS,
    EXPORTS,
    HOMES,
    KEY,
    NAME,
    REGION,
    TABLE,
    Policies,
    arn,
    policies_of,
    rendered,
)

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def policies(program: str) -> Policies:
    tofu = Tofu(program, "roles")
    tofu.init("cluster")
    return policies_of(tofu)


def test_statements_are_read_as_the_provider_writes_them(plan: Callable[[str, str], Json]) -> None:
    """Where a plan has both the statements and the text, they must say the same."""
    both = [
        (each.address, rendered(each.values), json.loads(each.values["json"]))
        for each in planned(plan("cluster", "prod"), "aws_iam_policy_document")
        if each.values.get("json")
    ]
    assert len(both) > 5
    for address, ours, theirs in both:
        assert normal(ours) == normal(theirs), address


def normal(policy: Policy) -> list[dict[str, Any]]:
    """A policy's statements without differences that mean nothing."""
    return [
        {name: spread(value) for name, value in statement.items() if value}
        for statement in statements([policy])
    ]


def spread(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: spread(inner) for name, inner in value.items()}
    return sorted(value) if isinstance(value, list) else [value]


@pytest.mark.parametrize("rule", ROLE_RULES, ids=lambda rule: str(rule.__name__))
def test_no_rule_for_roles_is_broken(policies: Policies, rule: RoleRule) -> None:
    assert list(rule(policies)) == []


def test_capacity_is_looked_at_in_this_region_alone(policies: Policies) -> None:
    context = {"aws__RequestedRegion": "us-east-1"}
    asked = may(policies, "service", "ec2:DescribeCapacityReservations", "*", **context)
    assert asked is Decision.NOT_ALLOWED


def test_the_key_decrypts_own_secrets_and_nothing_else(policies: Policies) -> None:
    def decrypt(role: str, name: str, via: str = f"secretsmanager.{REGION}.amazonaws.com") -> Decision:
        context = {"kms__ViaService": via, "kms__EncryptionContext:SecretARN": secret(name)}
        return may(policies, role, "kms:Decrypt", KEY, **context)

    assert decrypt("hub", "gate") is Decision.ALLOWED
    assert decrypt("bastion", "bastion-host-key") is Decision.ALLOWED
    assert decrypt("hub", "host-ca") is not Decision.ALLOWED
    assert decrypt("bastion", "gate") is not Decision.ALLOWED
    assert decrypt("service", "gate", via=f"eks.{REGION}.amazonaws.com") is not Decision.ALLOWED
    for role in PODS:
        assert may(policies, role, "kms:Decrypt", KEY) is not Decision.ALLOWED, "a disk, a log, a session"
        for action in ("kms:Encrypt", "kms:GenerateDataKey", "kms:ScheduleKeyDeletion", "kms:PutKeyPolicy"):
            assert may(policies, role, action, KEY) is not Decision.ALLOWED


def test_what_aws_wrote_is_used_where_it_is_narrow_enough(policies: Policies) -> None:
    """Their text is not here, so no test above speaks of them."""
    attached = {name: role.attached for name, role in policies.roles.items() if role.attached}
    ours = "arn:aws:iam::aws:policy"
    assert attached == {
        f"{NAME}-cluster": {f"{ours}/AmazonEKSClusterPolicy"},
        f"{NAME}-node": {
            f"{ours}/AmazonEKSWorkerNodePolicy",
            f"{ours}/AmazonEC2ContainerRegistryPullOnly",
        },
        f"{NAME}-cni": {f"{ours}/AmazonEKS_CNI_Policy"},
        f"{NAME}-ebs": {f"{ours}/service-role/AmazonEBSCSIDriverPolicy"},
    }


def test_every_other_role_is_for_one_service_of_aws(policies: Policies) -> None:
    trusted = {
        name.removeprefix(f"{NAME}-"): {
            service
            for statement in statements([role.trust])
            for service in [statement["Principal"]["Service"]]
            if statement["Principal"].keys() == {"Service"}
        }
        for name, role in policies.roles.items()
    }
    assert {role: found for role, found in trusted.items() if role not in PODS} == {
        "cluster": {"eks.amazonaws.com"},
        "node": {"ec2.amazonaws.com"},
        "management": {"ec2.amazonaws.com"},
        "cni": {"pods.eks.amazonaws.com"},
        "flows": {"vpc-flow-logs.amazonaws.com"},
        "export": {"scheduler.amazonaws.com"},
        "backup": {"backup.amazonaws.com"},
    }
    for role, service in (("export", "scheduler"), ("backup", "backup"), ("flows", "vpc-flow-logs")):
        asked = Request(
            "sts:AssumeRole",
            "*",
            {"aws:SourceAccount": "999999999999"},
            ("Service", f"{service}.amazonaws.com"),
        )
        assert decide(asked, policies.roles[f"{NAME}-{role}"].trust) is not Decision.ALLOWED


def test_nodes_make_repositories_for_copies_of_public_images_alone(policies: Policies) -> None:
    for name, decision in (
        (f"{NAME}/quay/tigera/operator", Decision.ALLOWED),
        (f"{NAME}/kubernetes/pause", Decision.ALLOWED),
        (f"{NAME}/gpudev-server", Decision.NOT_ALLOWED),
        ("gpudev-test/quay/tigera/operator", Decision.NOT_ALLOWED),
        ("other/quay", Decision.NOT_ALLOWED),
    ):
        assert may(policies, "node", "ecr:CreateRepository", arn("ecr", f"repository/{name}")) is decision


def test_the_efs_driver_makes_access_points_and_deletes_none(policies: Policies) -> None:
    point = arn("elasticfilesystem", "access-point/fsap-0a1b2c3d")
    tag = {"aws__RequestTag/efs.csi.aws.com/cluster": "true"}
    making = {"elasticfilesystem__CreateAction": "CreateAccessPoint"}
    create, label = "elasticfilesystem:CreateAccessPoint", "elasticfilesystem:TagResource"
    assert may(policies, "efs", create, HOMES, **tag) is Decision.ALLOWED
    assert may(policies, "efs", label, point, **making) is Decision.ALLOWED
    assert may(policies, "efs", "elasticfilesystem:DescribeFileSystems", HOMES) is Decision.ALLOWED
    assert may(policies, "efs", "elasticfilesystem:DescribeAccessPoints", point) is Decision.ALLOWED
    assert may(policies, "efs", create, HOMES) is not Decision.ALLOWED
    assert may(policies, "efs", create, HOMES.replace("0a1b", "ffff"), **tag) is not Decision.ALLOWED
    assert may(policies, "efs", label, point) is not Decision.ALLOWED
    assert may(policies, "efs", label, HOMES, **making) is not Decision.ALLOWED


def test_exports_and_backups_do_that_alone(policies: Policies) -> None:
    assert may(policies, "export", "dynamodb:ExportTableToPointInTime", TABLE) is Decision.ALLOWED
    assert may(policies, "export", "s3:PutObject", f"{EXPORTS}/AWSDynamoDB/data") is Decision.ALLOWED
    assert may(policies, "export", "dynamodb:GetItem", TABLE) is not Decision.ALLOWED
    assert may(policies, "export", "s3:PutObject", "arn:aws:s3:::other/x") is not Decision.ALLOWED
    assert may(policies, "backup", "elasticfilesystem:Backup", HOMES) is Decision.ALLOWED
    assert may(policies, "backup", "elasticfilesystem:Restore", HOMES) is not Decision.ALLOWED
    assert may(policies, "backup", "dynamodb:StartAwsBackupJob", TABLE) is not Decision.ALLOWED


def test_the_balancer_writes_its_own_logs(policies: Policies) -> None:
    policy = policies.resources["aws_s3_bucket_policy.access_logs"]
    balancer = ("Service", "logdelivery.elasticloadbalancing.amazonaws.com")
    mine = {"aws:SourceArn": arn("elasticloadbalancing", "loadbalancer/app/gpudev-prod-hub/1")}
    foreign = {"aws:SourceArn": f"arn:aws:elasticloadbalancing:{REGION}:999999999999:loadbalancer/app/x/1"}
    log = f"{ACCESS_LOGS}/hub/AWSLogs/{ACCOUNT}/elasticloadbalancing/log"
    assert decide(Request("s3:PutObject", log, mine, balancer), policy) is Decision.ALLOWED
    assert decide(Request("s3:PutObject", log, foreign, balancer), policy) is Decision.NOT_ALLOWED
    assert decide(Request("s3:PutObject", f"{ACCESS_LOGS}/x", mine, balancer), policy) is Decision.NOT_ALLOWED
    assert decide(Request("s3:GetObject", log, mine, balancer), policy) is Decision.NOT_ALLOWED


def test_alarms_come_from_this_account(policies: Policies) -> None:
    policy = policies.resources["aws_sns_topic_policy.alarms"]
    for service in ("cloudwatch", "budgets", "aps"):
        for account, decision in ((ACCOUNT, Decision.ALLOWED), ("999999999999", Decision.NOT_ALLOWED)):
            who = ("Service", f"{service}.amazonaws.com")
            asked = Request("sns:Publish", ALARMS, {"aws:SourceAccount": account}, who)
            assert decide(asked, policy) is decision
    stranger = Request("sns:Publish", ALARMS, {"aws:SourceAccount": ACCOUNT}, ("AWS", "anybody"))
    assert decide(stranger, policy) is Decision.NOT_ALLOWED
