# Installation

variable "environment" {
  description = "Which installation this is, as in infra/aws/cluster."
  type        = string

  validation {
    condition     = contains(["test", "prod"], var.environment)
    error_message = "The environment is \"${var.environment}\". Use \"test\" or \"prod\", each with its own tfvars and tfbackend file."
  }
}

variable "cluster_state" {
  description = "Where the state of infra/aws/cluster is: the bucket of its tfbackend file, and the bucket's region."
  type = object({
    bucket = string
    region = string
  })
}

variable "api_address" {
  description = "Address of the cluster's API. The default is the tunnel through the management host."
  type        = string
  default     = "https://127.0.0.1:8443"

  validation {
    condition     = can(regex("^https://[^/]+$", var.api_address))
    error_message = "The api_address \"${var.api_address}\" is not an address such as \"https://127.0.0.1:8443\"."
  }
}

# Images. Tags cannot be overwritten in the registry, so a tag names one build.

variable "tags" {
  description = "Tags of our own images: gpudev-hub (Hub and service) and gpudev-bastion."
  type = object({
    hub     = string
    bastion = string
  })

  validation {
    condition     = alltrue([for tag in values(var.tags) : can(regex("^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$", tag)) && tag != "latest"])
    error_message = "Each of tags must be the tag of one build, such as \"0.1.0\" or a commit, and not \"latest\"."
  }
}

# Pools

variable "pools" {
  description = <<-EOT
    What users may reserve of each pool of infra/aws/cluster. The first pool is the default. CPUs, memory and disk are what
    servers share by their GPUs: less than the node has, because kubelet and system pods need some. gpudev.tf passes them on,
    under the names of Pool in spawner/gpudev_hub/cluster_settings.py.
      images               tags of gpudev-server, the default first
      max_nodes            most whole nodes of one reservation
      memory_gib, disk_gib of a node, in GiB
  EOT
  type = list(object({
    name       = string
    label      = string
    images     = list(string)
    gpus       = number
    max_nodes  = number
    cpus       = number
    memory_gib = number
    disk_gib   = number
  }))

  validation {
    condition     = length(var.pools) == length(distinct([for pool in var.pools : pool.name]))
    error_message = "pools names a pool twice. Merge the entries."
  }

  validation {
    condition     = alltrue([for pool in var.pools : length(pool.images) > 0 && !contains(pool.images, "latest")])
    error_message = "Each pool needs at least one tag of gpudev-server in images, and not \"latest\"."
  }
}

variable "home_size" {
  description = "Size that a home claims. EFS does not enforce it; users see it."
  type        = string
  default     = "100Gi"
}

variable "subdomains" {
  description = "Whether the servers of each user are at an address of their own, USER.DOMAIN. Only then guests of a server get JupyterLab, and not SSH alone. Running servers must restart after a change."
  type        = bool
  default     = false
}

variable "policy" {
  description = "Limits and times, as in the policy file of docs/operating.md. Operators also change limits at run time (docs/limits.md)."
  type        = any
  default     = {}
}

# Access

variable "github" {
  description = <<-EOT
    The GitHub App and who may enter (docs/github-app.md). Its secrets are in Secrets Manager.
      blocked             numbers of GitHub accounts that may not enter
      webhook             whether the App has a webhook; then the secret github-webhook-secret needs a value
      outage_grace_hours  how long people who are in stay in while GitHub does not answer; 12 if left out
  EOT
  type = object({
    app_id         = number
    client_id      = string
    team           = string
    repository     = string
    operator_teams = list(string)
    other_teams    = optional(list(string), [])
    blocked        = optional(list(number), [])
    webhook        = optional(bool, false)

    outage_grace_hours = optional(number)
  })

  validation {
    condition     = alltrue([for team in concat([var.github.team], var.github.operator_teams, var.github.other_teams) : can(regex("^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", team))])
    error_message = "Teams of github are \"ORGANISATION/TEAM-SLUG\", such as \"pytorch/metamates\"."
  }

  validation {
    condition     = length(var.github.operator_teams) > 0
    error_message = "github.operator_teams is empty, so nobody could drain a node or end a reservation. Name at least one team."
  }
}
