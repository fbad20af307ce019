# The module pool with other instance types, and over its life: before its reservation, two generations, a changed release.

mock_provider "aws" {}

variables {
  name               = "h100"
  cluster            = "gpudev-prod"
  instance_type      = "p5.48xlarge"
  subnet             = { id = "subnet-0123456789abcdef0", availability_zone_id = "use2-az3" }
  node_role_arn      = "arn:aws:iam::123456789012:role/gpudev-prod-node"
  security_group_ids = ["sg-0123456789abcdef0", "sg-0123456789abcdef1"]
  tags               = { project = "gpudev", environment = "prod" }
  reservations = {
    standing = { id = "cr-0123456789abcdef0", kind = "odcr", instance_type = "p5.48xlarge", zone_id = "use2-az3", count = 2 }
    october  = { id = "cr-0123456789abcdef1", kind = "block", instance_type = "p5.48xlarge", zone_id = "use2-az3", count = 4 }
    west     = { id = "cr-0123456789abcdef2", kind = "block", instance_type = "p5.48xlarge", zone_id = "use2-az1", count = 4 }
    other    = { id = "cr-0123456789abcdef3", kind = "odcr", instance_type = "p5en.48xlarge", zone_id = "use2-az3", count = 4 }
  }
  generations = {
    a = {
      release = "1.35.6-20260714"
      groups = {
        standing = { count = 2, reservation = "standing" }
        extra    = { count = 3 }
        october  = { count = 4, reservation = "october" }
      }
    }
  }
}

run "cards_g4dn" {
  command = plan
  module { source = "./pool" }

  variables {
    instance_type = "g4dn.12xlarge"
    generations   = { a = { release = "1.35.6-20260714", groups = { all = { count = 2 } } } }
  }

  assert {
    condition     = [for i in aws_launch_template.this["a-all"].network_interfaces : i.interface_type] == ["efa"]
    error_message = "A g4dn.12xlarge has one interface, with EFA."
  }
}

# The first card of a p6-b300 has no EFA.
run "cards_b300" {
  command = plan
  module { source = "./pool" }

  variables {
    instance_type = "p6-b300.48xlarge"
    generations   = { a = { release = "1.35.6-20260714", groups = { all = { count = 1 } } } }
  }

  assert {
    condition     = [for i in aws_launch_template.this["a-all"].network_interfaces : i.interface_type] == concat(["interface"], [for n in range(16) : "efa-only"])
    error_message = "A p6-b300.48xlarge has 17 interfaces: one for IP, 16 for EFA."
  }
}

# A second generation takes over the reservation, node by node.
run "two_generations" {
  command = plan
  module { source = "./pool" }

  variables {
    generations = {
      a = { release = "1.35.6-20260714", groups = { standing = { count = 1, reservation = "standing" } } }
      b = { release = "1.36.1-20260801", groups = { standing = { count = 1, reservation = "standing" } } }
    }
  }

  assert {
    condition     = { for name, g in aws_eks_node_group.this : name => g.version } == { a-standing = "1.35", b-standing = "1.36" }
    error_message = "Each generation must have its own group and version."
  }
}

# The placement group is there before a reservation can be made in it.
run "before_the_reservation" {
  command = plan
  module { source = "./pool" }

  variables {
    generations  = {}
    reservations = {}
  }

  assert {
    condition     = aws_placement_group.this.name == "gpudev-prod-h100" && length(aws_eks_node_group.this) == 0
    error_message = "A pool without generations must have a placement group, and no nodes."
  }
}

run "first" {
  command = apply # with the mocked provider
  module { source = "./pool" }
}

run "no_update_in_place" {
  command = plan
  module { source = "./pool" }

  variables {
    generations = {
      a = {
        release = "1.35.6-20260801"
        groups = {
          standing = { count = 2, reservation = "standing" }
          extra    = { count = 3 }
          october  = { count = 4, reservation = "october" }
        }
      }
    }
  }

  expect_failures = [aws_eks_node_group.this]
}
