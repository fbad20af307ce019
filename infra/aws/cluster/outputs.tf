# Outputs that infra/aws/platform reads from this root's state, or that the manual uses.

output "cluster_name" {
  description = "Name of the EKS cluster."
  value       = aws_eks_cluster.this.name
}

output "cluster_endpoint" {
  description = "Address of the cluster's API, which is reachable only from the VPC."
  value       = aws_eks_cluster.this.endpoint
}

output "cluster_ca" {
  description = "Certificate authority of the cluster's API, in base64."
  value       = one(aws_eks_cluster.this.certificate_authority[*].data)
}

output "region" {
  description = "Region of the installation."
  value       = var.region
}

output "domain" {
  description = "Address of the Hub."
  value       = var.domain
}

output "ssh_domain" {
  description = "Address of the bastion."
  value       = "ssh.${var.domain}"
}

output "secret_prefix" {
  description = "Secrets Manager names are SECRET_PREFIX/NAME."
  value       = local.name
}

output "pools" {
  description = "Pools of GPU nodes, for the chart's values and for reservations in their placement groups."
  value = {
    for name, pool in module.pool : name => {
      instance_type   = var.pools[name].instance_type
      zone_id         = var.pools[name].zone_id
      nodes           = pool.nodes
      efa             = pool.efa
      placement_group = pool.placement_group
    }
  }
}

output "management_shell" {
  description = "Opens a shell on the management host."
  value       = "aws ssm start-session --region ${var.region} --target ${aws_instance.management.id} --document-name ${aws_ssm_document.shell.name}"
}

output "management_tunnel" {
  description = "Opens a tunnel to the cluster's API on port 8443 of your machine."
  value       = "aws ssm start-session --region ${var.region} --target ${aws_instance.management.id} --document-name ${aws_ssm_document.tunnel.name}"
}

output "balancer_networks" {
  description = "Networks of the balancers' own addresses. The bastion gives no penalties for their health checks."
  value       = [for subnet in aws_subnet.public : subnet.cidr_block]
}

output "network" {
  description = "Addresses of the VPC: balancers, nodes and pods."
  value       = var.cidr
}

output "scraper_networks" {
  description = "Networks of the Prometheus scraper. The service's network policy lets only these read its metrics."
  value       = [for subnet in aws_subnet.scraper : subnet.cidr_block]
}

output "table_name" {
  description = "DynamoDB table of the reservation service."
  value       = aws_dynamodb_table.this.name
}

output "file_system_id" {
  description = "EFS file system of homes."
  value       = aws_efs_file_system.homes.id
}

output "registry" {
  description = "Images are REGISTRY/gpudev-hub, and copies of public ones REGISTRY/quay/…, REGISTRY/kubernetes/… and REGISTRY/ecr-public/…"
  value       = "${local.account}.dkr.ecr.${var.region}.amazonaws.com/${local.name}"
}

output "secrets" {
  description = "Names of all secrets. Each needs a value before gpudev starts, except the webhook's if webhooks are not used."
  value       = sort([for secret in aws_secretsmanager_secret.this : secret.name])
}

output "metrics_workspace" {
  description = "Id of the Prometheus workspace, a data source of Grafana."
  value       = aws_prometheus_workspace.this.id
}
