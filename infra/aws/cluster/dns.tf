# Names in Route 53, and the certificate of the Hub. ssh.DOMAIN is the bastion, and *.DOMAIN are users' servers.

data "aws_route53_zone" "this" {
  name         = var.zone
  private_zone = false
}

resource "aws_acm_certificate" "hub" {
  domain_name               = var.domain
  subject_alternative_names = ["*.${var.domain}"]
  validation_method         = "DNS"

  lifecycle {
    create_before_destroy = true
  }
}

# One record validates both names. Keep it: AWS needs it to renew the certificate.
locals {
  proof = tolist(aws_acm_certificate.hub.domain_validation_options)[0]
}

resource "aws_route53_record" "proof" {
  zone_id = data.aws_route53_zone.this.zone_id
  name    = local.proof.resource_record_name
  type    = local.proof.resource_record_type
  records = [local.proof.resource_record_value]
  ttl     = 300
}

resource "aws_acm_certificate_validation" "hub" {
  certificate_arn         = aws_acm_certificate.hub.arn
  validation_record_fqdns = [aws_route53_record.proof.fqdn]
}

locals {
  names = {
    hub     = { name = var.domain, balancer = aws_lb.hub }
    users   = { name = "*.${var.domain}", balancer = aws_lb.hub }
    bastion = { name = "ssh.${var.domain}", balancer = aws_lb.bastion }
  }
}

resource "aws_route53_record" "this" {
  #checkov:skip=CKV2_AWS_23:Each record points to a balancer of edge.tf, which checkov does not find behind for_each.
  for_each = local.names

  zone_id = data.aws_route53_zone.this.zone_id
  name    = each.value.name
  type    = "A"

  alias {
    name                   = each.value.balancer.dns_name
    zone_id                = each.value.balancer.zone_id
    evaluate_target_health = false # there is no other target
  }
}
