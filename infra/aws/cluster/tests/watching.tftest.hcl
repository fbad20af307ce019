# Metrics, alarms and the budget.

mock_provider "aws" {
  # Lists that AWS fills.
  mock_resource "aws_acm_certificate" {
    defaults = { domain_validation_options = [{ domain_name = "d", resource_record_name = "n", resource_record_type = "CNAME", resource_record_value = "v" }] }
  }
  mock_resource "aws_eks_node_group" {
    defaults = { resources = [{ autoscaling_groups = [{ name = "eks-cpu" }], remote_access_security_group_id = "" }] }
  }
}

run "alarms" {
  command = plan

  assert {
    condition     = alltrue([for alarm in concat(values(aws_cloudwatch_metric_alarm.this), values(aws_cloudwatch_metric_alarm.events)) : alarm.alarm_actions == toset([aws_sns_topic.alarms.arn])])
    error_message = "Every alarm must be sent."
  }

  assert {
    condition     = alltrue([for name in ["Hub has no healthy proxy", "SSH has no healthy bastion"] : aws_cloudwatch_metric_alarm.this[name].treat_missing_data == "breaching"])
    error_message = "A balancer without figures is an alarm."
  }

  assert {
    condition     = toset(keys(aws_cloudwatch_metric_alarm.events)) == toset(["Backup of homes failed (none for two days)", "Table was not exported", "Table throttles reads", "Table throttles writes"])
    error_message = "Copies and throttles must be watched."
  }

  assert {
    condition     = alltrue([for name in ["Backup of homes failed (none for two days)", "Table was not exported"] : aws_cloudwatch_metric_alarm.events[name].treat_missing_data == "breaching" && aws_cloudwatch_metric_alarm.events[name].threshold == 1])
    error_message = "A copy that was not made must be told."
  }

  assert {
    condition     = alltrue([for alarm in values(aws_cloudwatch_metric_alarm.events) : [for query in alarm.metric_query : query.expression if query.return_data == true] == ["FILL(events, 0)"]])
    error_message = "A period without events must count as 0."
  }

  assert {
    condition     = contains(flatten([for query in aws_cloudwatch_metric_alarm.events["Table was not exported"].metric_query : [for metric in query.metric : metric.dimensions["RuleName"]]]), "gpudev-prod-exported") && aws_s3_bucket_notification.exports.eventbridge
    error_message = "The alarm of exports must count what arrives in the bucket."
  }

  assert {
    condition     = jsondecode(aws_cloudwatch_event_rule.exported.event_pattern).detail.bucket.name == [aws_s3_bucket.exports.bucket]
    error_message = "Only exports of this installation may count."
  }

  assert {
    condition     = alltrue([for alarm in values(aws_cloudwatch_metric_alarm.this) : alarm.period * alarm.evaluation_periods <= 604800]) && alltrue([for alarm in values(aws_cloudwatch_metric_alarm.events) : alarm.evaluation_periods <= 7])
    error_message = "CloudWatch looks back seven days at most."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["Certificate ends soon"].threshold == 30
    error_message = "A certificate that is not renewed must be told a month before its end."
  }

  assert {
    condition     = alltrue([for name in ["reads", "writes"] : contains(flatten([for query in aws_cloudwatch_metric_alarm.events["Table throttles ${name}"].metric_query : [for metric in query.metric : metric.dimensions["TableName"]]]), "gpudev-prod")])
    error_message = "Throttling of the table must be told."
  }

  assert {
    condition     = length([for name in keys(aws_cloudwatch_metric_alarm.this) : name if startswith(name, "NAT gateway")]) == 2
    error_message = "Each NAT gateway must be watched."
  }

  assert {
    condition     = toset(keys(aws_sns_topic_subscription.mail)) == toset(var.alarm_emails)
    error_message = "Everybody in alarm_emails must get the alarms."
  }
}

run "budget" {
  command = plan

  assert {
    condition     = aws_budgets_budget.this.limit_amount == "230000" && aws_budgets_budget.this.time_unit == "MONTHLY"
    error_message = "The budget is that of the tfvars, for a month."
  }

  assert {
    condition     = one(aws_budgets_budget.this.cost_filter).values == tolist(["user:environment$prod"])
    error_message = "The budget must count this installation alone."
  }

  assert {
    condition     = alltrue([for n in aws_budgets_budget.this.notification : n.subscriber_sns_topic_arns == toset([aws_sns_topic.alarms.arn])])
    error_message = "The budget must be told to operators."
  }
}

run "metrics" {
  command = plan

  assert {
    condition     = output.scraper_networks == ["10.64.16.16/28", "10.64.16.48/28"]
    error_message = "The scraper must have addresses of its own."
  }

  assert {
    condition     = toset([for rule in values(aws_vpc_security_group_ingress_rule.scraper) : rule.from_port]) == toset([443, 8102, 9400])
    error_message = "The scraper must reach the API, the service and the exporters, and nothing else."
  }

  assert {
    condition     = alltrue([for rule in values(aws_vpc_security_group_ingress_rule.scraper) : rule.cidr_ipv4 == null && rule.from_port == rule.to_port])
    error_message = "Only the scraper may read metrics, by its group."
  }

  assert {
    condition     = length(yamldecode(aws_prometheus_rule_group_namespace.this.data).groups) > 0
    error_message = "Prometheus must have the rules of alerts.yaml."
  }

  assert {
    condition     = yamldecode(yamldecode(aws_prometheus_alert_manager_definition.this.definition).alertmanager_config).receivers[0].sns_configs[0].topic_arn == aws_sns_topic.alarms.arn
    error_message = "Prometheus must send to the topic of alarms."
  }

  assert {
    condition     = aws_cloudwatch_log_group.prometheus.retention_in_days > 0
    error_message = "Logs must end some day."
  }
}
