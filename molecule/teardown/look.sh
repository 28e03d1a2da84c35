#!/bin/sh
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# All that can be removed, one line each.
for kind in service secret config network volume; do
    docker "$kind" ls --format "$kind {{.Name}}" 2>/dev/null
done
docker ps --all --format 'container {{.Names}}' | sed 's/[.]1[.].*//'
docker image ls --format 'image {{.Repository}}:{{.Tag}}'
docker node inspect self --format 'node {{.Spec.Labels}}' 2>/dev/null
find /var/lib/bitnet
exit 0
