# How operators connect to the management host: two session documents, and a policy that allows only these.

# A shell. Its input and output are logged.
resource "aws_ssm_document" "shell" {
  name            = "${local.name}-shell"
  document_type   = "Session"
  document_format = "JSON"

  content = jsonencode({
    schemaVersion = "1.0"
    description   = "Shell on the management host"
    sessionType   = "Standard_Stream"
    inputs = {
      cloudWatchLogGroupName      = aws_cloudwatch_log_group.sessions.name
      cloudWatchEncryptionEnabled = true
      cloudWatchStreamingEnabled  = true
      kmsKeyId                    = aws_kms_key.this.arn
      idleSessionTimeout          = "20"  # minutes
      maxSessionDuration          = "480" # minutes
      runAsEnabled                = false
      shellProfile                = { linux = "exec bash --login" }
    }
  })
}

# A tunnel to the cluster's API only. The API's audit log records each request through the tunnel and who sent it.
resource "aws_ssm_document" "tunnel" {
  name            = "${local.name}-tunnel"
  document_type   = "Session"
  document_format = "JSON"

  content = jsonencode({
    schemaVersion = "1.0"
    description   = "Tunnel through the management host to the cluster's API"
    sessionType   = "Port"
    parameters = {
      localPortNumber = { type = "String", description = "Port on your machine", default = "8443", allowedPattern = "^[1-9][0-9]{3,4}$" }
    }
    properties = {
      type            = "LocalPortForwarding"
      host            = trimprefix(aws_eks_cluster.this.endpoint, "https://")
      portNumber      = "443"
      localPortNumber = "{{ localPortNumber }}"
    }
  })
}

resource "aws_cloudwatch_log_group" "sessions" {
  name              = "/gpudev/${var.environment}/sessions"
  retention_in_days = local.log_days
  kms_key_id        = aws_kms_key.this.arn
}

# Attach this policy to the roles of operators who are not administrators of the account.
resource "aws_iam_policy" "operator" {
  name        = "${local.name}-operator"
  description = "Sessions on the management host of ${local.name}"
  policy      = data.aws_iam_policy_document.operator.json
}

data "aws_iam_policy_document" "operator" {
  # Without this condition, a session without a document would get a shell without a log.
  statement {
    sid     = "StartSession"
    actions = ["ssm:StartSession"]
    resources = [
      aws_instance.management.arn,
      aws_ssm_document.shell.arn,
      aws_ssm_document.tunnel.arn,
    ]

    condition {
      test     = "BoolIfExists"
      variable = "ssm:SessionDocumentAccessCheck"
      values   = ["true"]
    }
  }

  statement {
    sid       = "OwnSessions"
    actions   = ["ssm:TerminateSession", "ssm:ResumeSession"]
    resources = ["arn:aws:ssm:${var.region}:${local.account}:session/*"]

    condition {
      test     = "StringLike"
      variable = "ssm:resourceTag/aws:ssmmessages:session-id"
      values   = ["$${aws:userid}"]
    }
  }

  statement {
    sid       = "EncryptSessions"
    actions   = ["kms:GenerateDataKey"]
    resources = [aws_kms_key.this.arn]
  }

  statement {
    sid       = "FindCluster"
    actions   = ["eks:DescribeCluster"]
    resources = [aws_eks_cluster.this.arn]
  }
}
