#!/bin/sh
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# entrypoint.sh serve    writes the map of the active slot and becomes HAProxy
# entrypoint.sh check    says whether the configuration on standard input is one
#
# Swarm fills BITNET_ACTIVE_SLOT from the label of the service when it makes a task, so a replacement begins with the
# slot that is active now. The file is what a reload of HAProxy reads; whoever sets the map at run time writes it too.
set -eu
map=/run/bitnet-edge/active-slot.map

case "${BITNET_ACTIVE_SLOT:-}" in
    blue | green) ;;
    *)
        echo "edge: BITNET_ACTIVE_SLOT='${BITNET_ACTIVE_SLOT:-}' is neither blue nor green:" \
            "set the label io.bitnet.active-slot of the edge service" >&2
        exit 2
        ;;
esac
umask 077
printf 'active %s\n' "$BITNET_ACTIVE_SLOT" > "$map.new"
mv -f "$map.new" "$map"

case "${1:-}" in
    serve) exec haproxy -W -db -f "${BITNET_EDGE_CONFIG:-/etc/haproxy/bitnet.cfg}" ;;
    check) exec haproxy -c -f /dev/stdin ;;
    *)
        echo "edge: '${1:-}' is no command: serve or check" >&2
        exit 2
        ;;
esac
