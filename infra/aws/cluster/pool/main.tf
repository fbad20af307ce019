# One pool of GPU nodes: one instance type in one zone.
#
# A node group never changes, because EKS would drain its nodes for 15 minutes and then stop users' servers. For a new image, add a
# second generation of nodes, drain the old nodes, and remove them when they are free.

terraform {
  required_version = ">= 1.10"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.25"
    }
  }
}

locals {
  full_name = "${var.cluster}-${var.name}"

  # Nodes of a capacity block are always close together. On-demand and reserved nodes are only in a placement group. Create
  # reservations in this group, or their nodes do not start.
  blocks = toset([for name, group in local.groups : name if try(group.reservation.kind, null) == "block"])

  # Puts the files of kubelet and containerd on the local disks, including every server's /scratch.
  node_config = <<-EOT
    MIME-Version: 1.0
    Content-Type: multipart/mixed; boundary="//"

    --//
    Content-Type: application/node.eks.aws

    apiVersion: node.eks.aws/v1alpha1
    kind: NodeConfig
    spec:
      instance:
        localStorage:
          strategy: RAID0
    --//--
  EOT
}

resource "aws_placement_group" "this" {
  name     = local.full_name
  strategy = "cluster"

  lifecycle {
    precondition {
      condition     = length(local.unknown) == 0
      error_message = "Pool ${var.name}: ${join(", ", local.unknown)} is not in reservations. Add it there, or correct the group's reservation."
    }

    precondition {
      condition     = alltrue([for r in values(local.used) : r.zone_id == local.zone_id])
      error_message = "Pool ${var.name} is in zone ${local.zone_id}, but ${join(" and ", [for r in values(local.used) : "${r.id} is in ${r.zone_id}" if r.zone_id != local.zone_id])}. Use a reservation in ${local.zone_id}, or set zone_id of the pool to the reservation's zone."
    }

    precondition {
      condition     = alltrue([for r in values(local.used) : r.instance_type == var.instance_type])
      error_message = "Pool ${var.name} has ${var.instance_type}, but ${join(" and ", [for r in values(local.used) : "${r.id} is for ${r.instance_type}" if r.instance_type != var.instance_type])}. Use a reservation for ${var.instance_type}."
    }

    # During a roll, two generations share a reservation.
    precondition {
      condition     = alltrue([for name, r in local.used : local.asked[name] <= r.count])
      error_message = "Pool ${var.name}: ${join(" and ", [for name, r in local.used : "groups ask for ${local.asked[name]} nodes of ${r.id}, which has ${r.count}" if local.asked[name] > r.count])}. Lower the counts of the groups; both generations count."
    }
  }
}

resource "aws_launch_template" "this" {
  for_each = local.groups

  name          = "${local.full_name}-${each.key}"
  instance_type = var.instance_type
  user_data     = base64encode(local.node_config)

  dynamic "network_interfaces" {
    for_each = local.interfaces

    content {
      network_card_index    = network_interfaces.value.card
      device_index          = network_interfaces.value.device
      interface_type        = network_interfaces.value.kind
      security_groups       = var.security_group_ids
      delete_on_termination = true
    }
  }

  # With a limit of one hop, only the node itself can reach its metadata and its role. Servers cannot.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "disabled"
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type           = "gp3"
      volume_size           = 100 # GiB, for the system; images and servers' files are on the local disks
      encrypted             = true
      delete_on_termination = true
    }
  }

  dynamic "placement" {
    for_each = contains(local.blocks, each.key) ? [] : [aws_placement_group.this.name]

    content {
      group_name = placement.value
    }
  }

  # On-demand nodes must not use another team's open reservation.
  capacity_reservation_specification {
    capacity_reservation_preference = each.value.reservation == null ? "none" : null

    dynamic "capacity_reservation_target" {
      for_each = each.value.reservation == null ? [] : [each.value.reservation.id]

      content {
        capacity_reservation_id = capacity_reservation_target.value
      }
    }
  }

  dynamic "instance_market_options" {
    for_each = contains(local.blocks, each.key) ? ["capacity-block"] : []

    content {
      market_type = instance_market_options.value
    }
  }

  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume", "network-interface"])

    content {
      resource_type = tag_specifications.value
      tags          = merge(var.tags, { Name = "${local.full_name}-${each.key}" })
    }
  }
}

resource "aws_eks_node_group" "this" {
  for_each = local.groups

  cluster_name    = var.cluster
  node_group_name = "${local.full_name}-${each.key}"
  node_role_arn   = var.node_role_arn
  subnet_ids      = [var.subnet.id]

  capacity_type   = contains(local.blocks, each.key) ? "CAPACITY_BLOCK" : "ON_DEMAND"
  ami_type        = "AL2023_x86_64_NVIDIA"
  version         = regex("^\\d+\\.\\d+", each.value.release)
  release_version = each.value.release

  # EKS sets the group of a capacity block to 0 before the block ends. A higher minimum would prevent that.
  scaling_config {
    min_size     = 0
    desired_size = each.value.count
    max_size     = max(each.value.count, try(each.value.reservation.count, 1), 1)
  }

  launch_template {
    id      = aws_launch_template.this[each.key].id
    version = aws_launch_template.this[each.key].latest_version
  }

  labels = merge(
    { "gpudev/pool" = var.name },
    contains(local.blocks, each.key)
    ? { "gpudev/capacity-reservation" = each.value.reservation.id }
    : { "gpudev/placement-group" = aws_placement_group.this.name },
  )

  taint {
    key    = "nvidia.com/gpu"
    value  = "present"
    effect = "NO_SCHEDULE"
  }

  # Automatic repair would reboot a node, with all its servers, for a bug in one user's kernel (XID 13 or 31). Instead, the
  # service starts nothing new on an unhealthy node, and an operator decides.
  node_repair_config {
    enabled = false
  }

  update_config {
    max_unavailable = 1
  }

  lifecycle {
    ignore_changes = [release_version, version, launch_template]

    postcondition {
      condition     = self.release_version == each.value.release
      error_message = "Pool ${var.name}: group ${each.key} runs ${self.release_version}, not ${each.value.release}. Nodes are never updated in place. Restore the release, and add a second generation with the new one."
    }
  }
}
