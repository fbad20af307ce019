output "placement_group" {
  description = "ARN of the placement group, for: aws ec2 create-capacity-reservation --placement-group-arn"
  value       = aws_placement_group.this.arn
}

output "nodes" {
  description = "Nodes that the groups ask for."
  value       = sum(concat([0], [for group in values(local.groups) : group.count]))
}

output "efa" {
  description = "EFA interfaces of a node, which a server of a whole node asks for."
  value       = local.type.efa
}
