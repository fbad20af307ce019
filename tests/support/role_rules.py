"""Rules about what each role of ``infra/aws/cluster`` may do, and what no role may do.

Each rule yields a sentence for each call that IAM would decide differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

from aws_calls import LOOKS, SERVICE
from iam import Decision, Request, decide
from tofu_roles import (
    ACCESS_LOGS,
    ACCOUNT,
    ALARMS,
    CLUSTER,
    EXPORTS,
    HOMES,
    KEY,
    NAME,
    REGION,
    TABLE,
    Policies,
    arn,
)

RoleRule: TypeAlias = Callable[[Policies], Iterator[str]]

SECRETS: Final = {
    "gate": {"service", "hub"},
    "service-token": {"service", "hub"},
    "github-client-secret": {"service", "hub"},
    "service-cookies": {"service"},
    "server-tokens": {"service"},
    "host-ca": {"service"},
    "github-private-key": {"service"},
    "github-webhook-secret": {"service"},
    "bastion-token": {"service", "bastion"},
    "bastion-host-key": {"bastion"},
    "bastion-host-certificate": {"bastion"},
}
"""The readers of each secret, as in docs/kubernetes.md."""

PODS: Final = {
    "service": ("gpudev", "gpudev-service"),
    "hub": ("gpudev", "hub"),
    "bastion": ("gpudev", "gpudev-bastion"),
    "efs": ("kube-system", "efs-csi-controller-sa"),
    "ebs": ("kube-system", "ebs-csi-controller-sa"),
}
"""Namespace and service account of each role that a pod gets."""

HERE: Final = {"aws:RequestedRegion": REGION, "aws:SecureTransport": "true"}
"""Facts that AWS adds to every call of gpudev."""

INDEX: Final = f"{TABLE}/index/ended-by-subject"

OTHERS: Final = [
    ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/{NAME}-node"),
    ("iam:CreateUser", "*"),
    ("iam:AttachRolePolicy", f"arn:aws:iam::{ACCOUNT}:role/{NAME}-service"),
    ("iam:PutRolePolicy", f"arn:aws:iam::{ACCOUNT}:role/{NAME}-service"),
    ("sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/gpudev-admin"),
    ("ec2:RunInstances", "*"),
    ("ec2:TerminateInstances", "*"),
    ("ec2:CancelCapacityReservation", "*"),
    ("ec2:PurchaseCapacityBlock", "*"),
    ("ec2:ModifyInstanceMetadataOptions", "*"),
    ("eks:UpdateClusterConfig", CLUSTER),
    ("eks:CreateAccessEntry", CLUSTER),
    ("eks:CreatePodIdentityAssociation", CLUSTER),
    ("eks:UpdateNodegroupConfig", arn("eks", f"nodegroup/{NAME}/{NAME}-h100-a-standing/1")),
    ("s3:GetObject", "arn:aws:s3:::gpudev-prod-tofu-state/cluster.tfstate"),
    ("s3:PutObject", "arn:aws:s3:::gpudev-prod-tofu-state/cluster.tfstate"),
    ("s3:GetObject", f"{EXPORTS}/AWSDynamoDB/data"),
    ("s3:DeleteObject", f"{EXPORTS}/AWSDynamoDB/data"),
    ("s3:GetObject", f"{ACCESS_LOGS}/hub/log"),
    ("s3:ListAllMyBuckets", "*"),
    ("ecr:PutImage", arn("ecr", f"repository/{NAME}/gpudev-hub")),
    ("ecr:BatchDeleteImage", arn("ecr", f"repository/{NAME}/gpudev-hub")),
    ("ecr:CreateRepository", arn("ecr", f"repository/{NAME}/gpudev-hub")),
    ("elasticfilesystem:DeleteFileSystem", HOMES),
    ("elasticfilesystem:DeleteAccessPoint", arn("elasticfilesystem", "access-point/fsap-1")),
    ("elasticfilesystem:PutFileSystemPolicy", HOMES),
    ("elasticfilesystem:ClientRootAccess", HOMES),
    ("backup:DeleteRecoveryPoint", "*"),
    ("dynamodb:DeleteTable", TABLE),
    ("dynamodb:Scan", TABLE),
    ("route53:ChangeResourceRecordSets", "arn:aws:route53:::hostedzone/Z0123456789EXAMPLE0"),
    ("acm:DeleteCertificate", "*"),
    ("sns:Publish", ALARMS),
    ("cloudwatch:DeleteAlarms", "*"),
    ("budgets:ModifyBudget", "*"),
    ("ssm:StartSession", "*"),
    ("ssm:GetParameter", arn("ssm", "parameter/gpudev")),
    ("logs:DeleteLogGroup", "*"),
    ("secretsmanager:GetSecretValue", arn("secretsmanager", "secret:somebody-elses-a1B2c3")),
    ("secretsmanager:ListSecrets", "*"),
    ("kms:ScheduleKeyDeletion", KEY),
]
"""Calls that no role of gpudev may make."""


def may(policies: Policies, role: str, action: str, resource: str, **context: str) -> Decision:
    """Return how a call is decided. In names of condition keys, two underscores stand for a colon."""
    found = policies.roles[f"{NAME}-{role}"]
    keys = HERE | {key.replace("__", ":"): value for key, value in context.items()}
    return decide(Request(action, resource, keys), *found.policies)


def secret(name: str) -> str:
    """Return the ARN that AWS gives a secret: it adds six characters."""
    return arn("secretsmanager", f"secret:{NAME}/{name}-a1B2c3")


def tags(role: str, **changed: str) -> dict[str, str]:
    """Return the facts that EKS Pod Identity adds when a pod requests a role."""
    namespace, account = PODS[role]
    said = {
        "eks-cluster-arn": CLUSTER,
        "kubernetes-namespace": namespace,
        "kubernetes-service-account": account,
    }
    renamed = {name.replace("_", "-"): value for name, value in changed.items()}
    return {f"aws:RequestTag/{name}": value for name, value in (said | renamed).items()}


def the_service_may_make_its_calls(policies: Policies) -> Iterator[str]:
    """Check that the service may use its table, and read the facts about it."""
    calls = [(call.action, f"{TABLE}/index/{call.index}" if call.index else TABLE) for call in SERVICE]
    calls += [(action, TABLE if action.startswith("dynamodb:") else "*") for action in sorted(LOOKS)]
    for action, resource in calls:
        if may(policies, "service", action, resource) is not Decision.ALLOWED:
            yield f"the service may not call {action} on {resource}"


def the_service_may_do_nothing_else_with_tables(policies: Policies) -> Iterator[str]:
    """Check that the service may not scan or change its table, or use another table."""
    never = (
        "Scan", "DeleteTable", "UpdateTable", "CreateTable", "DescribeTable", "CreateBackup", "DeleteBackup",
        "RestoreTableToPointInTime", "UpdateContinuousBackups", "ExportTableToPointInTime", "TagResource",
        "UpdateTimeToLive", "PutResourcePolicy", "PartiQLSelect", "PartiQLDelete", "BatchWriteItem",
    )  # fmt: skip
    tables = (f"{TABLE}-2", TABLE.replace("prod", "test"), TABLE.replace(REGION, "us-east-1"))
    asked = [(f"dynamodb:{action}", resource) for action in never for resource in (TABLE, INDEX, "*")]
    asked += [(call.action, table) for call in SERVICE for table in tables]
    asked += [(f"dynamodb:{action}", INDEX) for action in ("GetItem", "PutItem", "DeleteItem")]
    asked += [("dynamodb:Query", f"{TABLE}/index/other")]
    for action, resource in asked:
        if may(policies, "service", action, resource) is Decision.ALLOWED:
            yield f"the service may call {action} on {resource}"


def nobody_else_looks_and_at_nothing_else(policies: Policies) -> Iterator[str]:
    """Check that only the service may read the facts about its table, and only about this table."""
    others = (f"{TABLE}-2", TABLE.replace("prod", "test"), INDEX, "*")
    for action in sorted(LOOKS):
        of_table = action.startswith("dynamodb:")
        for name in policies.roles:
            role = name.removeprefix(f"{NAME}-")
            wrong = others if of_table else ()
            if role != "service":
                wrong = (*wrong, TABLE if of_table else "*")
            for resource in wrong:
                if may(policies, role, action, resource) is Decision.ALLOWED:
                    yield f"{role} may call {action} on {resource}"


def secrets_are_read_by_those_who_need_them(policies: Policies) -> Iterator[str]:
    """Check that no other role may read secrets, and that no role may change them."""
    for name, readers in SECRETS.items():
        for role in policies.roles:
            short = role.removeprefix(f"{NAME}-")
            for action in ("GetSecretValue", "DescribeSecret"):
                allowed = may(policies, short, f"secretsmanager:{action}", secret(name)) is Decision.ALLOWED
                if allowed != (short in readers):
                    yield f"{short} may {'' if allowed else 'not '}read the secret {name}"
        for role in readers:
            for other in (f"{name}s", f"{name}-old", "tls"):
                if may(policies, role, "secretsmanager:GetSecretValue", secret(other)) is Decision.ALLOWED:
                    yield f"{role} may read the secret {other}"
            for action in ("PutSecretValue", "DeleteSecret", "UpdateSecret", "RotateSecret"):
                if may(policies, role, f"secretsmanager:{action}", secret(name)) is Decision.ALLOWED:
                    yield f"{role} may call {action} on the secret {name}"


def roles_are_for_the_pods_of_their_accounts(policies: Policies) -> Iterator[str]:
    """Check that only Pod Identity of this cluster may use the roles of pods."""
    pods = ("Service", "pods.eks.amazonaws.com")
    for role in PODS:
        trust = policies.roles[f"{NAME}-{role}"].trust
        callers = [
            (("Service", "ec2.amazonaws.com"), tags(role)),
            (("Service", "eks.amazonaws.com"), tags(role)),
            (("AWS", f"arn:aws:iam::{ACCOUNT}:root"), tags(role)),
            (("AWS", f"arn:aws:iam::{ACCOUNT}:role/{NAME}-node"), tags(role)),
            (("Federated", f"arn:aws:iam::{ACCOUNT}:oidc-provider/example.org"), tags(role)),
            (pods, tags(role, kubernetes_service_account="gpudev-server")),
            (pods, tags(role, kubernetes_namespace="gpudev-servers")),
            (pods, tags(role, eks_cluster_arn=CLUSTER.replace("prod", "test"))),
            (pods, {}),
        ]
        for action in ("sts:AssumeRole", "sts:TagSession"):
            if decide(Request(action, "*", tags(role), pods), trust) is not Decision.ALLOWED:
                yield f"the pods of {role} get no role"
            for caller, context in callers:
                if decide(Request(action, "*", context, caller), trust) is Decision.ALLOWED:
                    yield f"the role {role} is given to {caller[1]} with {context}"
        for action in ("sts:AssumeRoleWithWebIdentity", "sts:AssumeRoleWithSAML", "sts:SetSourceIdentity"):
            if decide(Request(action, "*", tags(role), pods), trust) is Decision.ALLOWED:
                yield f"the role {role} is given by {action}"


def no_role_may_do_what_people_do(policies: Policies) -> Iterator[str]:
    """Check that no role may make the calls in ``OTHERS``."""
    context = HERE | {"aws:RequestTag/efs.csi.aws.com/cluster": "true"}
    for action, resource in OTHERS:
        for name, role in policies.roles.items():
            if decide(Request(action, resource, context), *role.policies) is Decision.ALLOWED:
                yield f"{name} may call {action} on {resource}"


def homes_are_mounted_one_at_a_time(policies: Policies) -> Iterator[str]:
    """Check that mounts of homes use an access point and TLS, never root. Nodes mount without a role."""
    policy = policies.resources["aws_efs_file_system_policy.homes"]
    context = {
        "aws:SecureTransport": "true",
        "elasticfilesystem:AccessedViaMountTarget": "true",
        "elasticfilesystem:AccessPointArn": arn("elasticfilesystem", "access-point/fsap-0a1b2c3d"),
    }

    def mounts(action: str, keys: Mapping[str, str]) -> bool:
        asked = Request(f"elasticfilesystem:{action}", HOMES, keys, ("AWS", "anonymous"))
        return decide(asked, policy) is Decision.ALLOWED

    for action in ("ClientMount", "ClientWrite"):
        if not mounts(action, context):
            yield f"homes do not allow {action}"
        if mounts(action, without(context, "elasticfilesystem:AccessPointArn")):
            yield f"the root of homes may be mounted: {action}"
        if mounts(action, without(context, "elasticfilesystem:AccessedViaMountTarget")):
            yield f"homes may be reached without a mount target: {action}"
        if mounts(action, context | {"aws:SecureTransport": "false"}):
            yield f"homes may be mounted without TLS: {action}"
    if mounts("ClientRootAccess", context):
        yield "homes may be mounted as root"


def without(context: Mapping[str, str], key: str) -> dict[str, str]:
    """Return the condition keys of a call that does not have one of them."""
    return {name: value for name, value in context.items() if name != key}


def buckets_need_tls(policies: Policies) -> Iterator[str]:
    """Check that the bucket's policy refuses all readers, whatever the readers' own policies say."""
    who = ("AWS", f"arn:aws:iam::{ACCOUNT}:role/gpudev-admin")
    for name, bucket in (("exports", EXPORTS), ("access_logs", ACCESS_LOGS)):
        policy = policies.resources[f"aws_s3_bucket_policy.{name}"]
        for resource in (bucket, f"{bucket}/key"):
            for secure, wanted in (("false", Decision.DENIED), ("true", Decision.NOT_ALLOWED)):
                asked = Request("s3:GetObject", resource, {"aws:SecureTransport": secure}, who)
                if decide(asked, policy) is not wanted:
                    yield f"{name} may be read {'with' if secure == 'true' else 'without'} TLS by {who[1]}"


ROLE_RULES: Final[tuple[RoleRule, ...]] = (
    the_service_may_make_its_calls,
    the_service_may_do_nothing_else_with_tables,
    nobody_else_looks_and_at_nothing_else,
    secrets_are_read_by_those_who_need_them,
    roles_are_for_the_pods_of_their_accounts,
    no_role_may_do_what_people_do,
    homes_are_mounted_one_at_a_time,
    buckets_need_tls,
)
