# One role for each component that uses AWS. A pod gets the role of its service account through EKS Pod Identity. The account of
# users' servers has no role.

locals {
  # Namespace and service account of each component.
  components = {
    service = { namespace = "gpudev", account = "gpudev-service" }
    hub     = { namespace = "gpudev", account = "hub" }
    bastion = { namespace = "gpudev", account = "gpudev-bastion" }
    efs     = { namespace = "kube-system", account = "efs-csi-controller-sa" }
    ebs     = { namespace = "kube-system", account = "ebs-csi-controller-sa" }
  }

  table_arn = aws_dynamodb_table.this.arn
  indexes   = [for index in local.table.GlobalSecondaryIndexes : "${local.table_arn}/index/${index.IndexName}"]
}

resource "aws_iam_role" "component" {
  for_each = local.components

  name               = "${local.name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.component_trust[each.key].json
}

resource "aws_eks_pod_identity_association" "component" {
  for_each = local.components

  cluster_name    = aws_eks_cluster.this.name
  namespace       = each.value.namespace
  service_account = each.value.account
  role_arn        = aws_iam_role.component[each.key].arn
}

# Only pods with this service account in this cluster may use the role. An association with another account has no effect.
data "aws_iam_policy_document" "component_trust" {
  for_each = local.components

  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]

    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/eks-cluster-arn"
      values   = ["arn:aws:eks:${var.region}:${local.account}:cluster/${local.name}"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/kubernetes-namespace"
      values   = [each.value.namespace]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/kubernetes-service-account"
      values   = [each.value.account]
    }
  }
}

# Secrets: the Secrets Store CSI driver reads them with the role of the pod that mounts them.

resource "aws_iam_role_policy" "secrets" {
  for_each = local.secret_readers

  name   = "secrets"
  role   = aws_iam_role.component[each.key].name
  policy = data.aws_iam_policy_document.secrets[each.key].json
}

data "aws_iam_policy_document" "secrets" {
  for_each = local.secret_readers

  statement {
    sid       = "ReadOwnSecrets"
    actions   = ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"]
    resources = [for name in each.value : local.secret_arns[name]]
  }

  # The key may be used only through Secrets Manager, and only for these secrets.
  statement {
    sid       = "DecryptOwnSecrets"
    actions   = ["kms:Decrypt"]
    resources = [aws_kms_key.this.arn]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["secretsmanager.${var.region}.amazonaws.com"]
    }

    condition {
      test     = "StringLike"
      variable = "kms:EncryptionContext:SecretARN"
      values   = [for name in each.value : local.secret_arns[name]]
    }
  }
}

# The reservation service uses its table, and reads when capacity blocks end.

resource "aws_iam_role_policy" "service" {
  name   = "service"
  role   = aws_iam_role.component["service"].name
  policy = data.aws_iam_policy_document.service.json
}

data "aws_iam_policy_document" "service" {
  # See docs/dynamodb.md, "Rights". Scan is not allowed, nor any change of the table itself.
  statement {
    sid = "Records"
    actions = [
      "dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query",
      "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem", "dynamodb:ConditionCheckItem",
    ]
    resources = [local.table_arn]
  }

  # `gpu-dev admin doctor` says whether the table can be restored.
  statement {
    sid       = "CanBeRestored"
    actions   = ["dynamodb:DescribeContinuousBackups"]
    resources = [local.table_arn]
  }

  statement {
    sid       = "EndedReservationsOfAPerson"
    actions   = ["dynamodb:Query"]
    resources = local.indexes
  }

  statement {
    sid       = "EndsOfCapacityBlocks"
    actions   = ["ec2:DescribeCapacityReservations"]
    resources = ["*"] # AWS offers no narrower resource for this

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [var.region]
    }
  }
}

# The EFS driver creates an access point for each home, but cannot delete it. Homes stay until an operator removes them.

resource "aws_iam_role_policy" "efs" {
  name   = "access-points"
  role   = aws_iam_role.component["efs"].name
  policy = data.aws_iam_policy_document.efs.json
}

data "aws_iam_policy_document" "efs" {
  statement {
    sid       = "Look"
    actions   = ["elasticfilesystem:DescribeFileSystems", "elasticfilesystem:DescribeMountTargets"]
    resources = [aws_efs_file_system.homes.arn]
  }

  statement {
    sid       = "FindAccessPoints"
    actions   = ["elasticfilesystem:DescribeAccessPoints"]
    resources = [aws_efs_file_system.homes.arn, local.access_points]
  }

  statement {
    sid       = "FindZones"
    actions   = ["ec2:DescribeAvailabilityZones"]
    resources = ["*"] # AWS offers no narrower resource for this
  }

  statement {
    sid       = "MakeAccessPoints"
    actions   = ["elasticfilesystem:CreateAccessPoint"]
    resources = [aws_efs_file_system.homes.arn]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/efs.csi.aws.com/cluster"
      values   = ["true"]
    }
  }

  # Tags may be set only when an access point is created.
  statement {
    sid       = "TagAccessPoints"
    actions   = ["elasticfilesystem:TagResource"]
    resources = [local.access_points]

    condition {
      test     = "StringEquals"
      variable = "elasticfilesystem:CreateAction"
      values   = ["CreateAccessPoint"]
    }
  }
}

locals {
  access_points = "arn:aws:elasticfilesystem:${var.region}:${local.account}:access-point/*"
}

# The EBS driver creates the volume of the Hub's database. AWS's policy limits the driver to volumes that it tagged itself.
resource "aws_iam_role_policy_attachment" "ebs" {
  role       = aws_iam_role.component["ebs"].name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy"
}
