# The order for the test installation: 2 x g4dn.12xlarge. With test.tfvars.

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
    condition     = local.name == "gpudev-test" && var.region == "us-east-2"
    error_message = "The test installation is gpudev-test in us-east-2, not ${local.name} in ${var.region}."
  }

  assert {
    condition     = keys(output.pools) == ["t4"] && output.pools["t4"].instance_type == "g4dn.12xlarge"
    error_message = "The test installation has one pool, t4, of g4dn.12xlarge."
  }

  assert {
    condition     = output.pools["t4"].nodes == 2 && output.pools["t4"].efa == 1
    error_message = "The test installation has 2 nodes with 1 EFA interface each, not ${output.pools["t4"].nodes} with ${output.pools["t4"].efa}."
  }
}
