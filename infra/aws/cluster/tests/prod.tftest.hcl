# The order for production: 5 x p5.48xlarge in us-east-2, of which 2 are standing, with 32 EFA interfaces each.
# With prod.tfvars, as every test here that is not named test.tftest.hcl.

mock_provider "aws" {
  # Lists that AWS fills.
  mock_resource "aws_acm_certificate" {
    defaults = { domain_validation_options = [{ domain_name = "d", resource_record_name = "n", resource_record_type = "CNAME", resource_record_value = "v" }] }
  }
  mock_resource "aws_eks_node_group" {
    defaults = { resources = [{ autoscaling_groups = [{ name = "eks-cpu" }], remote_access_security_group_id = "" }] }
  }
}

run "order" {
  command = plan

  assert {
    condition     = local.name == "gpudev-prod" && var.region == "us-east-2"
    error_message = "Production is gpudev-prod in us-east-2, not ${local.name} in ${var.region}."
  }

  assert {
    condition     = keys(output.pools) == ["h100"] && output.pools["h100"].instance_type == "p5.48xlarge"
    error_message = "Production has one pool, h100, of p5.48xlarge."
  }

  assert {
    condition     = output.pools["h100"].nodes == 5
    error_message = "Production has 5 nodes, not ${output.pools["h100"].nodes}."
  }

  assert {
    condition     = output.pools["h100"].efa == 32
    error_message = "A node of production has 32 EFA interfaces, not ${output.pools["h100"].efa}."
  }

  assert {
    condition     = var.reservations["standing"].count == 2 && sum([for g in values(var.pools["h100"].generations) : g.groups["standing"].count]) == 2
    error_message = "Two nodes of production are standing: reserved, and asked for."
  }
}
