environment = "prod"
region      = "us-east-2"
domain      = "gpudev.example.org"
zone        = "example.org"
admins      = ["arn:aws:iam::123456789012:role/gpudev-admin"]

zone_ids = ["use2-az1", "use2-az3"]

kubernetes_version = "1.35"
addon_versions = {
  vpc-cni                               = "v1.22.4-eksbuild.3"
  kube-proxy                            = "v1.35.3-eksbuild.29"
  eks-pod-identity-agent                = "v1.3.10-eksbuild.3"
  coredns                               = "v1.13.2-eksbuild.31"
  aws-ebs-csi-driver                    = "v1.66.0-eksbuild.1"
  aws-efs-csi-driver                    = "v3.4.2-eksbuild.1"
  aws-secrets-store-csi-driver-provider = "v3.1.3-eksbuild.1"
  eks-node-monitoring-agent             = "v1.6.4-eksbuild.1"
}

cpu = { instance_type = "m7i.xlarge", count = 2, release = "1.35.6-20260714" }

# Two nodes are reserved. The other three start only if EC2 has capacity at that moment.
reservations = {
  standing = {
    id            = "cr-0123456789abcdef0"
    kind          = "odcr"
    instance_type = "p5.48xlarge"
    zone_id       = "use2-az3"
    count         = 2
  }
}

pools = {
  h100 = {
    instance_type = "p5.48xlarge"
    zone_id       = "use2-az3"
    generations = {
      a = {
        release = "1.35.6-20260714"
        groups = {
          standing = { count = 2, reservation = "standing" }
          extra    = { count = 3 }
        }
      }
    }
  }
}

alarm_emails = ["gpudev-operators@example.org"]
budget       = 230000 # US dollars a month
