# Metrics of the service and of the GPUs: a managed Prometheus reads them every 30 seconds, keeps them for 150 days, and sends
# alarms to the topic of alarms.tf. infra/aws/dashboard.json shows them in Grafana.

resource "aws_prometheus_workspace" "this" {
  #checkov:skip=CKV_AWS_352:A managed scraper cannot write to a workspace with a customer key. Metrics contain no names of people.
  alias = local.name

  logging_configuration {
    log_group_arn = "${aws_cloudwatch_log_group.prometheus.arn}:*"
  }
}

# Logs of rules that cannot be evaluated and of alarms that cannot be sent.
resource "aws_cloudwatch_log_group" "prometheus" {
  name              = "/aws/vendedlogs/prometheus/${local.name}" # AWS requires this prefix
  retention_in_days = local.log_days
  kms_key_id        = aws_kms_key.this.arn
}

# docs/aws/alarms.md has a section for each rule.
resource "aws_prometheus_rule_group_namespace" "this" {
  name         = "gpudev"
  workspace_id = aws_prometheus_workspace.this.id
  data         = file("${path.module}/alerts.yaml")
}

resource "aws_prometheus_alert_manager_definition" "this" {
  workspace_id = aws_prometheus_workspace.this.id
  definition = yamlencode({
    alertmanager_config = yamlencode({
      route = {
        receiver        = "operators"
        group_by        = ["alertname"]
        group_wait      = "1m"
        group_interval  = "5m"
        repeat_interval = "12h"
      }
      receivers = [{
        name = "operators"
        sns_configs = [{
          topic_arn     = aws_sns_topic.alarms.arn
          sigv4         = { region = var.region }
          send_resolved = true
          subject       = "${local.name}: {{ .GroupLabels.alertname }} ({{ .Status }})"
          message       = <<-EOT
            {{ range .Alerts }}{{ .Status }}: {{ .Annotations.summary }}
            {{ end }}What to do: docs/aws/alarms.md, "{{ .CommonAnnotations.runbook }}"
          EOT
        }]
      }]
    })
  })
}

# The scraper has its own addresses, so that the network policies of pods can admit only the scraper: 10.64.16.16/28,
# 10.64.16.32/28, ...
resource "aws_subnet" "scraper" {
  for_each = toset(var.zone_ids)

  vpc_id               = aws_vpc.this.id
  availability_zone_id = each.key
  cidr_block           = cidrsubnet(var.cidr, 12, 256 + local.zone_number[each.key])

  tags = { Name = "${local.name}-scraper-${each.key}" }
}

resource "aws_prometheus_scraper" "this" {
  alias                = local.name
  scrape_configuration = file("${path.module}/scrape.yaml")

  source {
    eks {
      cluster_arn        = aws_eks_cluster.this.arn
      subnet_ids         = [for subnet in aws_subnet.scraper : subnet.id]
      security_group_ids = [aws_security_group.scraper.id]
    }
  }

  destination {
    amp {
      workspace_arn = aws_prometheus_workspace.this.arn
    }
  }
}

resource "aws_security_group" "scraper" {
  #checkov:skip=CKV2_AWS_5:The scraper uses the group, but checkov does not know that resource.
  name        = "${local.name}-scraper"
  description = "Prometheus: nothing comes in"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${local.name}-scraper" }
}

locals {
  scraped = {
    "Cluster API"         = 443
    "Metrics of gpudev"   = 8102
    "Metrics of the GPUs" = 9400
  }
}

resource "aws_vpc_security_group_egress_rule" "scraper" {
  for_each = local.scraped

  security_group_id            = aws_security_group.scraper.id
  description                  = each.key
  referenced_security_group_id = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
}

# The control plane, the nodes and their pods have the cluster's security group.
resource "aws_vpc_security_group_ingress_rule" "scraper" {
  for_each = local.scraped

  security_group_id            = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
  description                  = "${each.key}, from Prometheus"
  referenced_security_group_id = aws_security_group.scraper.id
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
}
