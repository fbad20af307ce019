#!/bin/bash
# Turn a Debian or Ubuntu system with Python 3.11 or newer into the image of users' servers. Run it as root, in the build of
# an image or in a chroot. It starts no services. It has three steps, so that a change of one step rebuilds little:
#   install.sh system             system packages, the account, and the mount points of volumes
#   install.sh python UV LOCK     the server's own environment, and the packages that make the image's Python a kernel
#   install.sh gpudev UV WHEEL    gpudev, in both environments
# UV is the program uv. LOCK is requirements/server.txt, which has the hashes of packages from the package index.
# GPUDEV_PYTHON is the image's own Python, for notebooks and shells (default: python3 from PATH).
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
    # Packages must not start sshd. Only a server's first process starts it, as the user, with the server's own key.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        trap 'rm -f $policy' EXIT
    fi
    apt-get update -q
    grep -v '^#' "$here/packages.txt" | xargs apt-get install -q -y --no-install-recommends
    # All servers would share a host key in the image.
    rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_*
    localedef -i en_US -f UTF-8 en_US.UTF-8

    # Some images already have an account with this uid.
    old=$(getent passwd $uid | cut -d: -f1 || true)
    [ -z "$old" ] || [ "$old" = $account ] || userdel "$old"
    getent group $account >/dev/null || groupadd --non-unique --gid $uid $account
    # No password matches "*". Without it, useradd creates a locked account, which sshd refuses.
    [ "$old" = $account ] || useradd --no-create-home --home-dir /home/$account --uid $uid --gid $account \
        --shell /bin/bash --password '*' $account
    # Homes are volumes. The server fills an empty home from /etc/skel at its first start.
    install -d -o $account -g $account /home/$account /scratch /run/gpudev

    install -D -m 644 "$here/profile.sh" /etc/profile.d/zz-gpudev.sh

    # This has an effect only if the pod allows privilege escalation. Otherwise the kernel ignores sudo's set-user-ID bit.
    printf '%s ALL=(ALL) NOPASSWD: ALL\n' $account >/etc/sudoers.d/$account
    chmod 440 /etc/sudoers.d/$account
}

image_python() {
    command -v "${GPUDEV_PYTHON:-python3}" || fail "this image has no ${GPUDEV_PYTHON:-python3}"
}

step_python() {
    uv=$1 lock=$2 python=$(image_python)
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$python is $("$python" --version), but gpudev needs 3.11 or newer"
    # This environment belongs to root and is separate from the image's packages, so users cannot break JupyterLab.
    "$uv" venv --quiet --clear --python "$python" $prefix
    "$uv" pip sync --quiet --require-hashes --compile-bytecode --python $prefix/bin/python "$lock"
    pip=()
    "$python" -m pip --version >/dev/null 2>&1 || pip=(pip)
    # The last line has the requirements of gpudev's client (pyproject.toml). The next step checks that they are complete.
    "$uv" pip install --quiet --break-system-packages --compile-bytecode --python "$python" --constraints "$lock" \
        ipykernel ipywidgets "${pip[@]}" \
        certifi click 'httpx[socks]' msgspec rich
    install -d $prefix/share/jupyter/kernels/python3
    "$python" -c '
import json, platform, sys
# "-m" would import modules from the folder of the notebook before ipykernel can prevent it. A types.py there would break it.
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
*) fail "unknown step $step: use system, python or gpudev" ;;
esac
