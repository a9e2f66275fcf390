#!/usr/bin/env bash
# docker.sh FOLDER CGROUP: Docker by itself, as process 1 of namespaces of its own, until its standard input ends. Its data,
# its socket (FOLDER/docker.sock) and its log are in the folder; what containerlab writes to the host's /run, /etc/hosts and
# /etc/ssh is seen by nobody else. With this process end all containers.
set -euo pipefail
folder=$1 cgroup=$2
beside=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
ip link set lo up
mkdir -p "$folder/data" "$folder/exec"
cp /etc/hosts "$folder/hosts"
mount --bind "$folder/hosts" /etc/hosts
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
[ ! -d /etc/ssh/ssh_config.d ] || mount -t tmpfs tmpfs /etc/ssh/ssh_config.d
dockerd --host "unix://$folder/docker.sock" --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/pid" \
    --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "$cgroup" \
    --add-runtime "lesser=$beside/lesser-runc" --default-runtime lesser \
    >"$folder/dockerd.log" 2>&1 </dev/null &
cat >/dev/null
