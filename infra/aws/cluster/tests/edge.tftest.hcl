# The two ways in, their names, and the certificate.

mock_provider "aws" {
  # Lists that AWS fills.
  mock_resource "aws_acm_certificate" {
    defaults = { domain_validation_options = [{ domain_name = "d", resource_record_name = "n", resource_record_type = "CNAME", resource_record_value = "v" }] }
  }
  mock_resource "aws_eks_node_group" {
    defaults = { resources = [{ autoscaling_groups = [{ name = "eks-cpu" }], remote_access_security_group_id = "" }] }
  }
}

run "hub" {
  command = plan

  assert {
    condition     = aws_lb.hub.idle_timeout == 4000
    error_message = "The Hub must keep silent connections for over an hour."
  }

  assert {
    condition     = aws_lb_listener.hub.port == 443 && aws_lb_listener.hub.protocol == "HTTPS"
    error_message = "The Hub must be reached by HTTPS alone."
  }

  assert {
    condition     = aws_lb_listener.hub.ssl_policy == "ELBSecurityPolicy-TLS13-1-2-2021-06"
    error_message = "The Hub must not speak TLS before 1.2."
  }

  assert {
    condition     = aws_lb_target_group.hub.port == 30080 && aws_lb_target_group.hub.target_type == "instance"
    error_message = "The Hub must be reached by its port of the nodes."
  }

  assert {
    condition     = aws_lb.hub.access_logs[0].enabled
    error_message = "The Hub must log who asks."
  }

  assert {
    condition     = aws_lb.hub.enable_deletion_protection && aws_lb.bastion.enable_deletion_protection
    error_message = "Balancers must not be deleted by mistake."
  }

  assert {
    condition     = aws_lb.hub.internal != true && aws_lb.bastion.internal != true
    error_message = "Users must reach both balancers."
  }
}

run "bastion" {
  command = plan

  assert {
    condition     = aws_lb_listener.bastion.port == 22 && aws_lb_listener.bastion.protocol == "TCP"
    error_message = "The bastion must be reached at port 22."
  }

  assert {
    condition     = tobool(aws_lb_target_group.bastion.preserve_client_ip)
    error_message = "The bastion must see the addresses of users."
  }

  assert {
    condition     = aws_lb_target_group.bastion.port == 30022 && aws_lb_target_group.bastion.target_type == "instance"
    error_message = "The bastion must be reached by its port of the nodes."
  }

  assert {
    condition     = output.balancer_networks == [for subnet in aws_subnet.public : subnet.cidr_block]
    error_message = "The bastion must know where health checks come from."
  }
}

run "ports" {
  command = plan

  assert {
    condition     = alltrue([for rule in values(aws_vpc_security_group_ingress_rule.hub) : rule.from_port == 443 && rule.to_port == 443])
    error_message = "Only port 443 of the Hub may be open."
  }

  assert {
    condition     = alltrue([for rule in values(aws_vpc_security_group_ingress_rule.ssh) : rule.from_port == 22 && rule.to_port == 22])
    error_message = "Only port 22 of the bastion may be open."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.proxy_from_hub.cidr_ipv4 == null && aws_vpc_security_group_ingress_rule.bastion_from_ssh.cidr_ipv4 == null
    error_message = "Nodes must let the balancers in, and nobody else."
  }

  assert {
    condition     = keys(aws_vpc_security_group_ingress_rule.hub) == ["0.0.0.0/0"] && keys(aws_vpc_security_group_ingress_rule.ssh) == ["0.0.0.0/0"]
    error_message = "Without a list, everybody may come."
  }
}

run "allow_list" {
  command = plan

  variables {
    allow_from = ["192.0.2.0/24", "198.51.100.7/32"]
  }

  assert {
    condition     = keys(aws_vpc_security_group_ingress_rule.hub) == ["192.0.2.0/24", "198.51.100.7/32"] && keys(aws_vpc_security_group_ingress_rule.ssh) == ["192.0.2.0/24", "198.51.100.7/32"]
    error_message = "With a list, only those may come."
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.hub_from_vpc) == 2
    error_message = "Servers must reach the Hub by its public name, whoever else may."
  }
}

run "names" {
  command = plan

  assert {
    condition     = toset([for record in values(aws_route53_record.this) : record.name]) == toset(["gpudev.example.org", "*.gpudev.example.org", "ssh.gpudev.example.org"])
    error_message = "The Hub, users' servers and the bastion have names."
  }

  assert {
    condition     = aws_route53_record.this["bastion"].alias[0].name == aws_lb.bastion.dns_name && aws_route53_record.this["hub"].alias[0].name == aws_lb.hub.dns_name
    error_message = "Names must lead to their balancers."
  }

  assert {
    condition     = aws_acm_certificate.hub.domain_name == "gpudev.example.org" && aws_acm_certificate.hub.subject_alternative_names == toset(["*.gpudev.example.org"])
    error_message = "The certificate must be for the Hub and for users' servers."
  }
}
