# The two public entry points: HTTPS for the Hub, SSH for the bastion. Both forward to ports of the CPU nodes.

# The Hub. TLS ends at this balancer, with the certificate of dns.tf. There is no port 80.

resource "aws_lb" "hub" {
  #checkov:skip=CKV2_AWS_28:Everything behind it needs a login, and the service limits requests itself (docs/threat-model.md).
  #checkov:skip=CKV2_AWS_20:There is no HTTP listener that could redirect.
  name               = "${local.name}-hub"
  load_balancer_type = "application"
  subnets            = [for subnet in aws_subnet.public : subnet.id]
  security_groups    = [aws_security_group.hub_balancer.id]

  # The connection of a notebook to its kernel may be idle for an hour.
  idle_timeout               = 4000 # seconds
  preserve_host_header       = true # users' subdomains need it
  drop_invalid_header_fields = true
  enable_deletion_protection = true

  access_logs {
    bucket  = aws_s3_bucket.access_logs.id
    prefix  = "hub"
    enabled = true
  }

  depends_on = [aws_s3_bucket_policy.access_logs]
}

resource "aws_lb_listener" "hub" {
  load_balancer_arn = aws_lb.hub.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06" # TLS 1.3 and 1.2
  certificate_arn   = aws_acm_certificate_validation.hub.certificate_arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.hub.arn
  }
}

resource "aws_lb_target_group" "hub" {
  #checkov:skip=CKV_AWS_378:Traffic to the nodes stays in the VPC, and the Hub's proxy speaks HTTP.
  name        = "${local.name}-hub"
  vpc_id      = aws_vpc.this.id
  target_type = "instance"
  protocol    = "HTTP"
  port        = 30080

  # Checks the proxy and not the Hub, so that open notebooks stay connected while the Hub restarts.
  health_check {
    path                = "/_chp_healthz"
    matcher             = "200"
    interval            = 10 # seconds
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

# The bastion. Connections keep the address of the client, which limits, penalties and the audit log need.

resource "aws_lb" "bastion" {
  #checkov:skip=CKV_AWS_91:A network balancer logs only TLS connections. The bastion logs every connection itself.
  name               = "${local.name}-bastion"
  load_balancer_type = "network"
  subnets            = [for subnet in aws_subnet.public : subnet.id]
  security_groups    = [aws_security_group.bastion_balancer.id]

  # If a zone has no working bastion, clients go to the other zone.
  enable_cross_zone_load_balancing = true
  enable_deletion_protection       = true
}

resource "aws_lb_listener" "bastion" {
  load_balancer_arn = aws_lb.bastion.arn
  port              = 22
  protocol          = "TCP"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.bastion.arn
  }
}

resource "aws_lb_target_group" "bastion" {
  name               = "${local.name}-bastion"
  vpc_id             = aws_vpc.this.id
  target_type        = "instance"
  protocol           = "TCP"
  port               = 30022
  preserve_client_ip = true

  # Only nodes with a bastion answer. Health checks come from the balancer's subnets, which the bastion exempts from its penalties
  # (output balancer_networks).
  health_check {
    protocol            = "TCP"
    interval            = 10 # seconds
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

# Every CPU node is a target, including nodes that are added later.
resource "aws_autoscaling_attachment" "cpu" {
  #checkov:skip=CKV2_AWS_15:A node without a bastion can be healthy. EKS repairs nodes by the reports of kubelet.
  for_each = {
    hub     = aws_lb_target_group.hub.arn
    bastion = aws_lb_target_group.bastion.arn
  }

  autoscaling_group_name = aws_eks_node_group.cpu.resources[0].autoscaling_groups[0].name
  lb_target_group_arn    = each.value
}

# Only the networks in allow_from may connect, and only to these two ports.

resource "aws_security_group" "hub_balancer" {
  name        = "${local.name}-hub-balancer"
  description = "HTTPS from users to the proxy"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${local.name}-hub-balancer" }
}

resource "aws_vpc_security_group_ingress_rule" "hub" {
  for_each = toset(var.allow_from)

  security_group_id = aws_security_group.hub_balancer.id
  description       = "HTTPS"
  cidr_ipv4         = each.key
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

# Servers, the service and the management host also use the Hub's public name.
resource "aws_vpc_security_group_ingress_rule" "hub_from_vpc" {
  for_each = aws_eip.nat

  security_group_id = aws_security_group.hub_balancer.id
  description       = "HTTPS from the VPC, through its NAT gateway in ${each.key}"
  cidr_ipv4         = "${each.value.public_ip}/32"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "hub_to_proxy" {
  security_group_id            = aws_security_group.hub_balancer.id
  description                  = "Proxy on CPU nodes"
  referenced_security_group_id = aws_security_group.cpu.id
  ip_protocol                  = "tcp"
  from_port                    = 30080
  to_port                      = 30080
}

resource "aws_vpc_security_group_ingress_rule" "proxy_from_hub" {
  security_group_id            = aws_security_group.cpu.id
  description                  = "Proxy, from the balancer"
  referenced_security_group_id = aws_security_group.hub_balancer.id
  ip_protocol                  = "tcp"
  from_port                    = 30080
  to_port                      = 30080
}

resource "aws_security_group" "bastion_balancer" {
  name        = "${local.name}-bastion-balancer"
  description = "SSH from users to the bastion"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${local.name}-bastion-balancer" }
}

resource "aws_vpc_security_group_ingress_rule" "ssh" {
  #checkov:skip=CKV_AWS_24:Users connect from anywhere unless allow_from limits it. The bastion accepts only keys, and only forwards.
  for_each = toset(var.allow_from)

  security_group_id = aws_security_group.bastion_balancer.id
  description       = "SSH"
  cidr_ipv4         = each.key
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
}

resource "aws_vpc_security_group_egress_rule" "ssh_to_bastion" {
  security_group_id            = aws_security_group.bastion_balancer.id
  description                  = "Bastion on CPU nodes"
  referenced_security_group_id = aws_security_group.cpu.id
  ip_protocol                  = "tcp"
  from_port                    = 30022
  to_port                      = 30022
}

# These rules name the balancer's security group. It applies although packets have users' addresses.
resource "aws_vpc_security_group_ingress_rule" "bastion_from_ssh" {
  security_group_id            = aws_security_group.cpu.id
  description                  = "Bastion, from the balancer"
  referenced_security_group_id = aws_security_group.bastion_balancer.id
  ip_protocol                  = "tcp"
  from_port                    = 30022
  to_port                      = 30022
}
