# The management host and the ways to it.

mock_provider "aws" {
  # Lists that AWS fills.
  mock_resource "aws_acm_certificate" {
    defaults = { domain_validation_options = [{ domain_name = "d", resource_record_name = "n", resource_record_type = "CNAME", resource_record_value = "v" }] }
  }
  mock_resource "aws_eks_node_group" {
    defaults = { resources = [{ autoscaling_groups = [{ name = "eks-cpu" }], remote_access_security_group_id = "" }] }
  }
}

run "host" {
  command = plan

  assert {
    condition     = aws_instance.management.metadata_options[0].http_tokens == "required" && aws_instance.management.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "Instance metadata must require tokens, and answer one hop away only."
  }

  assert {
    condition     = aws_instance.management.root_block_device[0].encrypted
    error_message = "The management host's disk must be encrypted."
  }

  assert {
    condition     = data.aws_ami.management.most_recent != true && !strcontains(local.management_image, "*")
    error_message = "The management host's image must be named exactly."
  }

  assert {
    condition     = can(regex("^[0-9a-f]{64}$", local.kubectl.sha256)) && can(regex("^[0-9a-f]{64}$", local.helm.sha256))
    error_message = "kubectl and helm need a SHA-256 checksum each."
  }

  assert {
    condition     = startswith(local.kubectl.version, "${var.kubernetes_version}.")
    error_message = "kubectl ${local.kubectl.version} must have the cluster's version, ${var.kubernetes_version}."
  }
}

run "sessions" {
  command = apply # with the mocked provider

  assert {
    condition     = jsondecode(aws_ssm_document.shell.content).inputs.cloudWatchLogGroupName == "/gpudev/prod/sessions" && jsondecode(aws_ssm_document.shell.content).inputs.cloudWatchEncryptionEnabled
    error_message = "What operators type must be logged, encrypted."
  }

  assert {
    condition     = jsondecode(aws_ssm_document.tunnel.content).properties.portNumber == "443" && keys(jsondecode(aws_ssm_document.tunnel.content).parameters) == ["localPortNumber"]
    error_message = "The tunnel must lead to the cluster's API and to nothing else."
  }
}
