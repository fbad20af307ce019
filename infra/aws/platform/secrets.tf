# Every secret needs a value before the installation. Otherwise pods wait without an error message. Only the versions of secrets
# are read here, not their values.

locals {
  secret_names = distinct(flatten(regexall("\\{\\{ \\$prefix \\}\\}/([a-z-]+)", file("${local.chart}/templates/secrets-aws.yaml"))))
  secrets      = toset([for name in local.secret_names : name if name != "github-webhook-secret" || var.github.webhook])
}

data "aws_secretsmanager_secret_versions" "this" {
  for_each = local.secrets

  secret_id = "${local.cluster.secret_prefix}/${each.key}"

  lifecycle {
    postcondition {
      condition     = length(self.versions) > 0
      error_message = "The secret ${local.cluster.secret_prefix}/${each.key} has no value. Put one in with: aws secretsmanager put-secret-value --region ${local.cluster.region} --secret-id ${local.cluster.secret_prefix}/${each.key} --secret-string file://FILE"
    }
  }
}
