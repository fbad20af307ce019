# State lies in S3, locked and encrypted; the bucket is named in test.s3.tfbackend and prod.s3.tfbackend.
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

  # Everything can be found, and its cost counted, by these two. Launch templates repeat them: what EC2 starts from a template
  # does not get the provider's tags.
  tags = {
    project     = "gpudev"
    environment = var.environment
  }

  # Audit, flow and session logs are kept this long.
  log_days = 400
}
