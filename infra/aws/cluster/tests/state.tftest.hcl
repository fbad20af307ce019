# Table, homes, images, secrets, and the roles that use them.

mock_provider "aws" {
  # Lists that AWS fills.
  mock_resource "aws_acm_certificate" {
    defaults = { domain_validation_options = [{ domain_name = "d", resource_record_name = "n", resource_record_type = "CNAME", resource_record_value = "v" }] }
  }
  mock_resource "aws_eks_node_group" {
    defaults = { resources = [{ autoscaling_groups = [{ name = "eks-cpu" }], remote_access_security_group_id = "" }] }
  }
}

run "table" {
  command = plan

  assert {
    condition     = aws_dynamodb_table.this.name == "gpudev-prod" && aws_dynamodb_table.this.hash_key == "pk" && aws_dynamodb_table.this.range_key == "sk"
    error_message = "The table must be the one of infra/dynamodb-table.json."
  }

  assert {
    condition     = [for index in aws_dynamodb_table.this.global_secondary_index : index.name] == ["ended-by-subject"]
    error_message = "The table must have the index of infra/dynamodb-table.json."
  }

  assert {
    condition     = aws_dynamodb_table.this.point_in_time_recovery[0].enabled && aws_dynamodb_table.this.point_in_time_recovery[0].recovery_period_in_days == 35
    error_message = "The table must be recoverable to any time of 35 days."
  }

  assert {
    condition     = aws_dynamodb_table.this.deletion_protection_enabled
    error_message = "The table must not be deleted by mistake."
  }

  assert {
    condition     = aws_dynamodb_table.this.billing_mode == "PAY_PER_REQUEST"
    error_message = "The table must take whatever load there is."
  }

  assert {
    condition     = aws_dynamodb_table.this.server_side_encryption[0].enabled
    error_message = "The table must be encrypted."
  }
}

run "exports" {
  command = plan

  assert {
    condition     = jsondecode(aws_scheduler_schedule.export.target[0].input).S3Bucket == aws_s3_bucket.exports.bucket
    error_message = "Exports must go to the bucket of exports."
  }

  assert {
    condition     = aws_s3_bucket_versioning.exports.versioning_configuration[0].status == "Enabled"
    error_message = "An export must not be overwritten."
  }

  assert {
    condition     = alltrue([for b in [aws_s3_bucket_public_access_block.exports, aws_s3_bucket_public_access_block.access_logs] : b.block_public_acls && b.block_public_policy && b.ignore_public_acls && b.restrict_public_buckets])
    error_message = "No bucket may be public."
  }
}

run "homes" {
  command = plan

  assert {
    condition     = aws_efs_file_system.homes.encrypted
    error_message = "Homes must be encrypted."
  }

  assert {
    condition     = keys(aws_efs_mount_target.homes) == keys(aws_subnet.private)
    error_message = "Homes must be reached in every zone with nodes."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.homes.from_port == 2049 && aws_vpc_security_group_ingress_rule.homes.to_port == 2049 && aws_vpc_security_group_ingress_rule.homes.cidr_ipv4 == null
    error_message = "Only nodes may reach homes, by their group and by NFS alone."
  }

  assert {
    condition     = one(aws_backup_plan.homes.rule).lifecycle[0].delete_after >= 35 && aws_backup_selection.homes.resources == toset([aws_efs_file_system.homes.arn])
    error_message = "Homes must be backed up, and backups kept for 35 days."
  }
}

run "images" {
  command = plan

  assert {
    condition     = keys(aws_ecr_repository.this) == ["gpudev-bastion", "gpudev-hub", "gpudev-server"]
    error_message = "There are three images of ours."
  }

  assert {
    condition     = alltrue([for r in values(aws_ecr_repository.this) : r.image_tag_mutability == "IMMUTABLE"])
    error_message = "A tag must name one build."
  }

  assert {
    condition     = alltrue([for r in values(aws_ecr_repository.this) : r.image_scanning_configuration[0].scan_on_push])
    error_message = "Images must be scanned."
  }

  assert {
    condition     = toset([for rule in values(aws_ecr_pull_through_cache_rule.this) : rule.upstream_registry_url]) == toset(["registry.k8s.io", "quay.io", "public.ecr.aws"])
    error_message = "Copies are kept of three public registries."
  }

  assert {
    condition     = alltrue([for rule in values(aws_ecr_pull_through_cache_rule.this) : startswith(rule.ecr_repository_prefix, "gpudev-prod/")])
    error_message = "Copies of two installations must not meet."
  }
}

run "secrets" {
  command = plan

  assert {
    condition     = length(aws_secretsmanager_secret.this) == 11 && alltrue([for name, s in aws_secretsmanager_secret.this : s.name == "gpudev-prod/${name}"])
    error_message = "There must be a place for each of the eleven secrets."
  }

  assert {
    condition     = alltrue([for s in values(aws_secretsmanager_secret.this) : s.kms_key_id == aws_kms_key.this.arn])
    error_message = "Secrets must be encrypted with our key."
  }

  assert {
    condition     = alltrue([for s in values(aws_secretsmanager_secret.this) : s.recovery_window_in_days == 30])
    error_message = "A secret that is deleted by mistake must come back."
  }
}

run "roles" {
  command = plan

  assert {
    condition     = toset([for a in values(aws_eks_pod_identity_association.component) : "${a.namespace}/${a.service_account}"]) == toset(["gpudev/gpudev-service", "gpudev/hub", "gpudev/gpudev-bastion", "kube-system/efs-csi-controller-sa", "kube-system/ebs-csi-controller-sa"])
    error_message = "These accounts have roles, and no other; servers have none."
  }
}
