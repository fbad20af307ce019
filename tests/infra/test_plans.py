"""The plans of both environments: the order's figures, and rules for every resource."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from infra_rules import RULES, Rule, gpu_groups, gpu_templates
from tofu import ENVIRONMENTS, Json

Plan = Callable[[str, str], Json]
pytestmark = pytest.mark.timeout(300)

ORDER = {"test": ("g4dn.12xlarge", 2, 1), "prod": ("p5.48xlarge", 5, 32)}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.__name__))
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_no_rule_is_broken(plan: Plan, environment: str, rule: Rule) -> None:
    assert list(rule(plan("cluster", environment))) == []


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_order_is_planned(plan: Plan, environment: str) -> None:
    found, (instance_type, nodes, efa) = plan("cluster", environment), ORDER[environment]
    assert sum(group.values["scaling_config"][0]["desired_size"] for group in gpu_groups(found)) == nodes
    assert gpu_templates(found)
    for template in gpu_templates(found):
        kinds = [interface["interface_type"] for interface in template.values["network_interfaces"]]
        assert template.values["instance_type"] == instance_type
        assert len(kinds) == efa
        assert set(kinds) <= {"efa", "efa-only"}


def test_production_has_two_standing_nodes(plan: Plan) -> None:
    found = plan("cluster", "prod")
    reserved = [
        template.address
        for template in gpu_templates(found)
        if template.values["capacity_reservation_specification"][0]["capacity_reservation_target"]
    ]
    assert reserved == ['module.pool["h100"].aws_launch_template.this["a-standing"]']
    (standing,) = [group for group in gpu_groups(found) if group.address.endswith('["a-standing"]')]
    assert standing.values["scaling_config"][0]["desired_size"] == 2


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_cpu_nodes_are_in_both_zones(plan: Plan, environment: str) -> None:
    found = plan("cluster", environment)
    assert len(set(found["variables"]["zone_ids"]["value"])) == 2
    resources = found["configuration"]["root_module"]["resources"]
    (nodes,) = [each for each in resources if each["address"] == "aws_eks_node_group.cpu"]
    assert "var.zone_ids" in nodes["expressions"]["subnet_ids"]["references"]


def test_every_rule_has_something_to_look_at(plan: Plan) -> None:
    """A rule for resources that no plan has would hold whatever happens."""
    types = {change["type"] for change in plan("cluster", "prod")["resource_changes"]}
    assert types >= {
        "aws_placement_group",
        "aws_eks_node_group",
        "aws_eks_addon",
        "aws_launch_template",
        "aws_instance",
        "aws_cloudwatch_log_group",
        "aws_eks_cluster",
        "aws_subnet",
        "aws_vpc_security_group_ingress_rule",
        "aws_iam_policy_document",
    }


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_platform_needs_no_more_than_the_outputs_of_the_cluster(plan: Plan, environment: str) -> None:
    """An output that is missing ends the plan."""
    types = {change["type"] for change in plan("platform", environment)["resource_changes"]}
    assert "helm_release" in types
