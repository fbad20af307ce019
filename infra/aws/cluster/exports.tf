# Twice a week, the whole table is exported to a bucket. The exports remain if the table is deleted; its point-in-time recovery
# does not. No program reads them: an operator does, for a restore (docs/aws/restore-the-table.md).

resource "aws_s3_bucket" "exports" {
  #checkov:skip=CKV_AWS_18:One schedule writes a few objects. CloudTrail records who read the bucket's settings.
  #checkov:skip=CKV_AWS_144:A second region is a decision for the whole installation (docs/scale.md).
  #checkov:skip=CKV_AWS_145:With S3's own key, exports stay readable after this installation and its key are deleted.
  bucket = "${local.name}-exports-${local.account}"
}

resource "aws_s3_bucket_public_access_block" "exports" {
  bucket = aws_s3_bucket.exports.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_versioning" "exports" {
  bucket = aws_s3_bucket.exports.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "exports" {
  bucket = aws_s3_bucket.exports.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "exports" {
  bucket = aws_s3_bucket.exports.id

  rule {
    id     = "expire"
    status = "Enabled"
    filter {}

    expiration {
      days = local.log_days
    }

    noncurrent_version_expiration {
      noncurrent_days = 30
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }
}

resource "aws_s3_bucket_policy" "exports" {
  bucket = aws_s3_bucket.exports.id
  policy = data.aws_iam_policy_document.exports_bucket.json

  depends_on = [aws_s3_bucket_public_access_block.exports]
}

data "aws_iam_policy_document" "exports_bucket" {
  statement {
    sid       = "OnlyTLS"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.exports.arn, "${aws_s3_bucket.exports.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_scheduler_schedule" "export" {
  #checkov:skip=CKV_AWS_297:The schedule contains only two names, which are not secret.
  name                = "${local.name}-export"
  description         = "Exports the table to ${aws_s3_bucket.exports.bucket}"
  schedule_expression = "cron(0 6 ? * SUN,WED *)" # UTC

  flexible_time_window {
    mode                      = "FLEXIBLE"
    maximum_window_in_minutes = 60
  }

  target {
    arn      = "arn:aws:scheduler:::aws-sdk:dynamodb:exportTableToPointInTime"
    role_arn = aws_iam_role.export.arn
    input = jsonencode({
      TableArn     = aws_dynamodb_table.this.arn
      S3Bucket     = aws_s3_bucket.exports.bucket
      ExportFormat = "DYNAMODB_JSON"
    })
  }
}

# DynamoDB writes the summary of an export last. The rule only counts summaries, for the alarm "Table was not exported".
resource "aws_s3_bucket_notification" "exports" {
  bucket      = aws_s3_bucket.exports.id
  eventbridge = true
}

resource "aws_cloudwatch_event_rule" "exported" {
  name        = "${local.name}-exported"
  description = "An export of the table is complete"
  event_pattern = jsonencode({
    source      = ["aws.s3"]
    detail-type = ["Object Created"]
    detail = {
      bucket = { name = [aws_s3_bucket.exports.bucket] }
      object = { key = [{ suffix = "/manifest-summary.json" }] }
    }
  })
}

resource "aws_iam_role" "export" {
  name               = "${local.name}-export"
  assume_role_policy = data.aws_iam_policy_document.export_trust.json
}

data "aws_iam_policy_document" "export_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["scheduler.amazonaws.com"]
    }

    # Only schedules of this account may use the role.
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

resource "aws_iam_role_policy" "export" {
  name   = "export"
  role   = aws_iam_role.export.name
  policy = data.aws_iam_policy_document.export.json
}

data "aws_iam_policy_document" "export" {
  statement {
    sid       = "Export"
    actions   = ["dynamodb:ExportTableToPointInTime"]
    resources = [aws_dynamodb_table.this.arn]
  }

  statement {
    sid       = "Write"
    actions   = ["s3:PutObject", "s3:PutObjectAcl", "s3:AbortMultipartUpload"]
    resources = ["${aws_s3_bucket.exports.arn}/*"]
  }
}
