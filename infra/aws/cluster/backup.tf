# Homes are backed up every night, and backups are kept for 35 days. The table has point-in-time recovery (table.tf) instead.

resource "aws_backup_vault" "homes" {
  #checkov:skip=CKV_AWS_166:With AWS's own key, backups stay readable after this installation and its key are deleted.
  name = "${local.name}-homes"

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_backup_plan" "homes" {
  name = "${local.name}-homes"

  rule {
    rule_name         = "daily"
    target_vault_name = aws_backup_vault.homes.name
    schedule          = "cron(0 7 * * ? *)" # UTC
    start_window      = 60                  # minutes
    completion_window = 1440                # minutes; the first backup copies everything

    lifecycle {
      delete_after = 35 # days
    }
  }
}

resource "aws_backup_selection" "homes" {
  name         = "${local.name}-homes"
  plan_id      = aws_backup_plan.homes.id
  iam_role_arn = aws_iam_role.backup.arn
  resources    = [aws_efs_file_system.homes.arn]
}

resource "aws_iam_role" "backup" {
  name               = "${local.name}-backup"
  assume_role_policy = data.aws_iam_policy_document.backup_trust.json
}

data "aws_iam_policy_document" "backup_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["backup.amazonaws.com"]
    }

    # Only backups of this account may use the role.
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

# The part of AWSBackupServiceRolePolicyForBackup that one EFS file system needs. For a restore, select
# AWSBackupDefaultServiceRole in the console.
resource "aws_iam_role_policy" "backup" {
  name   = "backup"
  role   = aws_iam_role.backup.name
  policy = data.aws_iam_policy_document.backup.json
}

data "aws_iam_policy_document" "backup" {
  statement {
    sid       = "ReadHomes"
    actions   = ["elasticfilesystem:Backup", "elasticfilesystem:DescribeTags"]
    resources = [aws_efs_file_system.homes.arn]
  }

  statement {
    sid       = "WriteVault"
    actions   = ["backup:DescribeBackupVault", "backup:CopyIntoBackupVault"]
    resources = [aws_backup_vault.homes.arn]
  }

  statement {
    sid       = "FindResources"
    actions   = ["tag:GetResources"]
    resources = ["*"] # AWS offers no narrower resource for this
  }
}
