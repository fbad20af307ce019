# Secrets of Hub, service and bastion, without values. You set each value with the AWS command line (docs/install-aws.md), so that
# values are never in this code, its plans or its state. docs/kubernetes.md describes each secret.

locals {
  # The secrets that each component reads, with its role in roles.tf.
  secret_readers = {
    service = [
      "gate", "service-token", "service-cookies", "server-tokens", "host-ca", "bastion-token",
      "github-client-secret", "github-private-key", "github-webhook-secret",
    ]
    hub     = ["gate", "service-token", "github-client-secret"]
    bastion = ["bastion-token", "bastion-host-key", "bastion-host-certificate"]
  }

  # AWS adds a hyphen and six characters to each name.
  secret_arns = { for name in distinct(flatten(values(local.secret_readers))) : name =>
    "arn:aws:secretsmanager:${var.region}:${local.account}:secret:${local.name}/${name}-??????"
  }
}

resource "aws_secretsmanager_secret" "this" {
  #checkov:skip=CKV2_AWS_57:Secrets are rotated by hand: two components, or GitHub, know most of them (docs/aws/rotate-keys.md).
  for_each = toset(flatten(values(local.secret_readers)))

  name                    = "${local.name}/${each.key}"
  kms_key_id              = aws_kms_key.this.arn
  recovery_window_in_days = 30
}
