# Values that are refused before anything is planned: several in a run, since each is checked by itself.

mock_provider "aws" {
  # Lists that AWS fills.
  mock_resource "aws_acm_certificate" {
    defaults = { domain_validation_options = [{ domain_name = "d", resource_record_name = "n", resource_record_type = "CNAME", resource_record_value = "v" }] }
  }
  mock_resource "aws_eks_node_group" {
    defaults = { resources = [{ autoscaling_groups = [{ name = "eks-cpu" }], remote_access_security_group_id = "" }] }
  }
}

run "refused" {
  command = plan

  variables {
    environment        = "staging"
    domain             = "https://gpudev.example.org"
    allow_from         = ["everybody"]
    alarm_emails       = []
    budget             = 0
    admins             = []
    cidr               = "10.64.0.0/24"
    zone_ids           = ["use2-az3", "use2-az3"]
    kubernetes_version = "1.34"
    addon_versions     = { vpc-cni = "latest" }
    cpu                = { instance_type = "m7i.xlarge", count = 1, release = "1.35.6-20260714" }
    pools              = {}
    reservations = {
      standing = { id = "standing", kind = "odcr", instance_type = "p5.48xlarge", zone_id = "use2-az3", count = 2 }
    }
  }

  expect_failures = [
    var.environment,
    var.domain,
    var.allow_from,
    var.alarm_emails,
    var.budget,
    var.admins,
    var.cidr,
    var.zone_ids,
    var.kubernetes_version,
    var.addon_versions,
    var.cpu,
    var.pools,
    var.reservations,
  ]
}

run "refused_otherwise" {
  command = plan

  variables {
    zone     = "example.com"
    admins   = ["arn:aws:iam::123456789012:user/alice"]
    zone_ids = ["us-east-2a", "us-east-2b"]
    cpu      = { instance_type = "m7i.xlarge", count = 2, release = "latest" }
    reservations = {
      standing = { id = "cr-0123456789abcdef0", kind = "spot", instance_type = "p5.48xlarge", zone_id = "use2-az3", count = 2 }
    }
    pools = {
      h100 = {
        instance_type = "p5.48xlarge"
        zone_id       = "use1-az3"
        generations   = { a = { release = "1.35.6-20260714", groups = { all = { count = 1 } } } }
      }
    }
  }

  expect_failures = [var.zone, var.admins, var.zone_ids, var.cpu, var.reservations, var.pools]
}

run "zone_instead_of_a_region" {
  command = plan

  variables {
    region = "us-east-2a"
  }

  expect_failures = [var.region]
}
