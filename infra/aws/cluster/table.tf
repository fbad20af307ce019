# The state of the reservation service. infra/dynamodb-table.json describes the table; tests create tables from the same file.

locals {
  definition = jsondecode(file("${path.module}/../../dynamodb-table.json"))
  table      = local.definition.create_table
  table_key  = { for key in local.table.KeySchema : key.KeyType => key.AttributeName }
}

resource "aws_dynamodb_table" "this" {
  #checkov:skip=CKV_AWS_119:With AWS's own key, the table stays readable after this installation and its key are deleted.
  name         = local.name
  billing_mode = local.table.BillingMode
  hash_key     = local.table_key["HASH"]
  range_key    = local.table_key["RANGE"]

  deletion_protection_enabled = local.table.DeletionProtectionEnabled

  dynamic "attribute" {
    for_each = { for a in local.table.AttributeDefinitions : a.AttributeName => a.AttributeType }

    content {
      name = attribute.key
      type = attribute.value
    }
  }

  dynamic "global_secondary_index" {
    for_each = { for index in local.table.GlobalSecondaryIndexes : index.IndexName => index }

    content {
      name            = global_secondary_index.key
      hash_key        = one([for k in global_secondary_index.value.KeySchema : k.AttributeName if k.KeyType == "HASH"])
      range_key       = one([for k in global_secondary_index.value.KeySchema : k.AttributeName if k.KeyType == "RANGE"])
      projection_type = global_secondary_index.value.Projection.ProjectionType
    }
  }

  point_in_time_recovery {
    enabled                 = local.definition.point_in_time_recovery
    recovery_period_in_days = 35
  }

  server_side_encryption {
    enabled = local.table.SSESpecification.Enabled
  }

  lifecycle {
    prevent_destroy = true
  }
}
