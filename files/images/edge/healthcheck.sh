#!/usr/bin/env bash
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The edge itself answers, whatever the slots do: a slot that is down must not take the edge with it.
set -eu
exec 3<> /dev/tcp/127.0.0.1/8080
printf 'GET /edge/health HTTP/1.0\r\n\r\n' >&3
read -r _version status _reason <&3
[ "$status" = 200 ]
