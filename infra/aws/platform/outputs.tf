# Addresses for users.

output "hub" {
  description = "Address of the Hub."
  value       = local.settings.public_url
}

output "bastion" {
  description = "Address of the bastion."
  value       = local.cluster.ssh_domain
}
