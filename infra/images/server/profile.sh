# shellcheck shell=sh
# Give login shells the environment of the server: /etc/profile resets PATH, and `env -i`, `su -` and `sudo -i` start with
# an almost empty environment. The server's first process writes the file that is read here.
if [ -r /run/gpudev/private/profile ]; then
    # shellcheck source=/dev/null # written when the server starts
    . /run/gpudev/private/profile
fi
