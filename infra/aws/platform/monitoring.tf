# Metrics of each GPU, for dashboards and alarms. Prometheus, outside the cluster, reads them (infra/aws/cluster/metrics.tf).

resource "helm_release" "dcgm" {
  name      = "dcgm-exporter"
  namespace = "kube-system"

  repository = "https://nvidia.github.io/dcgm-exporter/helm-charts"
  chart      = "dcgm-exporter"
  version    = "4.8.2"

  values = [yamlencode({
    affinity    = local.on_gpu_nodes
    tolerations = local.tolerate_gpus

    # Leave out profiling counters (DCGM_FI_PROF_…). They prevent users from profiling with Nsight, and need SYS_ADMIN.
    customMetrics = <<-EOT
      DCGM_FI_DEV_GPU_UTIL, gauge, GPU utilization (in %).
      DCGM_FI_DEV_MEM_COPY_UTIL, gauge, Memory utilization (in %).
      DCGM_FI_DEV_FB_USED, gauge, Framebuffer memory used (in MiB).
      DCGM_FI_DEV_FB_FREE, gauge, Framebuffer memory free (in MiB).
      DCGM_FI_DEV_GPU_TEMP, gauge, GPU temperature (in C).
      DCGM_FI_DEV_MEMORY_TEMP, gauge, Memory temperature (in C).
      DCGM_FI_DEV_POWER_USAGE, gauge, Power draw (in W).
      DCGM_FI_DEV_SM_CLOCK, gauge, SM clock frequency (in MHz).
      DCGM_FI_DEV_PCIE_REPLAY_COUNTER, counter, Total number of PCIe retries.
      DCGM_FI_DEV_XID_ERRORS, gauge, Value of the last XID error encountered.
      DCGM_FI_DEV_ECC_DBE_VOL_TOTAL, counter, Total number of double-bit volatile ECC errors.
      DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS, counter, Number of remapped rows for uncorrectable errors
      DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS, counter, Number of remapped rows for correctable errors
      DCGM_FI_DEV_ROW_REMAP_FAILURE, gauge, Whether remapping of rows has failed
      DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL, counter, Total number of NVLink bandwidth counters for all lanes.
    EOT

    # Runs as root only to ask kubelet's socket which pod uses each GPU.
    securityContext = {
      runAsNonRoot             = false
      runAsUser                = 0
      allowPrivilegeEscalation = false
      capabilities             = { add = [], drop = ["ALL"] }
    }

    # The cluster has no Prometheus operator.
    serviceMonitor = { enabled = false }
  })]

  max_history = 10
}
