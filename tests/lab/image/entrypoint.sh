#!/usr/bin/env bash
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PID 1 of the test machine: starts the daemon if the image has one and TEST_MACHINE_DOCKERD is not "off", reaps what
# it inherits, and on SIGTERM stops the daemon so that its containers end with it.
set -u

stop() {
    [ -s /var/run/docker.pid ] && kill "$(cat /var/run/docker.pid)" 2>/dev/null
    for _ in $(seq 50); do
        [ -e /var/run/docker.pid ] || break
        sleep 0.1
    done
    exit 0
}
trap stop TERM INT

# A killed machine that is started again still has the pid files of its former life.
rm -f /var/run/docker.pid /var/run/docker-ssd.pid /var/run/docker/containerd/containerd.pid

if [ "${TEST_MACHINE_DOCKERD:-on}" != off ] && command -v dockerd >/dev/null; then
    # The parent group keeps the groups of inner containers together, so that they can be removed afterwards.
    setsid dockerd --shutdown-timeout 2 --cgroup-parent "${TEST_MACHINE_CGROUP:-/bitnet-test}" >/var/log/docker.log 2>&1 &
fi

while :; do
    sleep 3600 &
    wait "$!"
done
