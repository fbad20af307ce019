environment   = "prod"
cluster_state = { bucket = "gpudev-prod-tofu-state", region = "us-east-2" }

tags = { hub = "0.1.0", bastion = "0.1.0" }

pools = [
  {
    name       = "h100"
    label      = "8 × H100 (p5.48xlarge)"
    images     = ["0.1.0"]
    gpus       = 8
    max_nodes  = 2
    cpus       = 184
    memory_gib = 1900
    disk_gib   = 24000
  },
]

github = {
  app_id         = 123456
  client_id      = "Iv23liExample"
  team           = "pytorch/metamates"
  repository     = "pytorch/pytorch"
  operator_teams = ["pytorch/gpudev-operators"]
}
