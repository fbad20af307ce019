# The device plug-ins, which report the GPUs (nvidia.com/gpu) and EFA interfaces (vpc.amazonaws.com/efa) of a node to Kubernetes.
# The drivers are in the AMI.

locals {
  on_gpu_nodes = {
    nodeAffinity = {
      requiredDuringSchedulingIgnoredDuringExecution = {
        nodeSelectorTerms = [{ matchExpressions = [{ key = "gpudev/pool", operator = "Exists" }] }]
      }
    }
  }
  tolerate_gpus = [{ key = "nvidia.com/gpu", operator = "Exists", effect = "NoSchedule" }]
}

resource "helm_release" "nvidia" {
  name      = "nvidia-device-plugin"
  namespace = "kube-system"

  repository = "https://nvidia.github.io/k8s-device-plugin"
  chart      = "nvidia-device-plugin"
  version    = "0.20.0"

  values = [yamlencode({
    affinity    = local.on_gpu_nodes
    tolerations = local.tolerate_gpus

    # Otherwise every server with GPUs gets the EFA devices, although the other plug-in allocates them.
    mofedEnabled = false
  })]

  max_history = 10
}

resource "helm_release" "efa" {
  name      = "efa-device-plugin"
  namespace = "kube-system"

  repository = "https://aws.github.io/eks-charts"
  chart      = "aws-efa-k8s-device-plugin"
  version    = "v0.5.30"

  values = [yamlencode({
    image       = { repository = "602401143452.dkr.ecr.${local.cluster.region}.amazonaws.com/eks/aws-efa-k8s-device-plugin" }
    tolerations = local.tolerate_gpus
  })]

  max_history = 10
}
