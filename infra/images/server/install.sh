#!/bin/bash
# Makes the image of users' servers out of any Debian or Ubuntu that has a Python of 3.11 or newer: as root, in an
# image's build or in a chroot. Nothing is started. In three steps, so that a change of one rebuilds little:
#   install.sh system             packages of the system, the account, the places that volumes are mounted on
#   install.sh python UV LOCK     the server's own environment, and what the image's Python needs to be a kernel
#   install.sh gpudev UV WHEEL    our own code into both
# UV is the program uv, LOCK is requirements/server.txt: what comes from the package index has its hash there.
# GPUDEV_PYTHON names the image's own Python, the one that notebooks and shells use (default: python3 of the PATH).
set -euo pipefail
step=${1:?which step: system, python or gpudev?}
shift
here=$(dirname "$(realpath "$0")")
prefix=/opt/gpudev
account=dev
uid=1000
export DEBIAN_FRONTEND=noninteractive UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy
[ -n "${UV_CACHE_DIR:-}" ] || export UV_NO_CACHE=1

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

step_system() {
    # sshd is started by a server's first process only, as the user, with a key of that server's.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        trap 'rm -f $policy' EXIT
    fi
    apt-get update -q
    grep -v '^#' "$here/packages.txt" | xargs apt-get install -q -y --no-install-recommends
    # A host key in an image would be everybody's.
    rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_*
    localedef -i en_US -f UTF-8 en_US.UTF-8

    # Some images have an account with this number already.
    old=$(getent passwd $uid | cut -d: -f1 || true)
    [ -z "$old" ] || [ "$old" = $account ] || userdel "$old"
    getent group $account >/dev/null || groupadd --non-unique --gid $uid $account
    # "*" is no password; what useradd would leave is a locked account, which sshd refuses.
    [ "$old" = $account ] || useradd --no-create-home --home-dir /home/$account --uid $uid --gid $account \
        --shell /bin/bash --password '*' $account
    # A home is filled from /etc/skel when its user comes to it first: it is a volume.
    install -d -o $account -g $account /home/$account /scratch /run/gpudev

    install -D -m 644 "$here/profile.sh" /etc/profile.d/zz-gpudev.sh

    # Counts only where the pod allows privilege escalation: elsewhere the kernel ignores sudo's set-user-ID bit.
    printf '%s ALL=(ALL) NOPASSWD: ALL\n' $account >/etc/sudoers.d/$account
    chmod 440 /etc/sudoers.d/$account
}

image_python() {
    command -v "${GPUDEV_PYTHON:-python3}" || fail "there is no ${GPUDEV_PYTHON:-python3} in this image"
}

step_python() {
    uv=$1 lock=$2 python=$(image_python)
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$python is $("$python" --version), gpudev needs 3.11 or newer"
    # Root's, and apart from the image's packages: nothing that a user installs can break JupyterLab.
    "$uv" venv --quiet --clear --python "$python" $prefix
    "$uv" pip sync --quiet --require-hashes --compile-bytecode --python $prefix/bin/python "$lock"
    pip=()
    "$python" -m pip --version >/dev/null 2>&1 || pip=(pip)
    # The last line is what gpudev's client needs (pyproject.toml); the next step checks that it is enough.
    "$uv" pip install --quiet --break-system-packages --compile-bytecode --python "$python" --constraints "$lock" \
        ipykernel ipywidgets "${pip[@]}" \
        certifi click 'httpx[socks]' msgspec rich
    install -d $prefix/share/jupyter/kernels/python3
    "$python" -c '
import json, platform, sys
# "-m" would import from the folder of the notebook before ipykernel can prevent it: a types.py there ends it.
launch = "import sys; del sys.path[0]; from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
command = [sys.executable, "-Xfrozen_modules=off", "-c", launch, "-f", "{connection_file}"]
name = f"Python {platform.python_version()}"
spec = {"argv": command, "display_name": name, "language": "python", "metadata": {"debugger": True}}
print(json.dumps(spec, indent=1))' >$prefix/share/jupyter/kernels/python3/kernel.json
    command -v python >/dev/null || ln -s "$python" /usr/local/bin/python
}

step_gpudev() {
    uv=$1 wheel=$2 python=$(image_python)
    for own in $prefix/bin/python "$python"; do
        "$uv" pip install --quiet --no-deps --reinstall --break-system-packages --compile-bytecode \
            --python "$own" "$wheel"
        "$own" -I -c 'import gpudev, gpudev.cli, gpudev.widgets, ipykernel'
    done
    $prefix/bin/python -I -c 'import gpudev_hub.server.pod, gpudev_jupyter.handlers, jupyterhub.singleuser, jupyterlab'
}

case $step in
system | python | gpudev) "step_$step" "$@" ;;
*) fail "there is no step $step" ;;
esac
