#!/usr/bin/env bash
# A container engine for the tests, next to any other: Debian's docker.io, as root. It has a network
# namespace of its own: containers that ask for a network get one, which leads nowhere.
#   engine.sh up FOLDER [gpu]   starts one; FOLDER/docker.sock is its socket. `gpu`: it accepts
#                               requests for GPUs, which a stand-in for NVIDIA's hook then ignores.
#   engine.sh down FOLDER       removes its containers, ends it, and removes the folder.
# FOLDER must be short: a socket's path has at most 107 bytes.
set -euo pipefail
verb=$1 run=$2 kind=${3:-cpu}
export DOCKER_HOST="unix://$run/docker.sock"

install() {
    command -v dockerd >/dev/null && command -v busybox >/dev/null && return
    local wait=(-o DPkg::Lock::Timeout=300) # for another apt-get, as on a machine that has just begun
    apt-get "${wait[@]}" update -qq
    DEBIAN_FRONTEND=noninteractive apt-get "${wait[@]}" install -y -qq --no-install-recommends \
        docker.io busybox-static >/dev/null
}

up() {
    install
    mkdir -p "$run/bin"
    # An engine that was killed leaves its pid file and its own containerd behind.
    kill "$(cat "$run/exec/containerd/containerd.pid" 2>/dev/null)" 2>/dev/null || true
    rm -f "$run/docker.pid" "$run/exec/containerd/containerd.pid"
    if [ "$kind" = gpu ]; then
        printf '#!/bin/sh\nexit 0\n' >"$run/bin/nvidia-container-runtime-hook"
        chmod +x "$run/bin/nvidia-container-runtime-hook"
    fi
    env -u DOCKER_HOST PATH="$run/bin:$PATH" setsid unshare --net \
        dockerd --host "unix://$run/docker.sock" \
        --data-root "$run/data" --exec-root "$run/exec" --pidfile "$run/docker.pid" \
        --storage-driver=overlay2 --bip=10.213.0.1/24 --iptables=false --ip6tables=false \
        --ip-masq=false --log-level=warn >"$run/dockerd.log" 2>&1 </dev/null &
    for _ in $(seq 150); do
        docker version >/dev/null 2>&1 && return
        sleep 0.2
    done
    tail "$run/dockerd.log" >&2
    exit 1
}

mounts() { # below the folder, the innermost first
    sed -n "s|^[^ ]* \($run/[^ ]*\) .*|\1|p" /proc/mounts | sort -r
}

down() {
    [ -d "$run" ] || return 0
    # One that was killed has to run again, so that it can end what runs in its containers.
    docker version >/dev/null 2>&1 || (up) || true
    docker ps -aq 2>/dev/null | xargs -r docker rm -f >/dev/null 2>&1 || true
    kill "$(cat "$run/docker.pid")" 2>/dev/null || true
    for _ in $(seq 600); do # dockerd removes its pid file last
        [ -e "$run/docker.pid" ] || break
        sleep 0.1
    done
    for _ in $(seq 300); do # what it has mounted stays busy for a moment longer
        mounts | xargs -r umount 2>/dev/null && break
        sleep 0.2
    done
    rm -rf "$run"
}

"$verb"
