# The objects outside of namespaces that the management host may read: nodes, volumes, and the classes and policies for them. It
# changes nothing and reads no Secrets. EKS puts the host's role into the group (infra/aws/cluster/access.tf).

resource "kubernetes_cluster_role_v1" "viewers" {
  metadata {
    name = "gpudev-viewers"
  }

  rule {
    api_groups = [""]
    resources  = ["nodes", "persistentvolumes"]
    verbs      = ["get", "list", "watch"]
  }

  rule {
    api_groups = ["storage.k8s.io"]
    resources  = ["storageclasses", "volumeattachments", "csinodes"]
    verbs      = ["get", "list", "watch"]
  }

  rule {
    api_groups = ["operator.tigera.io"]
    resources  = ["tigerastatuses", "installations"]
    verbs      = ["get", "list", "watch"]
  }
}

resource "kubernetes_cluster_role_binding_v1" "viewers" {
  metadata {
    name = "gpudev-viewers"
  }

  role_ref {
    api_group = "rbac.authorization.k8s.io"
    kind      = "ClusterRole"
    name      = kubernetes_cluster_role_v1.viewers.metadata[0].name
  }

  subject {
    api_group = "rbac.authorization.k8s.io"
    kind      = "Group"
    name      = "gpudev-viewers"
  }
}
