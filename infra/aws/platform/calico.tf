# Calico only enforces network policies; the VPC CNI manages addresses and routes. The VPC CNI's own enforcement does not reliably
# cover pods without a Deployment, such as users' servers.
#
# This chart contains its CRDs, which helm creates but does not upgrade. From version 3.32 on, they are in a separate chart.

resource "helm_release" "calico" {
  name             = "calico"
  namespace        = "tigera-operator"
  create_namespace = true

  repository = "https://docs.tigera.io/calico/charts"
  chart      = "tigera-operator"
  version    = "v3.31.7"

  values = [yamlencode({
    installation = {
      registry           = "${local.cluster.registry}/quay/" # a copy of quay.io
      kubernetesProvider = "EKS"
      cni                = { type = "AmazonVPC" }
      calicoNetwork      = { bgp = "Disabled" }

      # Typha gives all nodes their policies, so it must not run on GPU nodes, which come and go.
      typhaAffinity = {
        nodeAffinity = {
          requiredDuringSchedulingIgnoredDuringExecution = {
            nodeSelectorTerms = [{ matchExpressions = [{ key = "gpudev/pool", operator = "DoesNotExist" }] }]
          }
        }
      }
    }

    tigeraOperator = { registry = "${local.cluster.registry}/quay" }
    calicoctl      = { image = "${local.cluster.registry}/quay/calico/ctl" }

    # gpudev uses only Kubernetes' own policies, so Calico's API and traffic charts are not needed.
    apiServer = { enabled = false }
    goldmane  = { enabled = false }
    whisker   = { enabled = false }
  })]

  timeout     = 600
  max_history = 10
}
