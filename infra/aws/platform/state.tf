# The outputs of infra/aws/cluster, read from its state.

data "terraform_remote_state" "cluster" {
  backend = "s3"

  config = {
    bucket = var.cluster_state.bucket
    key    = "cluster.tfstate"
    region = var.cluster_state.region
  }

  lifecycle {
    postcondition {
      condition     = self.outputs.cluster_name == "gpudev-${var.environment}"
      error_message = "The state in ${var.cluster_state.bucket} belongs to ${self.outputs.cluster_name}, but the environment is \"${var.environment}\". Use the tfvars and tfbackend files of one environment."
    }
  }
}

locals {
  cluster = data.terraform_remote_state.cluster.outputs
}
