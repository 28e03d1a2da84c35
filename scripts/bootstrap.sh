#!/usr/bin/env bash
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Makes the controller's environment: scripts/bootstrap.sh controller|dev
# uv and a Python that ansible-core accepts are found, or installed, or the way to get them is said.
set -euo pipefail
cd "$(dirname "$0")/.."

lock=requirements/${1:?usage: scripts/bootstrap.sh controller|dev}.txt
[ -f "$lock" ] || { echo "bootstrap: no such lock file: $lock (controller or dev)" >&2; exit 2; }
venv=${BITNET_VENV:-.venv}
oldest=12 newest=14 # the minor versions of Python 3 that ansible-core 2.21 runs on

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

find_uv() {
    if command -v uv >/dev/null; then command -v uv; return; fi
    if [ ! -x .cache/uv/bin/uv ]; then
        if ! python3 -m venv .cache/uv >/dev/null 2>&1; then
            rm -rf .cache/uv
            echo "bootstrap: installing python3-venv (needed once, to install uv)" >&2
            as_root apt-get update -qq >/dev/null
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qqy python3-venv >/dev/null
            python3 -m venv .cache/uv
        fi
        .cache/uv/bin/pip install --quiet --require-hashes -r requirements/uv.txt >&2
    fi
    echo "$PWD/.cache/uv/bin/uv"
}

accepted() { # does this interpreter run, and is its version accepted?
    "$1" -c "import sys; sys.exit(not (3, $oldest) <= sys.version_info[:2] <= (3, $newest))" >/dev/null 2>&1
}

find_python() {
    local python
    for python in ${BITNET_PYTHON:-} python3 python3.14 python3.13 python3.12 \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-4].*/bin/python3; do
        if accepted "$python"; then command -v "$python"; return; fi
    done
    echo "bootstrap: no Python 3.$oldest to 3.$newest here; asking uv for one" >&2
    if "$uv" python install --quiet 3.13 >&2; then
        "$uv" python find --managed-python 3.13
        return
    fi
    cat >&2 <<EOF
bootstrap: ansible-core needs Python 3.$oldest to 3.$newest, none was found, and uv could not download one.
  Debian 13:            apt-get install python3 python3-venv
  Ubuntu 24.04:         apt-get install python3 python3-venv
  Debian 12 and others: pyenv install 3.13, or unpack any Python build and name it: BITNET_PYTHON=/path/to/python3 make site
EOF
    return 1
}

stamp=$(sha256sum "$lock" | cut -d' ' -f1)
# The stamp says what was installed, and not that it still runs: a Python that was upgraded away takes its environments with it.
if [ "$(cat "$venv/.lock" 2>/dev/null)" = "$stamp" ] && accepted "$venv/bin/python"; then exit 0; fi
mkdir -p .cache
uv=$(find_uv)
if ! accepted "$venv/bin/python"; then
    python=$(find_python)
    "$uv" venv --quiet --clear --python "$python" "$venv"
fi
echo "bootstrap: installing $lock into $venv" >&2
"$uv" pip install --quiet --python "$venv/bin/python" --require-hashes -r "$lock"
echo "$stamp" >"$venv/.lock"
