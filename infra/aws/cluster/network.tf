# Nodes are in private subnets, one for each zone. Public subnets have only balancers and NAT gateways.

locals {
  # The zones of CPU nodes and of all GPU pools.
  zones = toset(concat(var.zone_ids, [for pool in values(var.pools) : pool.zone_id]))

  # The number in a zone id (1 to 6) determines the range of its subnets, so a new zone does not change other subnets.
  zone_number = { for id in local.zones : id => tonumber(regex("\\d$", id)) }

  # Zone ids begin with a short form of the region: use2 for us-east-2.
  region_parts = split("-", var.region)
  directions = {
    north     = "n", east = "e", south = "s", west = "w", central = "c",
    northeast = "ne", southeast = "se", northwest = "nw", southwest = "sw",
  }
  zone_prefix = "${local.region_parts[0]}${local.directions[local.region_parts[1]]}${local.region_parts[2]}"
}

resource "aws_vpc" "this" {
  cidr_block           = var.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true # for the names of interface endpoints

  tags = { Name = local.name }
}

# Nothing uses the default security group.
resource "aws_default_security_group" "empty" {
  vpc_id = aws_vpc.this.id
}

# 8,190 addresses for each zone: 10.64.32.0/19, 10.64.64.0/19, ...
resource "aws_subnet" "private" {
  for_each = local.zones

  vpc_id               = aws_vpc.this.id
  availability_zone_id = each.key
  cidr_block           = cidrsubnet(var.cidr, 3, local.zone_number[each.key])

  tags = { Name = "${local.name}-private-${each.key}" }
}

# 10.64.1.0/24, 10.64.2.0/24, ...
resource "aws_subnet" "public" {
  for_each = toset(var.zone_ids)

  vpc_id               = aws_vpc.this.id
  availability_zone_id = each.key
  cidr_block           = cidrsubnet(var.cidr, 8, local.zone_number[each.key])

  tags = { Name = "${local.name}-public-${each.key}" }
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id

  tags = { Name = local.name }
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${local.name}-public" }
}

resource "aws_route" "internet" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this.id
}

resource "aws_route_table_association" "public" {
  for_each = aws_subnet.public

  subnet_id      = each.value.id
  route_table_id = aws_route_table.public.id
}

# One NAT gateway for each zone with CPU nodes. If a zone fails, the other zone stays connected.
resource "aws_eip" "nat" {
  for_each = aws_subnet.public

  domain = "vpc"

  tags = { Name = "${local.name}-nat-${each.key}" }
}

resource "aws_nat_gateway" "this" {
  for_each = aws_subnet.public

  allocation_id = aws_eip.nat[each.key].id
  subnet_id     = each.value.id

  tags       = { Name = "${local.name}-${each.key}" }
  depends_on = [aws_internet_gateway.this]
}

resource "aws_route_table" "private" {
  for_each = aws_subnet.private

  vpc_id = aws_vpc.this.id

  tags = { Name = "${local.name}-private-${each.key}" }
}

resource "aws_route" "nat" {
  for_each = aws_route_table.private

  route_table_id         = each.value.id
  destination_cidr_block = "0.0.0.0/0"
  # A zone that has only GPU nodes uses the first zone's gateway.
  nat_gateway_id = aws_nat_gateway.this[contains(var.zone_ids, each.key) ? each.key : var.zone_ids[0]].id
}

resource "aws_route_table_association" "private" {
  for_each = aws_subnet.private

  subnet_id      = each.value.id
  route_table_id = aws_route_table.private[each.key].id
}
