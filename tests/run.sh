#!/usr/bin/env bash
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# What needs a real Docker: one end-to-end run of README, tests on real parts, a molecule scenario per role.
# tests/run.sh [--full]     --full runs the tests marked `full`, too: slow variations of what the others cover
set -euo pipefail
cd "$(dirname "$0")/.."

only=(-m 'not full' tests/integration)
scenarios=(docker_engine swarm_cluster image_build swarm_rollout traffic teardown)
if [ "${1:-}" = --full ]; then
    only=(tests/integration tests/unit/roles)
    scenarios+=(database secrets swarm_upgrade) # an image of its own, three machines: longer than CI has
fi

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
finish() {
    status=$?
    python tests/lab/machine.py prune --all >/dev/null || true
    python tests/lab/machine.py clean >/dev/null || true
    tests/lab/host-docker.sh stop
    if [ "$status" != 0 ] && [ -n "${scenario:-}" ]; then
        echo "molecule: $scenario failed here:"
        awk '/TASK \[/ { task = "" } { task = task $0 "\n" } /fatal: / { failed = 1 } /TASK \[|PLAY RECAP/ && failed { failed = 0 }
            failed { last = task } END { printf "%s", last }' "$log" | tail -n 60
    fi
}
trap finish EXIT

tests/lab/host-docker.sh start
if ! command -v mmdebstrap >/dev/null; then # makes the base image where no registry is reached
    as_root apt-get update -q >/dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends mmdebstrap >/dev/null
fi
python tests/lab/machine.py prune --all
python tests/lab/machine.py note

python -m pytest -v --durations=15 "${only[@]}"
export BITNET_TEST_IMAGE=bitnet/swarm-intelligence:under-test # what the end-to-end run built
log=.cache/molecule.log
for scenario in "${scenarios[@]}"; do
    echo "molecule: $scenario"
    SECONDS=0
    molecule test -s "$scenario" 2>&1 | tee "$log"
    echo "molecule: $scenario passed in $SECONDS s"
done
scenario=
