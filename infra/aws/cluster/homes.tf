# Homes: one encrypted file system, with a directory and an access point for each user, and a daily backup.

resource "aws_efs_file_system" "homes" {
  #checkov:skip=CKV_AWS_184:With AWS's own key, homes stay readable after this installation and its key are deleted.
  creation_token  = "${local.name}-homes"
  encrypted       = true
  throughput_mode = "elastic"

  # Most files of a home are never read again.
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

# Mounts must be encrypted and use an access point. An access point shows one home and makes the server account the owner of every
# file. Nobody can mount the root, which has all homes.
resource "aws_efs_file_system_policy" "homes" {
  file_system_id = aws_efs_file_system.homes.id
  policy         = data.aws_iam_policy_document.homes.json
}

data "aws_iam_policy_document" "homes" {
  statement {
    sid       = "MountThroughAccessPoints"
    actions   = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
    resources = [aws_efs_file_system.homes.arn]

    # Nodes mount without a role. The security group decides which machines can connect.
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
