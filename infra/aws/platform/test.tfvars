environment   = "test"
cluster_state = { bucket = "gpudev-test-tofu-state", region = "us-east-2" }

tags = { hub = "0.1.0", bastion = "0.1.0" }

pools = [
  {
    name       = "t4"
    label      = "4 × T4 (g4dn.12xlarge)"
    images     = ["0.1.0"]
    gpus       = 4
    max_nodes  = 2
    cpus       = 44
    memory_gib = 170
    disk_gib   = 700
  },
]

github = {
  app_id         = 123456
  client_id      = "Iv23liExample"
  team           = "pytorch/metamates"
  repository     = "pytorch/pytorch"
  operator_teams = ["pytorch/gpudev-operators"]
}
