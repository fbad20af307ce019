# The module pool by itself: templates and node groups. Nothing here reaches AWS.

mock_provider "aws" {}

variables {
  name               = "h100"
  cluster            = "gpudev-prod"
  instance_type      = "p5.48xlarge"
  subnet             = { id = "subnet-0123456789abcdef0", availability_zone_id = "use2-az3" }
  node_role_arn      = "arn:aws:iam::123456789012:role/gpudev-prod-node"
  security_group_ids = ["sg-0123456789abcdef0", "sg-0123456789abcdef1"]
  tags               = { project = "gpudev", environment = "prod" }
  reservations = {
    standing = { id = "cr-0123456789abcdef0", kind = "odcr", instance_type = "p5.48xlarge", zone_id = "use2-az3", count = 2 }
    october  = { id = "cr-0123456789abcdef1", kind = "block", instance_type = "p5.48xlarge", zone_id = "use2-az3", count = 4 }
    west     = { id = "cr-0123456789abcdef2", kind = "block", instance_type = "p5.48xlarge", zone_id = "use2-az1", count = 4 }
    other    = { id = "cr-0123456789abcdef3", kind = "odcr", instance_type = "p5en.48xlarge", zone_id = "use2-az3", count = 4 }
  }
  generations = {
    a = {
      release = "1.35.6-20260714"
      groups = {
        standing = { count = 2, reservation = "standing" }
        extra    = { count = 3 }
        october  = { count = 4, reservation = "october" }
      }
    }
  }
}

run "p5" {
  command = plan
  module { source = "./pool" }

  # Network cards

  assert {
    condition     = alltrue([for t in values(aws_launch_template.this) : length(t.network_interfaces) == 32])
    error_message = "A p5.48xlarge needs 32 network interfaces."
  }

  assert {
    condition     = alltrue([for t in values(aws_launch_template.this) : jsonencode(t.network_interfaces[*].network_card_index) == jsonencode(range(32))])
    error_message = "Each network card of a p5.48xlarge needs one interface."
  }

  assert {
    condition     = alltrue([for t in values(aws_launch_template.this) : t.network_interfaces[0].interface_type == "efa" && t.network_interfaces[0].device_index == 0])
    error_message = "The first interface must carry both IP and EFA: with IP alone, one of 32 EFA interfaces is lost."
  }

  assert {
    condition     = alltrue([for t in values(aws_launch_template.this) : alltrue([for i in slice(t.network_interfaces, 1, 32) : i.interface_type == "efa-only" && i.device_index == 1])])
    error_message = "Every other interface must be efa-only: it takes no address."
  }

  assert {
    condition     = alltrue([for t in values(aws_launch_template.this) : alltrue([for i in t.network_interfaces : length(i.security_groups) == 2])])
    error_message = "Every interface needs the cluster's security group and the one for EFA."
  }

  assert {
    condition     = alltrue([for t in values(local.types) : t.efa == t.cards - (t.card0_efa ? 0 : 1)])
    error_message = "In pool/types.tf, efa must be cards, or one less if card 0 has none."
  }

  # Launch templates

  assert {
    condition     = alltrue([for t in values(aws_launch_template.this) : t.metadata_options[0].http_tokens == "required"])
    error_message = "Instance metadata must require tokens."
  }

  assert {
    condition     = alltrue([for t in values(aws_launch_template.this) : t.metadata_options[0].http_put_response_hop_limit == 1])
    error_message = "Instance metadata must answer one hop away only: with 2, servers get the node's role."
  }

  assert {
    condition     = alltrue([for t in values(aws_launch_template.this) : t.block_device_mappings[0].ebs[0].encrypted == "true"])
    error_message = "Disks of GPU nodes must be encrypted."
  }

  assert {
    condition     = alltrue([for t in values(aws_launch_template.this) : strcontains(base64decode(t.user_data), "localStorage:\n      strategy: RAID0")])
    error_message = "The node's local disks must become one RAID 0 for kubelet and containerd."
  }

  assert {
    condition     = alltrue([for t in values(aws_launch_template.this) : t.image_id == null])
    error_message = "The image comes from the group's release; with an image in the template, EKS adds no user data."
  }

  # Node groups

  assert {
    condition     = { for name, g in aws_eks_node_group.this : name => g.scaling_config[0].desired_size } == { a-standing = 2, a-extra = 3, a-october = 4 }
    error_message = "Each group must ask for the nodes that its generation says."
  }

  assert {
    condition     = alltrue([for g in values(aws_eks_node_group.this) : g.subnet_ids == toset(["subnet-0123456789abcdef0"])])
    error_message = "All nodes of a pool must be in one subnet: EFA does not work between zones."
  }

  assert {
    condition     = alltrue([for g in values(aws_eks_node_group.this) : g.release_version == "1.35.6-20260714" && g.version == "1.35" && g.ami_type == "AL2023_x86_64_NVIDIA"])
    error_message = "GPU nodes must run the NVIDIA image of the generation's release: without a release, EKS takes the newest."
  }

  assert {
    condition     = alltrue([for g in values(aws_eks_node_group.this) : !g.node_repair_config[0].enabled])
    error_message = "Node repair must be off on GPU nodes: it reboots a node for a bug in somebody's kernel."
  }

  assert {
    condition     = alltrue([for g in values(aws_eks_node_group.this) : g.labels["gpudev/pool"] == "h100"])
    error_message = "GPU nodes need the label gpudev/pool."
  }

  assert {
    condition     = alltrue([for g in values(aws_eks_node_group.this) : [for t in g.taint : "${t.key}=${t.value}:${t.effect}"] == ["nvidia.com/gpu=present:NO_SCHEDULE"]])
    error_message = "GPU nodes need the taint nvidia.com/gpu=present:NoSchedule."
  }

  # On demand

  assert {
    condition     = aws_launch_template.this["a-extra"].capacity_reservation_specification[0].capacity_reservation_preference == "none"
    error_message = "On-demand nodes must not take open reservations."
  }

  assert {
    condition     = one(aws_launch_template.this["a-extra"].placement[*].group_name) == "gpudev-prod-h100"
    error_message = "On-demand nodes must be in the placement group."
  }

  assert {
    condition     = length(aws_launch_template.this["a-extra"].instance_market_options) == 0 && aws_eks_node_group.this["a-extra"].capacity_type == "ON_DEMAND"
    error_message = "On-demand nodes must have no market type."
  }

  # From a capacity reservation

  assert {
    condition     = aws_launch_template.this["a-standing"].capacity_reservation_specification[0].capacity_reservation_target[0].capacity_reservation_id == "cr-0123456789abcdef0"
    error_message = "Reserved nodes must name their reservation."
  }

  assert {
    condition     = one(aws_launch_template.this["a-standing"].placement[*].group_name) == aws_placement_group.this.name && aws_placement_group.this.strategy == "cluster"
    error_message = "Reserved nodes must be in the cluster placement group."
  }

  assert {
    condition     = length(aws_launch_template.this["a-standing"].instance_market_options) == 0 && aws_eks_node_group.this["a-standing"].capacity_type == "ON_DEMAND"
    error_message = "A capacity reservation is on demand: no market type."
  }

  assert {
    condition     = aws_eks_node_group.this["a-standing"].labels["gpudev/placement-group"] == "gpudev-prod-h100" && !contains(keys(aws_eks_node_group.this["a-standing"].labels), "gpudev/capacity-reservation")
    error_message = "Reserved nodes need the label gpudev/placement-group, and no end."
  }

  # From a capacity block

  assert {
    condition     = one(aws_launch_template.this["a-october"].instance_market_options[*].market_type) == "capacity-block" && aws_eks_node_group.this["a-october"].capacity_type == "CAPACITY_BLOCK"
    error_message = "Nodes of a block need its market type and capacity type."
  }

  assert {
    condition     = aws_launch_template.this["a-october"].capacity_reservation_specification[0].capacity_reservation_target[0].capacity_reservation_id == "cr-0123456789abcdef1"
    error_message = "Nodes of a block must name it."
  }

  assert {
    condition     = aws_launch_template.this["a-october"].instance_type == "p5.48xlarge" && try(length(aws_eks_node_group.this["a-october"].instance_types), 0) == 0
    error_message = "The instance type of a block must be in the template only."
  }

  assert {
    condition     = length(aws_launch_template.this["a-october"].placement) == 0
    error_message = "A block has no placement group."
  }

  assert {
    condition     = aws_eks_node_group.this["a-october"].labels["gpudev/capacity-reservation"] == "cr-0123456789abcdef1"
    error_message = "Nodes of a block need the label gpudev/capacity-reservation: the service reads the block's end."
  }

  assert {
    condition     = aws_eks_node_group.this["a-october"].scaling_config[0].min_size == 0 && aws_eks_node_group.this["a-october"].scaling_config[0].max_size == 4
    error_message = "EKS must be able to scale a block's group to 0 and up to the block's size."
  }
}
