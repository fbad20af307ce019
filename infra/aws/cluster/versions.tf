# The state is in S3, locked and encrypted. test.s3.tfbackend and prod.s3.tfbackend name the bucket.
terraform {
  required_version = ">= 1.10"

  backend "s3" {}

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.25"
    }
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = local.tags
  }
}

data "aws_caller_identity" "current" {}

locals {
  name    = "gpudev-${var.environment}"
  account = data.aws_caller_identity.current.account_id

  # All resources have these two tags, for searches and for the budget. Launch templates repeat them, because resources that EC2
  # creates from a template do not get the provider's tags.
  tags = {
    project     = "gpudev"
    environment = var.environment
  }

  # Retention of audit, flow and session logs.
  log_days = 400
}
