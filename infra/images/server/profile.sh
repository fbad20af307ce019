# shellcheck shell=sh
# Login shells of a server have its environment: /etc/profile has set PATH anew, and `env -i`, `su -` and `sudo -i`
# start with next to nothing. The server's first process writes what is read here.
if [ -r /run/gpudev/private/profile ]; then
    # shellcheck source=/dev/null # written when the server starts
    . /run/gpudev/private/profile
fi
