# The test installation. With test.tfvars.

mock_provider "aws" {
  mock_data "aws_secretsmanager_secret_versions" {
    defaults = { versions = [{ created_time = "2026-07-14T00:00:00Z", last_accessed_date = "2026-07-14", version_id = "v", version_stages = ["AWSCURRENT"] }] }
  }
}
mock_provider "helm" {}
mock_provider "kubernetes" {}

override_data {
  target = data.terraform_remote_state.cluster
  values = {
    outputs = {
      cluster_name      = "gpudev-test"
      cluster_endpoint  = "https://0123456789ABCDEF.gr7.us-east-2.eks.amazonaws.com"
      cluster_ca        = "Q0EK"
      region            = "us-east-2"
      domain            = "gpudev-test.example.org"
      ssh_domain        = "ssh.gpudev-test.example.org"
      table_name        = "gpudev-test"
      file_system_id    = "fs-0123456789abcdef1"
      registry          = "123456789012.dkr.ecr.us-east-2.amazonaws.com/gpudev-test"
      network           = "10.64.0.0/16"
      secret_prefix     = "gpudev-test"
      balancer_networks = ["10.64.1.0/24", "10.64.3.0/24"]
      scraper_networks  = ["10.64.8.0/28"]
      pools             = { t4 = { instance_type = "g4dn.12xlarge", nodes = 2, efa = 1 } }
    }
  }
}

run "pool" {
  command = plan

  assert {
    condition     = [for pool in yamldecode(helm_release.gpudev.values[1]).global.settings.pools : "${pool.name} ${pool.gpus_per_node}"] == ["t4 4"]
    error_message = "The test installation has one pool, t4, with 4 GPUs in each node."
  }
}
