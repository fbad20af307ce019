# The control plane, its add-ons and the CPU nodes.

mock_provider "aws" {
  # Lists that AWS fills.
  mock_resource "aws_acm_certificate" {
    defaults = { domain_validation_options = [{ domain_name = "d", resource_record_name = "n", resource_record_type = "CNAME", resource_record_value = "v" }] }
  }
  mock_resource "aws_eks_node_group" {
    defaults = { resources = [{ autoscaling_groups = [{ name = "eks-cpu" }], remote_access_security_group_id = "" }] }
  }
}

run "control_plane" {
  command = plan

  assert {
    condition     = !aws_eks_cluster.this.vpc_config[0].endpoint_public_access && aws_eks_cluster.this.vpc_config[0].endpoint_private_access
    error_message = "The cluster's API must be private."
  }

  assert {
    condition     = aws_eks_cluster.this.access_config[0].authentication_mode == "API"
    error_message = "Access to the cluster must come from access entries alone."
  }

  assert {
    condition     = !aws_eks_cluster.this.access_config[0].bootstrap_cluster_creator_admin_permissions
    error_message = "Whoever creates the cluster must not become its administrator."
  }

  assert {
    condition     = one(aws_eks_cluster.this.encryption_config[0].resources) == "secrets"
    error_message = "Kubernetes secrets must be encrypted with our key."
  }

  assert {
    condition     = length(aws_eks_cluster.this.enabled_cluster_log_types) == 5
    error_message = "All five logs of the control plane must be on."
  }

  assert {
    condition     = aws_eks_cluster.this.deletion_protection
    error_message = "The cluster must be protected from deletion."
  }
}

run "access" {
  command = plan

  assert {
    condition     = keys(aws_eks_access_entry.admin) == var.admins
    error_message = "Each of admins, and nobody else, must have an administrator's access entry."
  }

  assert {
    condition     = aws_eks_access_policy_association.management.policy_arn == "arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy"
    error_message = "The management host must only read."
  }
}

run "addons" {
  command = plan

  assert {
    condition     = alltrue([for addon in concat(values(aws_eks_addon.network), values(aws_eks_addon.node)) : addon.addon_version == var.addon_versions[addon.addon_name]])
    error_message = "Every add-on must have its version from addon_versions: without one, EKS takes its default of the day."
  }

  assert {
    condition     = length(setsubtract(["vpc-cni", "eks-pod-identity-agent"], keys(aws_eks_addon.network))) == 0
    error_message = "The network plug-in and the Pod Identity agent must be there before the nodes."
  }

  assert {
    condition     = jsondecode(aws_eks_addon.network["vpc-cni"].configuration_values).enableNetworkPolicy == "false"
    error_message = "Calico enforces network policies; the network plug-in must not."
  }

  assert {
    condition     = contains(keys(aws_eks_addon.node), "eks-node-monitoring-agent")
    error_message = "Nodes must report their health."
  }
}

run "cpu_nodes" {
  command = plan

  assert {
    condition     = aws_eks_node_group.cpu.scaling_config[0].min_size == 2
    error_message = "There must always be a CPU node for each of the two zones."
  }

  assert {
    condition     = aws_eks_node_group.cpu.node_repair_config[0].enabled
    error_message = "CPU nodes must be repaired automatically."
  }

  assert {
    condition     = aws_eks_node_group.cpu.release_version == var.cpu.release
    error_message = "The AMI release of CPU nodes must be the one in the tfvars."
  }

  assert {
    condition     = aws_launch_template.cpu.metadata_options[0].http_tokens == "required" && aws_launch_template.cpu.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "Instance metadata must require tokens, and answer one hop away only."
  }
}
