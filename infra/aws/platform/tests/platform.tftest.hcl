# What is installed in the cluster, with prod.tfvars and an invented state of infra/aws/cluster. Nothing here reaches a cluster.

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
      cluster_name      = "gpudev-prod"
      cluster_endpoint  = "https://0123456789ABCDEF.gr7.us-east-2.eks.amazonaws.com"
      cluster_ca        = "Q0EK"
      region            = "us-east-2"
      domain            = "gpudev.example.org"
      ssh_domain        = "ssh.gpudev.example.org"
      table_name        = "gpudev-prod"
      file_system_id    = "fs-0123456789abcdef0"
      registry          = "123456789012.dkr.ecr.us-east-2.amazonaws.com/gpudev-prod"
      network           = "10.64.0.0/16"
      secret_prefix     = "gpudev-prod"
      balancer_networks = ["10.64.1.0/24", "10.64.3.0/24"]
      scraper_networks  = ["10.64.8.0/28"]
      pools             = { h100 = { instance_type = "p5.48xlarge", nodes = 5, efa = 32 } }
    }
  }
}

run "charts" {
  command = plan

  assert {
    condition = alltrue([
      for release in [helm_release.calico, helm_release.nvidia, helm_release.efa, helm_release.dcgm] :
      can(regex("^v?\\d+\\.\\d+\\.\\d+$", release.version)) && startswith(release.repository, "https://")
    ])
    error_message = "Each chart needs a full version and a repository: the newest version would come by itself."
  }

  assert {
    condition     = yamldecode(helm_release.calico.values[0]).installation.cni.type == "AmazonVPC" && yamldecode(helm_release.calico.values[0]).installation.calicoNetwork.bgp == "Disabled"
    error_message = "Calico enforces policies alone: addresses and routes belong to the VPC CNI."
  }

  assert {
    condition     = yamldecode(helm_release.nvidia.values[0]).mofedEnabled == false
    error_message = "The NVIDIA device plug-in must not hand out the devices of EFA (mofedEnabled)."
  }

  # GPU nodes are tainted, and only they have the label.
  assert {
    condition = alltrue([
      for release in [helm_release.nvidia, helm_release.efa, helm_release.dcgm] :
      yamldecode(release.values[0]).tolerations[0].key == "nvidia.com/gpu"
    ])
    error_message = "What runs on GPU nodes must tolerate their taint."
  }

  assert {
    condition     = !strcontains(helm_release.dcgm.values[0], "DCGM_FI_PROF_")
    error_message = "Counters of profiling keep users from profiling with Nsight."
  }

  assert {
    condition     = length(yamldecode(helm_release.dcgm.values[0]).securityContext.capabilities.add) == 0
    error_message = "The exporter of GPU figures needs no capability."
  }
}

run "gpudev" {
  command = plan

  assert {
    condition     = yamldecode(helm_release.gpudev.values[1]).global.settings.public_url == "https://gpudev.example.org"
    error_message = "The public address is that of infra/aws/cluster."
  }

  assert {
    condition     = yamldecode(helm_release.gpudev.values[0]).secrets.from == "aws" && yamldecode(helm_release.gpudev.values[1]).secrets.prefix == "gpudev-prod"
    error_message = "Secrets come from Secrets Manager, and not from this state."
  }

  assert {
    condition     = yamldecode(helm_release.gpudev.values[1]).global.settings.pools[0].images == ["123456789012.dkr.ecr.us-east-2.amazonaws.com/gpudev-prod/gpudev-server:0.1.0"]
    error_message = "Images of servers come from our registry."
  }

  # Behind a balancer, everyone would share one address, and one limit on wrong tokens.
  assert {
    condition     = yamldecode(helm_release.gpudev.values[1]).global.settings.balancers == ["10.64.0.0/16"]
    error_message = "The service must know who stands between it and its users."
  }

  assert {
    condition     = yamldecode(helm_release.gpudev.values[1]).bastion.balancers == ["10.64.1.0/24", "10.64.3.0/24"]
    error_message = "Health checks of the balancer must be exempt from the bastion's penalties."
  }

  assert {
    condition     = !contains(keys(yamldecode(helm_release.gpudev.values[1]).global.github), "webhook_secret_file")
    error_message = "Without a webhook, its secret need not have a value."
  }

  assert {
    condition     = !contains(keys(yamldecode(helm_release.gpudev.values[1]).global.github), "outage_grace_hours")
    error_message = "The grace of an outage of GitHub is gpudev's own where none is given."
  }

  assert {
    condition     = kubernetes_namespace_v1.gpudev.metadata[0].labels["pod-security.kubernetes.io/enforce"] == "restricted"
    error_message = "The namespace gpudev must refuse privilege."
  }

  assert {
    condition     = kubernetes_storage_class_v1.gp3.parameters.encrypted == "true" && kubernetes_storage_class_v1.gp3.volume_binding_mode == "WaitForFirstConsumer"
    error_message = "The Hub's volume must be encrypted, and lie in the zone of the Hub's node."
  }

  assert {
    condition     = !anytrue([for rule in kubernetes_cluster_role_v1.viewers.rule : contains(rule.resources, "secrets") || contains(rule.resources, "*") || length(setsubtract(rule.verbs, ["get", "list", "watch"])) > 0])
    error_message = "The management host looks, but changes nothing and reads no Secrets."
  }
}

run "an_address_for_each_user" {
  command = plan

  variables {
    subdomains = true
  }

  assert {
    condition = (
      yamldecode(helm_release.gpudev.values[1]).global.settings.subdomains
      && yamldecode(helm_release.gpudev.values[1]).jupyterhub.proxy.chp.extraCommandLineFlags == ["--host-routing"]
    )
    error_message = "Hub, service and proxy must all know that users have addresses of their own."
  }
}

run "webhook" {
  command = plan

  variables {
    github = {
      app_id             = 123456
      client_id          = "Iv23liExample"
      team               = "pytorch/metamates"
      repository         = "pytorch/pytorch"
      operator_teams     = ["pytorch/gpudev-operators"]
      webhook            = true
      outage_grace_hours = 48
    }
  }

  assert {
    condition     = yamldecode(helm_release.gpudev.values[1]).global.github.webhook_secret_file == "/etc/gpudev/github/webhook-secret"
    error_message = "With a webhook, the service needs its secret."
  }

  assert {
    condition     = yamldecode(helm_release.gpudev.values[1]).global.github.outage_grace_hours == 48
    error_message = "The grace of an outage of GitHub can be raised while GitHub is down."
  }
}

run "a_pool_that_the_cluster_has_not" {
  command = plan

  variables {
    pools = [
      { name = "h100", label = "", images = ["0.1.0"], gpus = 8, max_nodes = 2, cpus = 184, memory_gib = 1900, disk_gib = 24000 },
      { name = "h200", label = "", images = ["0.1.0"], gpus = 8, max_nodes = 2, cpus = 184, memory_gib = 1900, disk_gib = 24000 },
    ]
  }

  expect_failures = [helm_release.gpudev]
}

run "the_state_of_the_other_environment" {
  command = plan

  variables {
    environment = "test"
  }

  expect_failures = [data.terraform_remote_state.cluster]
}

# Refused before anything is planned: several in a run, since each value is checked by itself.

run "refused" {
  command = plan

  variables {
    environment = "staging"
    api_address = "127.0.0.1:8443"
    tags        = { hub = "latest", bastion = "0.1.0" }
    pools = [
      { name = "h100", label = "", images = ["0.1.0"], gpus = 8, max_nodes = 2, cpus = 184, memory_gib = 1900, disk_gib = 24000 },
      { name = "h100", label = "", images = ["0.1.0"], gpus = 8, max_nodes = 2, cpus = 184, memory_gib = 1900, disk_gib = 24000 },
    ]
    github = {
      app_id         = 123456
      client_id      = "Iv23liExample"
      team           = "metamates"
      repository     = "pytorch/pytorch"
      operator_teams = ["pytorch/gpudev-operators"]
    }
  }

  expect_failures = [var.environment, var.api_address, var.tags, var.pools, var.github]
}

run "refused_otherwise" {
  command = plan

  variables {
    tags = { hub = "0.1.0", bastion = "" }
    pools = [
      { name = "h100", label = "", images = ["latest"], gpus = 8, max_nodes = 2, cpus = 184, memory_gib = 1900, disk_gib = 24000 },
    ]
    github = {
      app_id         = 123456
      client_id      = "Iv23liExample"
      team           = "pytorch/metamates"
      repository     = "pytorch/pytorch"
      operator_teams = []
    }
  }

  expect_failures = [var.tags, var.pools, var.github]
}

run "every_secret_is_looked_for" {
  command = plan

  assert {
    condition = keys(data.aws_secretsmanager_secret_versions.this) == [
      "bastion-host-certificate", "bastion-host-key", "bastion-token", "gate", "github-client-secret", "github-private-key",
      "host-ca", "server-tokens", "service-cookies", "service-token",
    ]
    error_message = "Each secret that the chart mounts must have a value; github-webhook-secret only with a webhook."
  }
}

run "a_secret_without_a_value" {
  command = plan

  override_data {
    target = data.aws_secretsmanager_secret_versions.this
    values = { versions = [] }
  }

  expect_failures = [data.aws_secretsmanager_secret_versions.this]
}
