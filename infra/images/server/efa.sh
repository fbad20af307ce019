#!/bin/bash
# User space of AWS's Elastic Fabric Adapter: libfabric with its EFA provider, and the NCCL plugin aws-ofi-nccl.
# Usage: efa.sh VERSION   (of AWS's EFA installer; there is no default, so that you choose it deliberately)
#
# This project's tests NEVER RUN this script: it needs the network, and the installed software needs EFA devices. To check
# the result, on a server of a pool with EFA:
#   fi_info -p efa                     lists one domain per device (rdmap*)
#   ldconfig -p | grep -E 'fabric|nccl-net'    has libfabric and the plugin
#   NCCL_DEBUG=INFO torchrun ...       says "NET/OFI Selected provider is efa" (not "NET/Socket")
# Recent installers contain the plugin. With an older one, NCCL says NET/Socket, and you must build the plugin.
# The node provides the kernel driver and the devices, hence --skip-kmod. mpirun in users' shells is still Debian's Open MPI;
# Amazon's is in /opt/amazon.
# At run time, the server's first process sets FI_PROVIDER=efa only if /dev/infiniband exists.
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
