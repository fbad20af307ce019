# gpudev: the chart, with the values of this installation. infra/chart/values.yaml explains every value.

locals {
  chart    = "${path.module}/../../chart"
  registry = local.cluster.registry

  # The chart is a folder. The hash of its files shows changes, because its version does not change with every file.
  chart_files = sort(setunion(fileset(local.chart, "*.yaml"), fileset(local.chart, "*.json"), fileset(local.chart, "templates/*")))
  chart_hash  = sha256(join("\n", [for file in local.chart_files : "${file} ${filesha256("${local.chart}/${file}")}"]))

  settings = {
    public_url = "https://${local.cluster.domain}"
    store      = { table = local.cluster.table_name, region = local.cluster.region }
    home       = { size = var.home_size }
    bastion    = { host = local.cluster.ssh_domain }
    policy     = var.policy
    subdomains = var.subdomains

    # Requests come from the balancer, or from a node that it forwards through. Nodes and pods share subnets, so a server can
    # forge its address here. docs/threat-model.md describes the consequences.
    balancers = [local.cluster.network]

    pools = [
      for pool in var.pools : {
        name                = pool.name
        label               = pool.label
        images              = [for tag in pool.images : "${local.registry}/gpudev-server:${tag}"]
        gpus_per_node       = pool.gpus
        max_gang            = pool.max_nodes
        cpus_per_node       = pool.cpus
        memory_gib_per_node = pool.memory_gib
        disk_gib_per_node   = pool.disk_gib
      }
    ]
  }

  github = merge(
    {
      app_id         = var.github.app_id
      client_id      = var.github.client_id
      team           = var.github.team
      repository     = var.github.repository
      operator_teams = var.github.operator_teams
      other_teams    = var.github.other_teams
      blocked        = var.github.blocked
    },
    var.github.webhook ? { webhook_secret_file = "/etc/gpudev/github/webhook-secret" } : {},
    var.github.outage_grace_hours == null ? {} : { outage_grace_hours = var.github.outage_grace_hours },
  )
}

resource "kubernetes_namespace_v1" "gpudev" {
  metadata {
    name   = local.namespace.metadata.name
    labels = local.namespace.metadata.labels
  }
}

locals {
  namespace = yamldecode(file("${local.chart}/namespace.yaml"))
}

resource "helm_release" "gpudev" {
  name      = "gpudev"
  namespace = kubernetes_namespace_v1.gpudev.metadata[0].name

  chart             = local.chart
  dependency_update = true # fetches the chart of JupyterHub, at the version in Chart.yaml
  description       = "chart ${substr(local.chart_hash, 0, 12)}"

  values = [
    file("${local.chart}/aws.yaml"),
    yamlencode({
      global  = { settings = local.settings, github = local.github }
      homes   = { fileSystemId = local.cluster.file_system_id }
      secrets = { prefix = local.cluster.secret_prefix }

      images = {
        bastion = { name = "${local.registry}/gpudev-bastion", tag = var.tags.bastion }
        pause   = { name = "${local.registry}/kubernetes/pause" }
      }

      bastion = { balancers = local.cluster.balancer_networks }
      service = { scrapers = local.cluster.scraper_networks }

      jupyterhub = {
        hub = {
          image = { name = "${local.registry}/gpudev-hub", tag = var.tags.hub }
          db    = { pvc = { storageClassName = kubernetes_storage_class_v1.gp3.metadata[0].name } }
        }

        proxy = {
          chp = {
            image                 = { name = "${local.registry}/quay/jupyterhub/configurable-http-proxy" }
            extraCommandLineFlags = var.subdomains ? ["--host-routing"] : [] # route by name as well as by path
          }
        }
      }
    }),
  ]

  # Enough for everything except the pre-pull of servers' images, which nothing waits for.
  timeout     = 900
  max_history = 10

  # Before the first server starts, policies must be enforced, devices known and secrets set.
  depends_on = [helm_release.calico, helm_release.nvidia, helm_release.efa, data.aws_secretsmanager_secret_versions.this]

  lifecycle {
    precondition {
      condition     = toset([for pool in var.pools : pool.name]) == toset(keys(local.cluster.pools))
      error_message = "infra/aws/cluster has the pools ${join(", ", keys(local.cluster.pools))}, but pools has ${join(", ", [for pool in var.pools : pool.name])}. Name the same pools in both tfvars files."
    }
  }
}
