# The state is in S3, locked and encrypted. test.s3.tfbackend and prod.s3.tfbackend name the bucket.
terraform {
  required_version = ">= 1.10"

  backend "s3" {}

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.25"
    }
    helm = {
      source  = "hashicorp/helm"
      version = "~> 3.1"
    }
    kubernetes = {
      source  = "hashicorp/kubernetes"
      version = "~> 2.38"
    }
  }
}

provider "aws" {
  region = local.cluster.region
}

# The cluster's API is private and is reached through the tunnel of the management host. Its certificate has the name of the
# endpoint. You use it with a token of your own role, which is valid for 15 minutes.
locals {
  api_name  = trimprefix(local.cluster.cluster_endpoint, "https://")
  api_ca    = base64decode(local.cluster.cluster_ca)
  api_login = ["eks", "get-token", "--cluster-name", local.cluster.cluster_name, "--region", local.cluster.region]
}

provider "kubernetes" {
  host                   = var.api_address
  tls_server_name        = local.api_name
  cluster_ca_certificate = local.api_ca

  exec {
    api_version = "client.authentication.k8s.io/v1beta1"
    command     = "aws"
    args        = local.api_login
  }
}

provider "helm" {
  kubernetes = {
    host                   = var.api_address
    tls_server_name        = local.api_name
    cluster_ca_certificate = local.api_ca

    exec = {
      api_version = "client.authentication.k8s.io/v1beta1"
      command     = "aws"
      args        = local.api_login
    }
  }
}
