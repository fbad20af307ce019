# Values that the module pool refuses. tests/infra/test_refusals.py has the sentences.

mock_provider "aws" {}

variables {
  name               = "h100"
  cluster            = "gpudev-prod"
  instance_type      = "p5.48xlarge"
  subnet             = { id = "subnet-0123456789abcdef0", availability_zone_id = "use2-az3" }
  node_role_arn      = "arn:aws:iam::123456789012:role/gpudev-prod-node"
  security_group_ids = ["sg-0123456789abcdef0", "sg-0123456789abcdef1"]
  tags               = {}
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

run "unknown_type" {
  command = plan
  module { source = "./pool" }
  variables {
    instance_type = "p5.4xlarge"
    generations   = { a = { release = "1.35.6-20260714", groups = { all = { count = 1 } } } }
  }
  expect_failures = [var.instance_type]
}

run "unknown_reservation" {
  command = plan
  module { source = "./pool" }
  variables {
    generations = { a = { release = "1.35.6-20260714", groups = { all = { count = 1, reservation = "november" } } } }
  }
  expect_failures = [aws_placement_group.this]
}

run "block_in_another_zone" {
  command = plan
  module { source = "./pool" }
  variables {
    generations = { a = { release = "1.35.6-20260714", groups = { all = { count = 1, reservation = "west" } } } }
  }
  expect_failures = [aws_placement_group.this]
}

run "reservation_for_another_type" {
  command = plan
  module { source = "./pool" }
  variables {
    generations = { a = { release = "1.35.6-20260714", groups = { all = { count = 1, reservation = "other" } } } }
  }
  expect_failures = [aws_placement_group.this]
}

run "more_than_the_block" {
  command = plan
  module { source = "./pool" }
  variables {
    generations = { a = { release = "1.35.6-20260714", groups = { all = { count = 5, reservation = "october" } } } }
  }
  expect_failures = [aws_placement_group.this]
}

run "more_than_the_reservation_over_two_generations" {
  command = plan
  module { source = "./pool" }
  variables {
    generations = {
      a = { release = "1.35.6-20260714", groups = { standing = { count = 2, reservation = "standing" } } }
      b = { release = "1.36.1-20260801", groups = { standing = { count = 1, reservation = "standing" } } }
    }
  }
  expect_failures = [aws_placement_group.this]
}

run "newest_image" {
  command = plan
  module { source = "./pool" }
  variables {
    generations = { a = { release = "latest", groups = { all = { count = 1 } } } }
  }
  expect_failures = [var.generations]
}

run "half_a_node" {
  command = plan
  module { source = "./pool" }
  variables {
    generations = { a = { release = "1.35.6-20260714", groups = { all = { count = 0.5 } } } }
  }
  expect_failures = [var.generations]
}
