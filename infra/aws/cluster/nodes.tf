# CPU nodes, at least one in each of two zones, for the Hub, the service, the bastion and system pods.

resource "aws_eks_node_group" "cpu" {
  cluster_name    = aws_eks_cluster.this.name
  node_group_name = "${local.name}-cpu"
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = [for id in var.zone_ids : aws_subnet.private[id].id]

  ami_type        = "AL2023_x86_64_STANDARD"
  version         = regex("^\\d+\\.\\d+", var.cpu.release)
  release_version = var.cpu.release

  scaling_config {
    min_size     = 2
    desired_size = var.cpu.count
    max_size     = var.cpu.count + 2 # an update adds a node in each zone before it drains old nodes
  }

  update_config {
    max_unavailable = 1
  }

  # Pods on these nodes can move. GPU nodes are never repaired automatically (pool/main.tf).
  node_repair_config {
    enabled = true
  }

  launch_template {
    id      = aws_launch_template.cpu.id
    version = aws_launch_template.cpu.latest_version
  }

  depends_on = [aws_iam_role_policy_attachment.node, aws_eks_addon.network]
}

resource "aws_launch_template" "cpu" {
  name          = "${local.name}-cpu"
  instance_type = var.cpu.instance_type

  vpc_security_group_ids = [
    aws_eks_cluster.this.vpc_config[0].cluster_security_group_id,
    aws_security_group.cpu.id,
  ]

  # With a limit of one hop, only the node itself can reach its metadata and its role. Pods cannot.
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
      volume_size           = 100 # GiB
      encrypted             = true
      delete_on_termination = true
    }
  }

  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume", "network-interface"])

    content {
      resource_type = tag_specifications.value
      tags          = merge(local.tags, { Name = "${local.name}-cpu" })
    }
  }
}

# Ports of CPU nodes that the balancers may reach. The rules are in edge.tf.
resource "aws_security_group" "cpu" {
  name        = "${local.name}-cpu"
  description = "CPU nodes: ports that the balancers reach"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${local.name}-cpu" }
}

# The role of every CPU and GPU node. Pods cannot use it: they get their own roles from Pod Identity.
resource "aws_iam_role" "node" {
  name               = "${local.name}-node"
  assume_role_policy = data.aws_iam_policy_document.node_trust.json
}

data "aws_iam_policy_document" "node_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each = toset(["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly"])

  role       = aws_iam_role.node.name
  policy_arn = "arn:aws:iam::aws:policy/${each.key}"
}
