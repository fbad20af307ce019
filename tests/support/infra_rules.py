"""Rules for plans of infra/aws, whichever file a resource is in.

Each yields a sentence for each thing that breaks it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from tofu import Json
from tofu_plan import Planned, Statement, planned, statements

Rule: TypeAlias = Callable[[Json], Iterator[str]]

ANYWHERE: Final = {"0.0.0.0/0", "::/0"}
OPEN_PORTS: Final = {22, 443}

# Actions for which IAM knows no narrower resource than "*".
UNSCOPED: Final = {
    "ssm:UpdateInstanceInformation",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
    "logs:DescribeLogGroups",
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeCapacityReservations",
    "ecr:GetAuthorizationToken",
    "tag:GetResources",
}
# In a key's policy, "*" is the key itself.
KEY_POLICIES: Final = {"data.aws_iam_policy_document.key"}
# As AWS does for every new key: without it, nobody could change the key's policy any more.
EVERY_ACTION: Final = {("data.aws_iam_policy_document.key", "Account")}


def gpu_groups(plan: Json) -> list[Planned]:
    """Return the node groups of the pools."""
    return [each for each in planned(plan, "aws_eks_node_group") if each.address.startswith("module.pool")]


def gpu_templates(plan: Json) -> list[Planned]:
    """Return the launch templates of the pools."""
    return [each for each in planned(plan, "aws_launch_template") if each.address.startswith("module.pool")]


def pools_are_in_their_placement_group(plan: Json) -> Iterator[str]:
    """Check that each pool has one cluster placement group, and that its nodes have the label of it."""
    names = {
        group.values["name"]
        for group in planned(plan, "aws_placement_group")
        if group.values["strategy"] == "cluster"
    }
    for template in gpu_templates(plan):
        placed = {each["group_name"] for each in template.values["placement"]}
        if not placed or not placed <= names:
            yield f"{template.address} is in no cluster placement group"
    for nodes in gpu_groups(plan):
        if nodes.values["labels"].get("gpudev/placement-group") not in names:
            yield f"{nodes.address} has no label gpudev/placement-group"


def gpu_nodes_are_tainted(plan: Json) -> Iterator[str]:
    """Check that pods without tolerations cannot run on GPU nodes."""
    for nodes in gpu_groups(plan):
        if [each["key"] for each in nodes.values["taint"]] != ["nvidia.com/gpu"]:
            yield f"{nodes.address} has no taint nvidia.com/gpu"


def only_cpu_nodes_are_repaired(plan: Json) -> Iterator[str]:
    """Check that only CPU nodes are repaired: repair would reboot a GPU node because of a user's mistake."""
    for nodes in planned(plan, "aws_eks_node_group"):
        wanted = not nodes.address.startswith("module.pool")
        enabled = [each["enabled"] for each in nodes.values["node_repair_config"]] == [True]
        if enabled != wanted:
            yield f"{nodes.address} has node repair {'on' if enabled else 'off'}"


def versions_are_pinned(plan: Json) -> Iterator[str]:
    """Check that images and add-ons have fixed versions."""
    for nodes in planned(plan, "aws_eks_node_group"):
        if not nodes.values.get("release_version"):
            yield f"{nodes.address} takes the newest image"
    for addon in planned(plan, "aws_eks_addon"):
        if not addon.values.get("addon_version"):
            yield f"{addon.address} takes the default version"
    for image in planned(plan, "aws_ami"):
        if image.values["most_recent"] or any(
            "*" in name for each in image.values["filter"] for name in each["values"]
        ):
            yield f"{image.address} takes the newest image"
    for parameter in planned(plan, "aws_ssm_parameter"):
        if parameter.values.get("name", "").startswith("/aws/service/"):
            yield f"{parameter.address} takes the newest image"


def what_costs_money_is_tagged(plan: Json) -> Iterator[str]:
    """Check that templates repeat the tags by which the budget and the bill find instances and disks."""
    for template in planned(plan, "aws_launch_template"):
        tagged = {each["resource_type"]: each["tags"] for each in template.values["tag_specifications"]}
        for kind in ("instance", "volume"):
            if not {"project", "environment"} <= set(tagged.get(kind) or ()):
                yield f"{template.address} starts one {kind} without the tags project and environment"


def metadata_is_out_of_reach_of_pods(plan: Json) -> Iterator[str]:
    """Check that instance metadata requires tokens, and answers over one hop only."""
    for each in planned(plan, "aws_launch_template", "aws_instance"):
        options = each.values["metadata_options"] or [{}]
        if options[0].get("http_tokens") != "required":
            yield f"{each.address} gives metadata without a token"
        if options[0].get("http_put_response_hop_limit") != 1:
            yield f"{each.address} gives metadata more than one hop away"


def disks_are_encrypted(plan: Json) -> Iterator[str]:
    """Check that every disk with which an instance starts is encrypted."""
    for template in planned(plan, "aws_launch_template"):
        for device in template.values["block_device_mappings"] or [{"ebs": [{}]}]:
            if device["ebs"][0].get("encrypted") != "true":
                yield f"{template.address} has a disk without encryption"
    for host in planned(plan, "aws_instance"):
        if not host.values["root_block_device"][0].get("encrypted"):
            yield f"{host.address} has a disk without encryption"


def logs_are_encrypted_and_end(plan: Json) -> Iterator[str]:
    """Check that logs are encrypted and end. A plan lacks keys that are not created yet."""
    for group in planned(plan, "aws_cloudwatch_log_group"):
        if not group.values.get("retention_in_days"):
            yield f"{group.address} is kept for ever"
        if group.values.get("kms_key_id", "later") is None:
            yield f"{group.address} has no key"


def local_disks_become_one(plan: Json) -> Iterator[str]:
    """Check that kubelet and containerd of GPU nodes use the local disks."""
    for template in gpu_templates(plan):
        data = base64.b64decode(template.values["user_data"] or "").decode()
        if "Content-Type: application/node.eks.aws" not in data or "strategy: RAID0" not in data:
            yield f"{template.address} leaves the local disks alone"


def the_cluster_is_private(plan: Json) -> Iterator[str]:
    """Check that the API has no public address, and that only access entries name administrators."""
    for cluster in planned(plan, "aws_eks_cluster"):
        if cluster.values["vpc_config"][0]["endpoint_public_access"] is not False:
            yield f"{cluster.address} has a public endpoint"
        if cluster.values["access_config"][0]["authentication_mode"] != "API":
            yield f"{cluster.address} takes access from a ConfigMap"
        if cluster.values["access_config"][0]["bootstrap_cluster_creator_admin_permissions"] is not False:
            yield f"{cluster.address} makes its creator an administrator"
        if not cluster.values["encryption_config"]:
            yield f"{cluster.address} keeps secrets without our key"


def no_instance_is_public(plan: Json) -> Iterator[str]:
    """Check that only load balancers and NAT gateways have public addresses."""
    for subnet in planned(plan, "aws_subnet"):
        if subnet.values.get("map_public_ip_on_launch"):
            yield f"{subnet.address} gives public addresses"
    for host in planned(plan, "aws_instance"):
        if host.values.get("associate_public_ip_address"):
            yield f"{host.address} has a public address"
        if host.values.get("key_name"):
            yield f"{host.address} has an SSH key"
    for rule in planned(plan, "aws_vpc_security_group_ingress_rule"):
        if rule.address.split("[")[0] == "aws_vpc_security_group_ingress_rule.management":
            yield f"{rule.address} lets something into the management host"


def only_ssh_and_https_are_open(plan: Json) -> Iterator[str]:
    """Check that no other port is open to every address."""
    for source, address, ports in _ingress(plan):
        if source in ANYWHERE and not (ports and ports <= OPEN_PORTS):
            yield f"{address} opens {sorted(ports) or 'everything'} to {source}"


def _ingress(plan: Json) -> Iterator[tuple[str, str, set[int]]]:
    """Yield source, rule and ports of all rules for incoming connections. No ports: all of them."""
    for rule in planned(plan, "aws_vpc_security_group_ingress_rule"):
        for key in ("cidr_ipv4", "cidr_ipv6"):
            yield rule.values.get(key) or "", rule.address, _ports(rule.values)
    for rule in planned(plan, "aws_security_group_rule"):
        if rule.values["type"] == "ingress":
            for source in (
                *(rule.values.get("cidr_blocks") or ()),
                *(rule.values.get("ipv6_cidr_blocks") or ()),
            ):
                yield source, rule.address, _ports(rule.values)
    for group in planned(plan, "aws_security_group", "aws_default_security_group"):
        for inline in group.values.get("ingress") or ():
            for source in (*(inline.get("cidr_blocks") or ()), *(inline.get("ipv6_cidr_blocks") or ())):
                yield source, group.address, _ports(inline)


def _ports(rule: Json) -> set[int]:
    """Return the ports of a rule; none, if it is for a wide range or for every protocol."""
    first, last = rule.get("from_port"), rule.get("to_port")
    protocol = rule.get("ip_protocol") or rule.get("protocol")
    if first is None or last is None or protocol == "-1" or last - first > 100:
        return set()
    return set(range(first, last + 1))


def no_secret_is_in_the_state(plan: Json) -> Iterator[str]:
    """Check that OpenTofu makes and reads no secret: everyone who plans can read its state."""
    made = ("aws_secretsmanager_secret_version", "aws_ssm_parameter", "aws_iam_access_key", "aws_key_pair")
    for each in planned(plan, *made, "random_password", "tls_private_key"):
        yield f"{each.address} puts a secret into the state"


def policies_are_narrow(plan: Json) -> Iterator[str]:
    """Check that no policy has an unnecessary wildcard."""
    for statement in statements(plan):
        if problem := _too_wide(statement):
            yield f"{statement.address}, statement {statement.sid}: {problem}"


def _too_wide(statement: Statement) -> str | None:
    """Return what could be narrower in a statement, if anything."""
    if not statement.allows or (statement.address, statement.sid) in EVERY_ACTION:
        return None
    if statement.not_actions:
        return "not_actions allows what nobody has thought of"
    if wild := sorted(action for action in statement.actions if "*" in action):
        return f"wildcard in {', '.join(wild)}"
    wide = statement.actions - UNSCOPED
    if "*" in statement.resources and wide and statement.address not in KEY_POLICIES:
        return f"every resource for {', '.join(sorted(wide))}"
    if any("*" in each["identifiers"] for each in statement.principals) and not statement.conditions:
        return "everybody may do this"
    return None


RULES: Final[tuple[Rule, ...]] = (
    pools_are_in_their_placement_group,
    gpu_nodes_are_tainted,
    only_cpu_nodes_are_repaired,
    versions_are_pinned,
    what_costs_money_is_tagged,
    metadata_is_out_of_reach_of_pods,
    disks_are_encrypted,
    logs_are_encrypted_and_end,
    local_disks_become_one,
    the_cluster_is_private,
    no_instance_is_public,
    only_ssh_and_https_are_open,
    no_secret_is_in_the_state,
    policies_are_narrow,
)
