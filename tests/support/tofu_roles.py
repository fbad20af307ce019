"""Returns every role and policy of ``infra/aws/cluster`` as JSON, before AWS has created anything.

A plan does not have values that only AWS knows, such as ids in ARNs. A test of OpenTofu can set them and show
its plan. Even then, the plan lacks the text of a policy that names a new resource, but it has the statements.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from iam import Policy
from tofu import Json, Tofu, said

ACCOUNT: Final = "123456789012"
REGION: Final = "us-east-2"
NAME: Final = "gpudev-prod"


def arn(service: str, rest: str) -> str:
    """Return an ARN of the account and region of these tests."""
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{rest}"


CLUSTER: Final = arn("eks", f"cluster/{NAME}")
TABLE: Final = arn("dynamodb", f"table/{NAME}")
KEY: Final = arn("kms", "key/0a1b2c3d")
HOMES: Final = arn("elasticfilesystem", "file-system/fs-0a1b2c3d")
EXPORTS: Final = f"arn:aws:s3:::{NAME}-exports-{ACCOUNT}"
ACCESS_LOGS: Final = f"arn:aws:s3:::{NAME}-access-logs-{ACCOUNT}"
ALARMS: Final = arn("sns", f"{NAME}-alarms")

KNOWN: Final[Mapping[str, Mapping[str, str]]] = {
    "aws_eks_cluster.this": {"arn": CLUSTER},
    "aws_dynamodb_table.this": {"arn": TABLE},
    "aws_kms_key.this": {"arn": KEY},
    "aws_efs_file_system.homes": {"arn": HOMES},
    "aws_backup_vault.homes": {"arn": arn("backup", f"backup-vault:{NAME}-homes")},
    "aws_s3_bucket.exports": {"arn": EXPORTS},
    "aws_s3_bucket.access_logs": {"arn": ACCESS_LOGS},
    "aws_sns_topic.alarms": {"arn": ALARMS},
    "aws_cloudwatch_log_group.flows": {"arn": arn("logs", "log-group:/gpudev/prod/flows")},
    "aws_cloudwatch_log_group.sessions": {"arn": arn("logs", "log-group:/gpudev/prod/sessions")},
    "aws_instance.management": {"arn": arn("ec2", "instance/i-0a1b2c3d")},
    "aws_ssm_document.shell": {"arn": arn("ssm", f"document/{NAME}-shell")},
    "aws_ssm_document.tunnel": {"arn": arn("ssm", f"document/{NAME}-tunnel")},
}
"""Values that AWS would give to resources whose ARNs are in policies."""


@dataclass
class Role:
    """A role of gpudev."""

    trust: Policy
    policies: list[Policy] = field(default_factory=list)
    attached: set[str] = field(default_factory=set)
    """ARNs of AWS's own policies, whose text is not known here."""


@dataclass
class Policies:
    """All of them: roles by name, and policies of resources by the address of the policy."""

    roles: dict[str, Role]
    resources: dict[str, Policy]


def policies_of(tofu: Tofu) -> Policies:
    """Return what a copy of ``infra`` plans for production.

    Raises ``AssertionError`` if a policy names something that ``KNOWN`` does not have.
    """
    folder = tofu.folder("cluster") / "known"
    folder.mkdir(exist_ok=True)
    known = [override("resource", address, values) for address, values in KNOWN.items()]
    account = override("data", "data.aws_caller_identity.current", {"account_id": ACCOUNT})
    run = 'run "known" {\n  command = plan\n}\n'
    (folder / "known.tftest.hcl").write_text("".join([*known, account, run]))
    options = ("-json", "-verbose", "-var-file=prod.tfvars", "-test-directory=known")
    done = tofu.run("cluster", "test", *options)
    assert done.returncode == 0, said(done)
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    (plan,) = [message["test_plan"] for message in messages if message["type"] == "test_plan"]
    return read(plan)


def override(kind: str, address: str, values: Mapping[str, str]) -> str:
    """Return the block that sets attributes which only AWS knows."""
    return f"override_{kind} {{\n  target = {address}\n  values = {json.dumps(values)}\n}}\n"


def read(plan: Json) -> Policies:
    """Sort the roles and policies of a plan. Raises ``AssertionError`` for one that is not known in full."""
    plans = _Plan(plan)
    roles = {each["values"]["name"]: Role(plans.policy(each)) for each in plans.of("aws_iam_role")}
    for each in plans.of("aws_iam_role_policy"):
        roles[plans.text(each, "role")].policies.append(plans.policy(each))
    for each in plans.of("aws_iam_role_policy_attachment"):
        roles[plans.text(each, "role")].attached.add(plans.text(each, "policy_arn"))
    kinds = ("aws_s3_bucket_policy", "aws_efs_file_system_policy", "aws_sns_topic_policy", "aws_iam_policy")
    return Policies(roles, {each["address"]: plans.policy(each) for each in plans.of(*kinds)})


class _Plan:
    """The resources of a plan's root module, and where their policies come from."""

    def __init__(self, plan: Json) -> None:
        self.changes = {change["address"]: change["change"] for change in plan["resource_changes"]}
        self.resources = plan["planned_values"]["root_module"]["resources"]
        self.written = {each["address"]: each for each in plan["configuration"]["root_module"]["resources"]}

    def of(self, *types: str) -> list[Json]:
        """Return the resources of these types."""
        return [each for each in self.resources if each["type"] in types]

    def text(self, resource: Json, name: str) -> str:
        """Return an attribute."""
        value: Any = resource["values"].get(name)
        assert value is not None, f"{resource['address']}: {name} is not known; refer to it by its name"
        return str(value)

    def policy(self, resource: Json) -> Policy:
        """Return the policy of a resource: its text if the plan has it, else what its document says."""
        name = "assume_role_policy" if resource["type"] == "aws_iam_role" else "policy"
        if (text := resource["values"].get(name)) is not None:
            found: Policy = json.loads(text)
            return found
        bare, bracket, index = resource["address"].partition("[")
        references = self.written[bare]["expressions"][name]["references"]
        (document,) = {
            ".".join(one.split("[")[0].split(".")[:3]) for one in references if one.startswith("data.")
        }
        change = self.changes.get(f"{document}{bracket}{index}") or self.changes[document]
        assert not _unknown(change["after_unknown"].get("statement")), (
            f"{document} names something that only AWS knows. Add its ARN to KNOWN in "
            "tests/support/tofu_roles.py"
        )
        return rendered(change["after"])


def _unknown(found: Any) -> bool:
    """Return whether anything in it is not known."""
    if isinstance(found, dict):
        return any(map(_unknown, found.values()))
    return any(map(_unknown, found)) if isinstance(found, list) else bool(found)


def rendered(document: Json) -> Policy:
    """Return the policy that an ``aws_iam_policy_document`` makes."""
    return {"Version": "2012-10-17", "Statement": [_statement(each) for each in document["statement"]]}


def _statement(block: Json) -> Json:
    found: Json = {"Sid": block.get("sid") or "", "Effect": block.get("effect") or "Allow"}
    for name, element in (
        ("actions", "Action"),
        ("not_actions", "NotAction"),
        ("resources", "Resource"),
        ("not_resources", "NotResource"),
    ):
        if block.get(name):
            found[element] = block[name]
    principals: dict[str, list[str]] = {}
    for each in block.get("principals") or ():
        principals.setdefault(each["type"], []).extend(each["identifiers"])
    if principals:
        found["Principal"] = "*" if set(principals) == {"*"} else principals
    for each in block.get("condition") or ():
        keys = found.setdefault("Condition", {}).setdefault(each["test"], {})
        keys.setdefault(each["variable"], []).extend(each["values"])
    assert not block.get("not_principals"), "a statement has not_principals, which is not understood"
    return found
