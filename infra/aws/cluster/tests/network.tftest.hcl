# Subnets, and the groups around nodes.

mock_provider "aws" {
  # Lists that AWS fills.
  mock_resource "aws_acm_certificate" {
    defaults = { domain_validation_options = [{ domain_name = "d", resource_record_name = "n", resource_record_type = "CNAME", resource_record_value = "v" }] }
  }
  mock_resource "aws_eks_node_group" {
    defaults = { resources = [{ autoscaling_groups = [{ name = "eks-cpu" }], remote_access_security_group_id = "" }] }
  }
}

run "subnets" {
  command = plan

  assert {
    condition     = { for id, subnet in aws_subnet.private : id => subnet.cidr_block } == { use2-az1 = "10.64.32.0/19", use2-az3 = "10.64.96.0/19" }
    error_message = "Private subnets must have the addresses that the zone's number gives them."
  }

  assert {
    condition     = { for id, subnet in aws_subnet.public : id => subnet.cidr_block } == { use2-az1 = "10.64.1.0/24", use2-az3 = "10.64.3.0/24" }
    error_message = "Public subnets must have the addresses that the zone's number gives them."
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 2
    error_message = "Each zone with CPU nodes must have its own NAT gateway."
  }

  assert {
    condition     = length(setsubtract(["ecr.api", "ecr.dkr", "sts", "ec2", "eks-auth"], keys(aws_vpc_endpoint.interface))) == 0 && length(setsubtract(["s3", "dynamodb"], keys(aws_vpc_endpoint.gateway))) == 0
    error_message = "S3, DynamoDB, ECR, STS, EC2 and Pod Identity must be reached inside the VPC."
  }

  assert {
    condition     = aws_flow_log.this.traffic_type == "ALL"
    error_message = "Flow logs must have all traffic."
  }
}

# A pool in a third zone gets a subnet there, and moves none.
run "third_zone" {
  command = plan

  variables {
    reservations = {}
    pools = {
      h100 = {
        instance_type = "p5.48xlarge"
        zone_id       = "use2-az2"
        generations   = { a = { release = "1.35.6-20260714", groups = { all = { count = 1 } } } }
      }
    }
  }

  assert {
    condition     = aws_subnet.private["use2-az2"].cidr_block == "10.64.64.0/19" && aws_subnet.private["use2-az3"].cidr_block == "10.64.96.0/19"
    error_message = "A third zone must not move the others' subnets."
  }

  assert {
    condition     = keys(aws_subnet.public) == ["use2-az1", "use2-az3"]
    error_message = "A zone with only GPU nodes needs no public subnet."
  }
}

run "efa" {
  command = plan

  assert {
    condition     = aws_vpc_security_group_ingress_rule.efa.ip_protocol == "-1" && aws_vpc_security_group_egress_rule.efa.ip_protocol == "-1"
    error_message = "The group for EFA must allow all traffic from and to itself."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.efa.cidr_ipv4 == null && aws_vpc_security_group_egress_rule.efa.cidr_ipv4 == null
    error_message = "The group for EFA must name itself; EFA does not work with an address range."
  }
}
