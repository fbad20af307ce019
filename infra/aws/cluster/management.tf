# The management host, through which operators reach the private cluster. It has no inbound port and no key: sessions use SSM
# (sessions.tf). There are two ways to use it:
#
# - a shell with kubectl, helm and gpu-dev, which can read but not change objects;
# - a tunnel from your machine to the cluster's API, which you use with the rights of your own role.

locals {
  # The exact name of an image is the same in every region. To find newer images: aws ec2 describe-images --owners amazon
  # --filters 'Name=name,Values=al2023-ami-2023.*-kernel-6.18-x86_64'. A new name replaces the host, and its files are lost.
  management_image = "al2023-ami-2023.12.20260914.0-kernel-6.18-x86_64"

  # From dl.k8s.io/release/vVERSION/bin/linux/amd64/kubectl.sha256 and get.helm.sh/helm-vVERSION-linux-amd64.tar.gz.sha256sum.
  kubectl = { version = "1.35.8", sha256 = "874d5e72dbb819f43cff16bcd1e4f8bac5b7f2361fe1e55049b0a6c676fb0cbf" }
  helm    = { version = "3.19.0", sha256 = "a7f81ce08007091b86d8bd696eb4d86b8d0f2e1b9f6c714be62f82f96a594496" }
}

data "aws_ami" "management" {
  owners             = ["amazon"]
  include_deprecated = true # AWS deprecates images after 90 days, but they stay usable

  filter {
    name   = "name"
    values = [local.management_image]
  }
}

resource "aws_instance" "management" {
  #checkov:skip=CKV_AWS_126:a host for manual work needs no metrics every minute

  ami                    = data.aws_ami.management.id
  instance_type          = "t3.small"
  subnet_id              = aws_subnet.private[var.zone_ids[0]].id
  vpc_security_group_ids = [aws_security_group.management.id]
  iam_instance_profile   = aws_iam_instance_profile.management.name
  ebs_optimized          = true

  user_data_replace_on_change = true
  user_data = templatefile("${path.module}/management.sh", {
    cluster = aws_eks_cluster.this.name
    region  = var.region
    domain  = var.domain
    kubectl = local.kubectl
    helm    = local.helm
  })

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "disabled"
  }

  root_block_device {
    volume_type = "gp3"
    volume_size = 20 # GiB
    encrypted   = true
  }

  tags = { Name = "${local.name}-management" }
}

resource "aws_security_group" "management" {
  name        = "${local.name}-management"
  description = "Management host: nothing comes in"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${local.name}-management" }
}

resource "aws_vpc_security_group_egress_rule" "management" {
  security_group_id = aws_security_group.management.id
  description       = "HTTPS: AWS, the cluster's API, the Hub, packages"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_ingress_rule" "cluster_from_management" {
  security_group_id            = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
  description                  = "Cluster API from the management host"
  referenced_security_group_id = aws_security_group.management.id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_iam_instance_profile" "management" {
  name = "${local.name}-management"
  role = aws_iam_role.management.name
}

resource "aws_iam_role" "management" {
  name               = "${local.name}-management"
  assume_role_policy = data.aws_iam_policy_document.node_trust.json
}

resource "aws_iam_role_policy" "management" {
  name   = "management"
  role   = aws_iam_role.management.name
  policy = data.aws_iam_policy_document.management.json
}

# The managed policy AmazonSSMManagedInstanceCore would also let the host read every parameter of the account.
data "aws_iam_policy_document" "management" {
  #checkov:skip=CKV_AWS_111:the statements with "*" are for actions without a narrower resource
  #checkov:skip=CKV_AWS_356:the statements with "*" are for actions without a narrower resource

  statement {
    sid = "Sessions"
    actions = [
      "ssm:UpdateInstanceInformation",
      "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"] # AWS offers no narrower resource for these
  }

  statement {
    sid       = "SessionLogs"
    actions   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.sessions.arn}:*"]
  }

  statement {
    sid       = "FindSessionLogs"
    actions   = ["logs:DescribeLogGroups"]
    resources = ["*"] # AWS offers no narrower resource for this
  }

  statement {
    sid       = "DecryptSessions"
    actions   = ["kms:Decrypt"]
    resources = [aws_kms_key.this.arn]
  }

  statement {
    sid       = "FindCluster"
    actions   = ["eks:DescribeCluster"]
    resources = [aws_eks_cluster.this.arn]
  }
}
