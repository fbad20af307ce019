# Who may do what in the Kubernetes cluster. Node groups get their entries from EKS.

resource "aws_eks_access_entry" "admin" {
  for_each = toset(var.admins)

  cluster_name  = aws_eks_cluster.this.name
  principal_arn = each.key
}

resource "aws_eks_access_policy_association" "admin" {
  for_each = aws_eks_access_entry.admin

  cluster_name  = aws_eks_cluster.this.name
  principal_arn = each.value.principal_arn
  policy_arn    = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"

  access_scope {
    type = "cluster"
  }
}

# The management host reads objects in namespaces, but no Secrets. Its group reads nodes and volumes
# (infra/aws/platform/access.tf). People make changes under their own role, through the tunnel (sessions.tf).
resource "aws_eks_access_entry" "management" {
  cluster_name      = aws_eks_cluster.this.name
  principal_arn     = aws_iam_role.management.arn
  kubernetes_groups = ["gpudev-viewers"]
}

resource "aws_eks_access_policy_association" "management" {
  cluster_name  = aws_eks_cluster.this.name
  principal_arn = aws_eks_access_entry.management.principal_arn
  policy_arn    = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy"

  access_scope {
    type = "cluster"
  }
}
