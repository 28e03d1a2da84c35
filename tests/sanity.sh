#!/usr/bin/env bash
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# ansible-test wants a real folder of its own shape: it gets a copy of what git tracks or would track.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
copy=.cache/sanity/ansible_collections/bitnet/devops
mkdir -p "$copy"
find "$copy" -mindepth 1 -maxdepth 1 ! -name tests -exec rm -rf {} + # tests/output holds the environments that were made
if [ -d "$copy/tests" ]; then find "$copy/tests" -mindepth 1 -maxdepth 1 ! -name output -exec rm -rf {} +; fi
git ls-files --cached --others --exclude-standard -z | while IFS= read -r -d '' file; do
    if [ -e "$file" ]; then printf '%s\0' "$file"; fi
done | xargs -0 cp --parents -t "$copy"

# ansible-test keeps its environments and pip's bootstrap script in the home folder, and passes no variable of pip's on:
# give it a home of its own, with this user's settings of pip in it.
export XDG_CACHE_HOME=${XDG_CACHE_HOME:-$HOME/.cache}
settings=$(python -m pip config list | sed -nE "s/^(global|install|:env:)\\.([a-z-]+)='(.*)'$/\\2 = \\3/p")
export HOME=$here/.cache/home
mkdir -p "$HOME/.ansible/test/cache" "$HOME/.config/pip"
printf '[global]\n%s\n' "$settings" | awk -F' = ' '!seen[$1]++' >"$HOME/.config/pip/pip.conf"
cp tests/get_pip.py "$HOME/.ansible/test/cache/get_pip_25_2.py" # the name that ansible-core 2.21 looks for

cd "$copy"
git init -q . && git add -A . # ansible-test lists files through git
antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck .
python=$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
exec ansible-test sanity --venv --python "$python" --color no "$@"
