# People's homes: one encrypted file system, a directory with an access point for each person, and a daily backup.

resource "aws_efs_file_system" "homes" {
  #checkov:skip=CKV_AWS_184:AWS's own key. Homes stay readable when this installation and its key are gone.
  creation_token  = "${local.name}-homes"
  encrypted       = true
  throughput_mode = "elastic"

  # Most of a home is never read again.
  lifecycle_policy {
    transition_to_ia = "AFTER_30_DAYS"
  }

  lifecycle_policy {
    transition_to_primary_storage_class = "AFTER_1_ACCESS"
  }

  tags = { Name = "${local.name}-homes" }

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_efs_mount_target" "homes" {
  for_each = aws_subnet.private

  file_system_id  = aws_efs_file_system.homes.id
  subnet_id       = each.value.id
  security_groups = [aws_security_group.homes.id]
}

resource "aws_security_group" "homes" {
  name        = "${local.name}-homes"
  description = "Mount targets of homes"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${local.name}-homes" }
}

resource "aws_vpc_security_group_ingress_rule" "homes" {
  security_group_id            = aws_security_group.homes.id
  description                  = "NFS from nodes"
  referenced_security_group_id = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = 2049
  to_port                      = 2049
}

# Nobody mounts the root, where all homes are: only through an access point, which leads to one home and makes every file
# the server account's; and only encrypted.
resource "aws_efs_file_system_policy" "homes" {
  file_system_id = aws_efs_file_system.homes.id
  policy         = data.aws_iam_policy_document.homes.json
}

data "aws_iam_policy_document" "homes" {
  statement {
    sid       = "MountThroughAccessPoints"
    actions   = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
    resources = [aws_efs_file_system.homes.arn]

    # Nodes mount without a role of their own; the security group says which machines get this far.
    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "elasticfilesystem:AccessedViaMountTarget"
      values   = ["true"]
    }

    condition {
      test     = "ArnLike"
      variable = "elasticfilesystem:AccessPointArn"
      values   = ["arn:aws:elasticfilesystem:${var.region}:${local.account}:access-point/*"]
    }
  }

  statement {
    sid       = "OnlyTLS"
    effect    = "Deny"
    actions   = ["*"]
    resources = [aws_efs_file_system.homes.arn]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}
