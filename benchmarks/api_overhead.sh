#!/usr/bin/env bash
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# api_overhead.py where the engine is: in the network of the active slot's container, with nothing else of it.
# benchmarks/api_overhead.sh [options of api_overhead.py]      after `make site`, on the same machine
set -euo pipefail
cd "$(dirname "$0")"

environment=${BITNET_ENVIRONMENT:-local}
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

edge=bitnet-$environment-edge
slot=$(as_root docker service inspect --format '{{index .Spec.Labels "io.bitnet.active-slot"}}' "$edge")
container=$(as_root docker ps --quiet --filter "label=com.docker.swarm.service.name=bitnet-$environment-$slot" | head -n 1)
image=$(as_root docker inspect --format '{{.Image}}' "$container")
as_root docker run --rm --network "container:$container" --read-only --user 0:0 --cap-drop ALL \
    --volume "$PWD/api_overhead.py:/api_overhead.py:ro" \
    --volume "/var/lib/bitnet/environments/$environment/tokens/probe:/token:ro" \
    --entrypoint python3 "$image" /api_overhead.py --engine http://127.0.0.1:8081 \
    --through "API http://127.0.0.1:8080" --through "API and edge http://tasks.$edge:8080" --token-file /token "$@"
