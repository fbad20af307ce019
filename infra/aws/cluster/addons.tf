# EKS add-ons, each at the version in the tfvars.

locals {
  # Nodes become Ready only with these.
  network_addons = {
    # Calico enforces the policies (infra/aws/platform); it learns a new pod's address at once from the annotation.
    # A p5 node would otherwise keep hundreds of addresses for its many network cards.
    vpc-cni = {
      enableNetworkPolicy = "false"
      env                 = { ANNOTATE_POD_IP = "true", WARM_IP_TARGET = "2", MINIMUM_IP_TARGET = "10" }
    }
    kube-proxy             = {}
    eks-pod-identity-agent = {}
  }

  # These need nodes to run on.
  node_addons = {
    coredns                               = {}
    aws-ebs-csi-driver                    = {}
    aws-efs-csi-driver                    = {}
    aws-secrets-store-csi-driver-provider = {}
    # Reports a node's health as conditions. Nothing acts on them but our service and the operator.
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

# The network plug-in attaches interfaces and addresses: a right that no other pod, and no node, has.
resource "aws_iam_role" "cni" {
  name               = "${local.name}-cni"
  assume_role_policy = data.aws_iam_policy_document.pod_trust.json
}

resource "aws_iam_role_policy_attachment" "cni" {
  role       = aws_iam_role.cni.name
  policy_arn = "arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy"
}

# Trust of every role that a pod gets by Pod Identity.
data "aws_iam_policy_document" "pod_trust" {
  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]

    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }
  }
}
