variable "name" {
  description = "Name of the pool: the label gpudev/pool of its nodes, and its key in gpudev's settings."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9]{0,15}$", var.name))
    error_message = "The pool \"${var.name}\" needs a name of 1 to 16 lower-case letters and digits, such as \"h100\"."
  }
}

variable "cluster" {
  description = "Name of the EKS cluster."
  type        = string
}

variable "instance_type" {
  description = "Instance type of every node."
  type        = string

  validation {
    condition     = contains(keys(local.types), var.instance_type)
    error_message = "Pool ${var.name}: the EFA interfaces of ${var.instance_type} are not known. Add the type to pool/types.tf, or use one of ${join(", ", keys(local.types))}."
  }
}

variable "subnet" {
  description = "The subnet of every node, and so their zone: EFA does not work between zones."
  type = object({
    id                   = string
    availability_zone_id = string
  })
}

variable "node_role_arn" {
  description = "IAM role of the nodes."
  type        = string
}

variable "security_group_ids" {
  description = "Security groups of every network interface: the cluster's, and the one for EFA."
  type        = list(string)
}

variable "tags" {
  description = "Tags of the nodes, their disks and network interfaces."
  type        = map(string)
}

variable "reservations" {
  description = "Reserved capacity, as in the root's variable."
  type = map(object({
    id            = string
    kind          = string
    instance_type = string
    zone_id       = string
    count         = number
  }))
}

variable "generations" {
  description = "Generations of nodes, as in the root's variable pools."
  type = map(object({
    release = string
    groups = map(object({
      count       = number
      reservation = optional(string)
    }))
  }))

  validation {
    condition     = alltrue([for name in concat(keys(var.generations), flatten([for g in values(var.generations) : keys(g.groups)])) : can(regex("^[a-z0-9]{1,16}$", name))])
    error_message = "Pool ${var.name}: generations and groups need names of 1 to 16 lower-case letters and digits, such as \"a\" and \"standing\"."
  }

  validation {
    condition     = alltrue([for g in values(var.generations) : can(regex("^1\\.\\d+\\.\\d+-\\d{8}$", g.release))])
    error_message = "Pool ${var.name}: each generation needs an AMI release such as \"1.35.6-20260714\". They are listed at github.com/awslabs/amazon-eks-ami/releases."
  }

  validation {
    condition     = alltrue(flatten([for g in values(var.generations) : [for group in values(g.groups) : group.count >= 0 && floor(group.count) == group.count]]))
    error_message = "Pool ${var.name}: the count of a group is a whole number of nodes, 0 or more."
  }
}

locals {
  zone_id = var.subnet.availability_zone_id

  # "a-standing" = {generation = "a", release = "…", count = 2, reservation = {…} or null}
  groups = merge([
    for generation, g in var.generations : {
      for name, group in g.groups : "${generation}-${name}" => {
        release     = g.release
        count       = group.count
        name        = group.reservation
        reservation = group.reservation == null ? null : lookup(var.reservations, group.reservation, null)
      }
    }
  ]...)

  named   = toset([for group in values(local.groups) : group.name if group.name != null])
  unknown = setsubtract(local.named, keys(var.reservations))
  used    = { for name, r in var.reservations : name => r if contains(local.named, name) }
  asked   = { for name, r in local.used : name => sum([for group in values(local.groups) : group.count if group.name == name]) }
}
