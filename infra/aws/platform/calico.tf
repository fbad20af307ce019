# Calico enforces network policies, and does nothing else: addresses and routes stay with the VPC CNI. The VPC CNI's own
# enforcement does not reliably cover pods without a Deployment, and users' servers are such pods.
#
# This chart brings its CRDs, which helm creates but does not upgrade. From 3.32 on they are a chart of their own.

resource "helm_release" "calico" {
  name             = "calico"
  namespace        = "tigera-operator"
  create_namespace = true

  repository = "https://docs.tigera.io/calico/charts"
  chart      = "tigera-operator"
  version    = "v3.31.7"

  values = [yamlencode({
    installation = {
      registry           = "${local.cluster.registry}/quay/" # our copy of quay.io
      kubernetesProvider = "EKS"
      cni                = { type = "AmazonVPC" }
      calicoNetwork      = { bgp = "Disabled" }

      # Typha, which all nodes ask for policies, stays when GPU nodes go.
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

    # Policies are Kubernetes' own kind; nobody needs Calico's, nor pictures of the traffic.
    apiServer = { enabled = false }
    goldmane  = { enabled = false }
    whisker   = { enabled = false }
  })]

  timeout     = 600
  max_history = 10
}
