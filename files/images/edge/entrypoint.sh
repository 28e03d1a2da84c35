#!/bin/sh
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# entrypoint.sh serve                        writes the map of the routing and becomes HAProxy
# entrypoint.sh check                        says whether the configuration on standard input is one
# entrypoint.sh route ACTIVE SHARE HOLD      writes the map and tells it to the HAProxy that runs beside, in one step
#
# Swarm fills the three variables from the labels of the service when it makes a task, so a replacement begins with the
# routing that holds now. The file is what a reload of HAProxy reads; whoever sets the map at run time writes it too.
set -eu
folder=/run/bitnet-edge
active=${BITNET_ACTIVE_SLOT:-}
share=${BITNET_IDLE_SHARE:-0}
hold=${BITNET_HOLD:-0}
if [ "${1:-}" = route ]; then
    active=${2:-} share=${3:-} hold=${4:-}
fi

refuse() {
    echo "edge: $1: set the label $2 of the edge service" >&2
    exit 2
}

case "$active" in
    blue | green) ;;
    *) refuse "BITNET_ACTIVE_SLOT='$active' is neither blue nor green" io.bitnet.active-slot ;;
esac
case "$share" in
    [0-9] | [1-9][0-9]) ;;
    *) refuse "BITNET_IDLE_SHARE='$share' is no number from 0 to 99" io.bitnet.idle-share ;;
esac
case "$hold" in
    0 | 1) ;;
    *) refuse "BITNET_HOLD='$hold' is neither 0 nor 1" io.bitnet.hold ;;
esac

# Two commands may write at the same moment, each a file of its own. 3 says that the file could not be written.
umask 077
new="$folder/routing.map.${1:-none}"
printf 'active %s\nshare %s\nhold %s\n' "$active" "$share" "$hold" > "$new" && sync "$new" && mv -f "$new" "$folder/routing.map" || exit 3
[ "${1:-}" != route ] || exec perl /usr/local/lib/bitnet-edge/route.pl "$active" "$share" "$hold"

# Hashes of the tokens of testers, which the role writes; without the file HAProxy does not start. Beside it what has been read.
[ -e "$folder/testers.acl" ] || : > "$folder/testers.acl"
cp "$folder/testers.acl" "$folder/testers.read.new"
mv -f "$folder/testers.read.new" "$folder/testers.read"

case "${1:-}" in
    serve) exec haproxy -W -db -f "${BITNET_EDGE_CONFIG:-/etc/haproxy/bitnet.cfg}" ;;
    check) exec haproxy -c -f /dev/stdin ;;
    *)
        echo "edge: '${1:-}' is no command: serve, check or route" >&2
        exit 2
        ;;
esac
