#!/bin/bash
# User space of AWS's Elastic Fabric Adapter: libfabric with its EFA provider, and the NCCL plugin aws-ofi-nccl.
# Usage: efa.sh VERSION   (of AWS's EFA installer; there is no default, so that nobody ships one by accident)
#
# NEVER RUN by this project's tests: it needs the network, and what it installs needs EFA devices. To see
# whether it worked, in a server of a pool with EFA:
#   fi_info -p efa                     lists one domain per device (rdmap*)
#   ldconfig -p | grep -E 'fabric|nccl-net'    has libfabric and the plugin
#   NCCL_DEBUG=INFO torchrun ...       says "NET/OFI Selected provider is efa" (not "NET/Socket")
# Recent installers carry the plugin; after an older one NCCL says NET/Socket, and the plugin is to be built.
# The kernel's driver and the devices are the node's business: hence --skip-kmod. Open MPI stays Debian's, which
# mpirun of the users' shells is; Amazon's lies beside it in /opt/amazon.
# At run time the server's first process sets FI_PROVIDER=efa where it sees /dev/infiniband, and nowhere else.
set -euo pipefail
version=${1:?name the version of the EFA installer: --build-arg EFA_VERSION=...}

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends ca-certificates curl </dev/null
folder=$(mktemp -d)
trap 'rm -rf "$folder" /var/lib/apt/lists/*' EXIT
cd "$folder"
curl -fsSLO "https://efa-installer.amazonaws.com/aws-efa-installer-$version.tar.gz"
tar -xzf "aws-efa-installer-$version.tar.gz"
cd aws-efa-installer
./efa_installer.sh -y -g --skip-kmod --skip-limit-conf --no-verify </dev/null
ldconfig
