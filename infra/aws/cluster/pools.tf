# Pools of GPU nodes. A pool's zone, template and node groups are in pool/.

module "pool" {
  source   = "./pool"
  for_each = var.pools

  name          = each.key
  cluster       = aws_eks_cluster.this.name
  instance_type = each.value.instance_type
  subnet        = aws_subnet.private[each.value.zone_id]
  node_role_arn = aws_iam_role.node.arn
  generations   = each.value.generations
  reservations  = var.reservations
  tags          = local.tags

  security_group_ids = [
    aws_eks_cluster.this.vpc_config[0].cluster_security_group_id,
    aws_security_group.efa.id,
  ]

  depends_on = [aws_iam_role_policy_attachment.node, aws_eks_addon.network]
}

# EFA works only between interfaces whose security group allows all traffic from and to itself. Address ranges do not work.
resource "aws_security_group" "efa" {
  #checkov:skip=CKV2_AWS_5:The interfaces in pool/main.tf use the group, but checkov does not always find them.
  name        = "${local.name}-efa"
  description = "EFA between GPU nodes"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${local.name}-efa" }
}

resource "aws_vpc_security_group_ingress_rule" "efa" {
  security_group_id            = aws_security_group.efa.id
  description                  = "EFA from GPU nodes"
  referenced_security_group_id = aws_security_group.efa.id
  ip_protocol                  = "-1"
}

resource "aws_vpc_security_group_egress_rule" "efa" {
  security_group_id            = aws_security_group.efa.id
  description                  = "EFA to GPU nodes"
  referenced_security_group_id = aws_security_group.efa.id
  ip_protocol                  = "-1"
}
