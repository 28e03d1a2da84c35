#!/bin/sh
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The host's own Docker, for the tests that need one.
#   host-docker.sh start   installs Docker where it is missing, starts it where it is stopped, and records who started it
#   host-docker.sh stop    stops it if and only if `start` had started it (the package stays installed)
# A daemon that was running before is left alone by both.
set -eu

cache="${BITNET_TEST_CACHE:-$HOME/.cache/bitnet-test}"
record="$cache/host-docker.started-by"
deadline=60

say() { printf 'host-docker: %s\n' "$*"; }
fail() { printf 'host-docker: %s\n' "$*" >&2; exit 1; }
answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

await() {
    seconds=0
    while ! answers; do
        seconds=$((seconds + 1))
        [ "$seconds" -le "$1" ] || return 1
        sleep 1
    done
}

start() {
    if command -v docker >/dev/null && answers; then
        say "found running (version $(docker version --format '{{.Server.Version}}')), left alone"
        return
    fi
    if command -v docker >/dev/null && [ -S /var/run/docker.sock ] && [ "$(id -u)" != 0 ] \
        && docker version 2>&1 | grep -q 'permission denied'; then
        fail "user $(id -un) may not use /var/run/docker.sock; add the user to the group 'docker' or run the tests as root"
    fi
    containerd_ran="$(pidof containerd || true)"
    if ! command -v dockerd >/dev/null; then
        command -v apt-get >/dev/null || fail "Docker is missing and apt-get is not there to install it; install Docker and run again"
        say "installing docker.io"
        as_root apt-get update -q >/dev/null
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends docker.io >/dev/null
    fi
    mkdir -p "$cache"
    if [ -d /run/systemd/system ]; then
        if [ -n "$containerd_ran" ]; then printf 'systemd\n'; else printf 'systemd with containerd\n'; fi >"$record"
        as_root systemctl start docker
    else
        # The init script raises limits first and gives up where the hard limit is low: start the daemon itself then.
        printf 'init\n' >"$record"
        if ! as_root service docker start >/dev/null 2>&1 || ! await 10; then
            printf 'direct\n' >"$record"
            as_root sh -c 'setsid dockerd >/var/log/docker.log 2>&1 </dev/null &'
        fi
    fi
    await "$deadline" || fail "no answer from Docker after $deadline s (started by: $(cat "$record")); see /var/log/docker.log or 'journalctl -u docker'"
    say "started by $(cat "$record")"
}

stop() {
    [ -f "$record" ] || { say "was running before the tests, left alone"; return; }
    case "$(cat "$record")" in
    systemd) as_root systemctl stop docker.socket docker.service ;;
    'systemd with containerd') as_root systemctl stop docker.socket docker.service containerd.service ;;
    init) as_root service docker stop >/dev/null ;;
    direct)
        pid="$(cat /var/run/docker.pid 2>/dev/null || true)"
        [ -z "$pid" ] || as_root kill "$pid" 2>/dev/null || true
        ;;
    esac
    seconds=0
    while answers; do
        seconds=$((seconds + 1))
        [ "$seconds" -le 30 ] || fail "Docker still answers 30 s after it was told to stop; see 'ps -C dockerd'"
        sleep 1
    done
    rm -f "$record"
    say "stopped"
}

case "${1:-}" in
start) start ;;
stop) stop ;;
*) fail "usage: $0 start|stop" ;;
esac
