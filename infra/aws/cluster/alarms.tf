# Alarms on CloudWatch metrics, and the topic to which CloudWatch and Prometheus (metrics.tf) send alarms. docs/aws/alarms.md has
# a section for each alarm, with the name of the alarm as its heading.

resource "aws_sns_topic" "alarms" {
  #checkov:skip=CKV_AWS_26:Alarms contain no names of people and no secrets. A broken key must not block an alarm.
  name = "${local.name}-alarms"
}

# AWS sends a mail to each address, and its owner must confirm the subscription.
resource "aws_sns_topic_subscription" "mail" {
  for_each = toset(var.alarm_emails)

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.key
}

resource "aws_sns_topic_policy" "alarms" {
  arn    = aws_sns_topic.alarms.arn
  policy = data.aws_iam_policy_document.alarms.json
}

data "aws_iam_policy_document" "alarms" {
  # Only alarms, budgets and rules of this account may publish.
  statement {
    sid       = "Publish"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarms.arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com", "budgets.amazonaws.com", "aps.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }

  # Prometheus reads the attributes of the topic before it publishes.
  statement {
    sid       = "Look"
    actions   = ["sns:GetTopicAttributes"]
    resources = [aws_sns_topic.alarms.arn]

    principals {
      type        = "Service"
      identifiers = ["aps.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

locals {
  # Keys are headings in docs/aws/alarms.md. Periods are in seconds. `missing` says how missing data counts.
  alarms = merge(
    {
      "Hub has no healthy proxy" = {
        namespace  = "AWS/ApplicationELB"
        metric     = "HealthyHostCount"
        dimensions = { LoadBalancer = aws_lb.hub.arn_suffix, TargetGroup = aws_lb_target_group.hub.arn_suffix }
        statistic  = "Minimum", is = "LessThanThreshold", threshold = 1, period = 60, periods = 3, missing = "breaching"
      }
      "Hub answers with errors" = {
        namespace  = "AWS/ApplicationELB"
        metric     = "HTTPCode_Target_5XX_Count"
        dimensions = { LoadBalancer = aws_lb.hub.arn_suffix }
        statistic  = "Sum", is = "GreaterThanThreshold", threshold = 50, period = 300, periods = 2, missing = "notBreaching"
      }
      "SSH has no healthy bastion" = {
        namespace  = "AWS/NetworkELB"
        metric     = "HealthyHostCount"
        dimensions = { LoadBalancer = aws_lb.bastion.arn_suffix, TargetGroup = aws_lb_target_group.bastion.arn_suffix }
        statistic  = "Minimum", is = "LessThanThreshold", threshold = 1, period = 60, periods = 3, missing = "breaching"
      }
      # AWS renews a certificate 60 days before it expires. If it is not renewed a month later, something blocks the renewal.
      "Certificate ends soon" = {
        namespace  = "AWS/CertificateManager"
        metric     = "DaysToExpiry"
        dimensions = { CertificateArn = aws_acm_certificate.hub.arn }
        statistic  = "Minimum", is = "LessThanThreshold", threshold = 30, period = 86400, periods = 1, missing = "notBreaching"
      }
      "Homes are slow" = {
        namespace  = "AWS/EFS"
        metric     = "PercentIOLimit"
        dimensions = { FileSystemId = aws_efs_file_system.homes.id }
        statistic  = "Average", is = "GreaterThanThreshold", threshold = 90, period = 300, periods = 3, missing = "notBreaching"
      }
      "Backup of homes failed" = {
        namespace  = "AWS/Backup"
        metric     = "NumberOfBackupJobsFailed"
        dimensions = { BackupVaultName = aws_backup_vault.homes.name }
        statistic  = "Sum", is = "GreaterThanThreshold", threshold = 0, period = 3600, periods = 1, missing = "notBreaching"
      }
    },
    {
      for zone, gateway in aws_nat_gateway.this : "NAT gateway has no ports left (${zone})" => {
        namespace  = "AWS/NATGateway"
        metric     = "ErrorPortAllocation"
        dimensions = { NatGatewayId = gateway.id }
        statistic  = "Sum", is = "GreaterThanThreshold", threshold = 0, period = 300, periods = 1, missing = "notBreaching"
      }
    },
  )
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name        = "${local.name}: ${each.key}"
  alarm_description = "What to do: docs/aws/alarms.md, \"${split(" (", each.key)[0]}\""
  alarm_actions     = [aws_sns_topic.alarms.arn]
  ok_actions        = [aws_sns_topic.alarms.arn]

  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  comparison_operator = each.value.is
  threshold           = each.value.threshold
  period              = each.value.period
  evaluation_periods  = each.value.periods
  treat_missing_data  = each.value.missing
}

# Events, of which there is no figure while none happens. CloudWatch would look for older figures instead, so an alarm about missing
# events would be days late. And an alarm about DynamoDB would never end: CloudWatch ignores missing data there, whatever is
# configured. Therefore the expression fills in 0.
resource "aws_cloudwatch_metric_alarm" "events" {
  for_each = {
    # A backup that never starts is not reported as failed.
    "Backup of homes failed (none for two days)" = {
      namespace  = "AWS/Backup"
      metric     = "NumberOfBackupJobsCompleted"
      dimensions = { BackupVaultName = aws_backup_vault.homes.name }
      is         = "LessThanThreshold", threshold = 1, period = 86400, periods = 2
    }
    # Exports are three or four days apart (exports.tf). An alarm can look back seven days at most.
    "Table was not exported" = {
      namespace  = "AWS/Events"
      metric     = "TriggeredRules"
      dimensions = { RuleName = aws_cloudwatch_event_rule.exported.name }
      is         = "LessThanThreshold", threshold = 1, period = 86400, periods = 5
    }
    "Table throttles reads" = {
      namespace  = "AWS/DynamoDB"
      metric     = "ReadThrottleEvents"
      dimensions = { TableName = aws_dynamodb_table.this.name }
      is         = "GreaterThanThreshold", threshold = 0, period = 300, periods = 2
    }
    "Table throttles writes" = {
      namespace  = "AWS/DynamoDB"
      metric     = "WriteThrottleEvents"
      dimensions = { TableName = aws_dynamodb_table.this.name }
      is         = "GreaterThanThreshold", threshold = 0, period = 300, periods = 2
    }
  }

  alarm_name        = "${local.name}: ${each.key}"
  alarm_description = "What to do: docs/aws/alarms.md, \"${split(" (", each.key)[0]}\""
  alarm_actions     = [aws_sns_topic.alarms.arn]
  ok_actions        = [aws_sns_topic.alarms.arn]

  metric_query {
    id          = "all"
    expression  = "FILL(events, 0)"
    return_data = true
  }

  metric_query {
    id = "events"

    metric {
      namespace   = each.value.namespace
      metric_name = each.value.metric
      dimensions  = each.value.dimensions
      stat        = "Sum"
      period      = each.value.period
    }
  }

  comparison_operator = each.value.is
  threshold           = each.value.threshold
  evaluation_periods  = each.value.periods
  # Of a metric without any figure there is nothing to fill.
  treat_missing_data = each.value.is == "LessThanThreshold" ? "breaching" : "notBreaching"
}
