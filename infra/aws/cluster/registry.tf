# gpudev's images, and copies of the public images that the cluster runs. With the copies, pods start even if a public registry
# does not answer or limits requests.

locals {
  repositories = toset(["gpudev-hub", "gpudev-bastion", "gpudev-server"])

  # AWS can copy from these three registries without a login. Docker Hub and GitHub would need one.
  caches = {
    kubernetes = "registry.k8s.io"
    quay       = "quay.io"
    ecr-public = "public.ecr.aws"
  }
}

resource "aws_ecr_repository" "this" {
  #checkov:skip=CKV_AWS_136:S3's own encryption is enough, because images contain no secrets. Nodes then need no key to pull.
  for_each = local.repositories

  name                 = "${local.name}/${each.key}"
  image_tag_mutability = "IMMUTABLE" # a tag always names the same image

  image_scanning_configuration {
    scan_on_push = true
  }
}

# Tagged images are kept, because a pool or a rollback may use an old image.
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

# Only nodes fill the caches, when they pull. AmazonEC2ContainerRegistryPullOnly (nodes.tf) lets them fetch an image into an
# existing repository. The first image of a name also needs the right to create its repository.
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
