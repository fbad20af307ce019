# Installation

variable "environment" {
  description = "Which installation this is. Everything is named gpudev-ENVIRONMENT."
  type        = string

  validation {
    condition     = contains(["test", "prod"], var.environment)
    error_message = "The environment is \"${var.environment}\". Use \"test\" or \"prod\", each with its own tfvars and tfbackend file."
  }
}

variable "region" {
  description = "AWS region of everything."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}-(north|south)?(east|west)?(central)?-\\d$", var.region))
    error_message = "The region \"${var.region}\" is not a region such as \"us-east-2\". A zone is named in zone_ids."
  }
}

variable "domain" {
  description = "Address of the Hub. The bastion's address is ssh.DOMAIN."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]{2,}$", var.domain))
    error_message = "The domain \"${var.domain}\" is not a host name. Write it in lower case and without https://, such as \"gpudev.example.org\"."
  }
}

variable "zone" {
  description = "Name of the public Route 53 zone that contains the domain."
  type        = string

  validation {
    condition     = var.domain == var.zone || endswith(var.domain, ".${var.zone}")
    error_message = "The domain ${var.domain} is not in the zone ${var.zone}, so it could get neither a name nor a certificate. Correct domain or zone. List the zones with: aws route53 list-hosted-zones"
  }
}

variable "admins" {
  description = "ARNs of the IAM roles whose members administer the Kubernetes cluster. With IAM Identity Center: the AWSReservedSSO_… role, with its path."
  type        = list(string)

  validation {
    condition     = length(var.admins) > 0
    error_message = "The list admins is empty, so nobody could reach the cluster. Name at least one IAM role."
  }

  validation {
    condition     = alltrue([for arn in var.admins : can(regex("^arn:aws:iam::\\d{12}:role/.+", arn))])
    error_message = "Each of admins must be the ARN of an IAM role, such as \"arn:aws:iam::123456789012:role/gpudev-admin\"."
  }
}

# Network

variable "cidr" {
  description = "Addresses of the VPC, a /16. Servers, nodes and balancers take theirs from it."
  type        = string
  default     = "10.64.0.0/16"

  validation {
    condition     = can(cidrhost(var.cidr, 0)) && endswith(var.cidr, "/16")
    error_message = "The cidr \"${var.cidr}\" is not a /16 network. Use one such as \"10.64.0.0/16\"."
  }
}

variable "zone_ids" {
  description = "The two availability zones of the CPU nodes and the balancers, by zone id: letters such as us-east-2a name different zones in different accounts."
  type        = list(string)

  validation {
    condition     = length(distinct(var.zone_ids)) == 2
    error_message = "zone_ids must name two different zones, such as [\"use2-az1\", \"use2-az3\"]; it has ${length(distinct(var.zone_ids))}."
  }

  validation {
    condition     = alltrue([for id in var.zone_ids : can(regex("^${local.zone_prefix}-az[1-6]$", id))])
    error_message = "zone_ids has ${join(" and ", [for id in var.zone_ids : id if !can(regex("^${local.zone_prefix}-az[1-6]$", id))])}, but zone ids of ${var.region} are ${local.zone_prefix}-az1, ${local.zone_prefix}-az2 and so on. List them with: aws ec2 describe-availability-zones --region ${var.region}"
  }
}

# Versions. All are pinned; nothing uses the newest version automatically.

variable "kubernetes_version" {
  description = "Version of the control plane. Nodes may be up to three minor versions older."
  type        = string

  validation {
    condition     = contains(["1.35", "1.36"], var.kubernetes_version)
    error_message = "Kubernetes ${var.kubernetes_version} is not a version that gpudev is tested with. Use \"1.35\" or \"1.36\"."
  }
}

variable "addon_versions" {
  description = "Version of each EKS add-on. List them with: aws eks describe-addon-versions --kubernetes-version 1.35"
  type        = map(string)

  validation {
    condition     = alltrue([for version in values(var.addon_versions) : can(regex("^v\\d+\\.\\d+\\.\\d+-eksbuild\\.\\d+$", version))])
    error_message = "Each of addon_versions must be a full version, such as \"v1.22.4-eksbuild.3\"."
  }
}

# CPU nodes: Hub, service, bastion and system pods

variable "cpu" {
  description = "The CPU nodes: instance type, number (over both zones) and AMI release. They are replaced one at a time when the release changes."
  type = object({
    instance_type = string
    count         = number
    release       = string
  })

  validation {
    condition     = var.cpu.count >= 2
    error_message = "cpu.count is ${var.cpu.count}. Use at least 2, one node for each zone."
  }

  validation {
    condition     = can(regex("^1\\.\\d+\\.\\d+-\\d{8}$", var.cpu.release))
    error_message = "cpu.release \"${var.cpu.release}\" is not an AMI release such as \"1.35.2-20260714\". They are listed at github.com/awslabs/amazon-eks-ami/releases."
  }
}

# GPU nodes

variable "reservations" {
  description = <<-EOT
    Capacity that you have reserved (kind "odcr") or bought (kind "block"), by a name of your own.
    Type, zone and count are as `aws ec2 describe-capacity-reservations` shows them.
  EOT
  type = map(object({
    id            = string
    kind          = string
    instance_type = string
    zone_id       = string
    count         = number
  }))
  default = {}

  validation {
    condition     = alltrue([for r in values(var.reservations) : can(regex("^cr-[0-9a-f]{17}$", r.id))])
    error_message = "The id of a reservation is \"cr-\" and 17 hexadecimal digits. Read it with: aws ec2 describe-capacity-reservations"
  }

  validation {
    condition     = alltrue([for r in values(var.reservations) : contains(["odcr", "block"], r.kind)])
    error_message = "The kind of a reservation is \"odcr\" (on-demand capacity reservation) or \"block\" (capacity block)."
  }
}

variable "pools" {
  description = <<-EOT
    Pools of GPU nodes. A pool has one instance type in one zone. Each generation of a pool has one AMI release, and groups of
    nodes that take their capacity on demand or from a reservation. New AMI releases come as a second generation beside the first.
    Before a capacity block starts, and after it has ended, the count of its group is 0.
  EOT
  type = map(object({
    instance_type = string
    zone_id       = string
    generations = map(object({
      release = string
      groups = map(object({
        count       = number
        reservation = optional(string)
      }))
    }))
  }))

  validation {
    condition     = length(var.pools) > 0
    error_message = "pools is empty, so there would be no GPU. Add a pool."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : can(regex("^${local.zone_prefix}-az[1-6]$", pool.zone_id))])
    error_message = "pools has ${join(" and ", [for name, pool in var.pools : "${name} in ${pool.zone_id}" if !can(regex("^${local.zone_prefix}-az[1-6]$", pool.zone_id))])}, but zone ids of ${var.region} are ${local.zone_prefix}-az1, ${local.zone_prefix}-az2 and so on. List them with: aws ec2 describe-availability-zones --region ${var.region}"
  }
}

# Edge, alarms and cost

variable "allow_from" {
  description = "Networks that may reach the Hub (443) and the bastion (22). If you restrict it, add GitHub's networks for its webhooks: the IPv4 networks of \"hooks\" in https://api.github.com/meta."
  type        = list(string)
  default     = ["0.0.0.0/0"]

  validation {
    condition     = length(var.allow_from) > 0 && alltrue([for network in var.allow_from : can(cidrnetmask(network))])
    error_message = "Each of allow_from must be an IPv4 network, such as \"192.0.2.0/24\". For everybody, leave it out."
  }
}

variable "alarm_emails" {
  description = "Mail addresses that get the alarms. AWS asks each one to confirm."
  type        = list(string)

  validation {
    condition     = length(var.alarm_emails) > 0 && alltrue([for address in var.alarm_emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", address))])
    error_message = "alarm_emails needs at least one mail address, such as \"gpudev-operators@example.org\"; otherwise nobody learns of an alarm."
  }
}

variable "budget" {
  description = "Budget of a month in US dollars. Alarms are sent at 80 % of it, and when the forecast is above it."
  type        = number

  validation {
    condition     = var.budget > 0
    error_message = "The budget is ${var.budget}. Set the dollars that a month may cost."
  }
}
