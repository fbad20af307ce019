# Our images, and copies of the public images that the cluster runs: a public registry that is away, or limits its callers, keeps
# no pod from starting.

locals {
  repositories = toset(["gpudev-hub", "gpudev-bastion", "gpudev-server"])

  # AWS needs no login for these three. Docker Hub and GitHub would need one.
  caches = {
    kubernetes = "registry.k8s.io"
    quay       = "quay.io"
    ecr-public = "public.ecr.aws"
  }
}

resource "aws_ecr_repository" "this" {
  #checkov:skip=CKV_AWS_136:S3's own encryption: images hold no secrets, and each node that pulls one needs no key.
  for_each = local.repositories

  name                 = "${local.name}/${each.key}"
  image_tag_mutability = "IMMUTABLE" # what ran yesterday under a tag is what runs today

  image_scanning_configuration {
    scan_on_push = true
  }
}

# Tagged images stay: a pool, or a rollback, may name an old one.
resource "aws_ecr_lifecycle_policy" "this" {
  for_each = aws_ecr_repository.this

  repository = each.value.name
  policy = jsonencode({
    rules = [
      {
        rulePriority = 1
        description  = "Pieces of uploads that no tag names"
        selection    = { tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = 14 }
        action       = { type = "expire" }
      },
      {
        rulePriority = 2
        description  = "The newest 200"
        selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = 200 }
        action       = { type = "expire" }
      },
    ]
  })
}

resource "aws_ecr_pull_through_cache_rule" "this" {
  for_each = local.caches

  ecr_repository_prefix = "${local.name}/${each.key}"
  upstream_registry_url = each.value
}

# Nodes pull; only they fill the caches. AmazonEC2ContainerRegistryPullOnly (nodes.tf) lets them fetch an image into a
# repository that is there; the first image of a name also makes its repository.
resource "aws_iam_role_policy" "node_caches" {
  name   = "image-caches"
  role   = aws_iam_role.node.name
  policy = data.aws_iam_policy_document.node_caches.json
}

data "aws_iam_policy_document" "node_caches" {
  statement {
    sid       = "MakeRepositoriesOfCaches"
    actions   = ["ecr:CreateRepository"]
    resources = [for name in keys(local.caches) : "arn:aws:ecr:${var.region}:${local.account}:repository/${local.name}/${name}/*"]
  }
}
