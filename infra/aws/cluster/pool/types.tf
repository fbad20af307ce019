# Network cards of the instance types that pools support.
#
#   cards         network cards
#   efa           EFA interfaces, at most one for each card
#   card0_efa     whether the first card has an EFA interface; if not, it carries only IP traffic
#
# The numbers are from `aws ec2 describe-instance-types --instance-types TYPE --query 'InstanceTypes[].NetworkInfo'`. Other types
# are refused: with a wrong number, a server that needs all EFA interfaces of a node could wait for ever.

locals {
  types = {
    "g4dn.12xlarge"    = { cards = 1, efa = 1, card0_efa = true }
    "g5.12xlarge"      = { cards = 1, efa = 1, card0_efa = true }
    "g6.12xlarge"      = { cards = 1, efa = 1, card0_efa = true }
    "g6e.12xlarge"     = { cards = 1, efa = 1, card0_efa = true }
    "p4d.24xlarge"     = { cards = 4, efa = 4, card0_efa = true }
    "p4de.24xlarge"    = { cards = 4, efa = 4, card0_efa = true }
    "p5.48xlarge"      = { cards = 32, efa = 32, card0_efa = true }
    "p5e.48xlarge"     = { cards = 32, efa = 32, card0_efa = true }
    "p5en.48xlarge"    = { cards = 16, efa = 16, card0_efa = true }
    "p6-b200.48xlarge" = { cards = 8, efa = 8, card0_efa = true }
    "p6-b300.48xlarge" = { cards = 17, efa = 16, card0_efa = false }
  }

  # The first interface has the node's address, and EFA if the card supports it. The others have only EFA and no address.
  type = local.types[var.instance_type]
  interfaces = [
    for card in range(local.type.cards) : {
      card   = card
      device = card == 0 ? 0 : 1
      kind   = card > 0 ? "efa-only" : local.type.card0_efa ? "efa" : "interface"
    }
  ]
}
