#!/bin/bash
# First start of the management host: kubectl and helm at pinned versions, a kubeconfig for the cluster.
# shellcheck disable=SC2154 # OpenTofu replaces the expressions in braces
set -euo pipefail
cd "$(mktemp -d)"

curl --fail --silent --show-error --location --output kubectl \
  "https://dl.k8s.io/release/v${kubectl.version}/bin/linux/amd64/kubectl"
echo "${kubectl.sha256}  kubectl" | sha256sum --check
install -m 755 kubectl /usr/local/bin/kubectl

curl --fail --silent --show-error --location --output helm.tar.gz \
  "https://get.helm.sh/helm-v${helm.version}-linux-amd64.tar.gz"
echo "${helm.sha256}  helm.tar.gz" | sha256sum --check
tar --extract --gzip --file helm.tar.gz linux-amd64/helm
install -m 755 linux-amd64/helm /usr/local/bin/helm

aws eks update-kubeconfig --region "${region}" --name "${cluster}" --kubeconfig /etc/kubeconfig
chmod 644 /etc/kubeconfig # an address and a certificate; the token comes from the host's role
echo 'export KUBECONFIG=/etc/kubeconfig' >/etc/profile.d/gpudev.sh

# The Hub, which provides gpu-dev, does not exist yet at the first start. Its help page (https://${domain}) has the command.
dnf install --assumeyes python3.12
