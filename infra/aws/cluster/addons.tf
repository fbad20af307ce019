# EKS add-ons, each at the version in the tfvars.

locals {
  # Nodes become Ready only with these add-ons.
  network_addons = {
    # Calico enforces network policies (infra/aws/platform). The annotation tells it the address of a new pod at once.
    # The limits keep a p5 node from reserving hundreds of addresses for its many network cards.
    vpc-cni = {
      enableNetworkPolicy = "false"
      env                 = { ANNOTATE_POD_IP = "true", WARM_IP_TARGET = "2", MINIMUM_IP_TARGET = "10" }
    }
    kube-proxy             = {}
    eks-pod-identity-agent = {}
  }

  # These add-ons need nodes to run on.
  node_addons = {
    coredns                               = {}
    aws-ebs-csi-driver                    = {}
    aws-efs-csi-driver                    = {}
    aws-secrets-store-csi-driver-provider = {}
    # Reports a node's health as conditions. Only the reservation service and operators act on them.
    eks-node-monitoring-agent = {}
  }
}

resource "aws_eks_addon" "network" {
  for_each = local.network_addons

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  addon_version               = var.addon_versions[each.key]
  configuration_values        = jsonencode(each.value)
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  dynamic "pod_identity_association" {
    for_each = each.key == "vpc-cni" ? ["aws-node"] : []

    content {
      service_account = pod_identity_association.value
      role_arn        = aws_iam_role.cni.arn
    }
  }
}

resource "aws_eks_addon" "node" {
  for_each = local.node_addons

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  addon_version               = var.addon_versions[each.key]
  configuration_values        = jsonencode(each.value)
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  depends_on = [aws_eks_node_group.cpu]
}

# Only the network plug-in may attach interfaces and addresses. Nodes and other pods do not have this right.
resource "aws_iam_role" "cni" {
  name               = "${local.name}-cni"
  assume_role_policy = data.aws_iam_policy_document.pod_trust.json
}

resource "aws_iam_role_policy_attachment" "cni" {
  role       = aws_iam_role.cni.name
  policy_arn = "arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy"
}

# The trust policy of every role that a pod gets through Pod Identity.
data "aws_iam_policy_document" "pod_trust" {
  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]

    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }
  }
}
