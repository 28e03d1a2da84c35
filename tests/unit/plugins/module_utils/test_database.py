# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL's parameters by the size of its host."""

from __future__ import annotations

import re

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils import _database

UNITS = {"kB": 1024, "MB": 1024**2, "GB": 1024**3}


def size(text: object) -> int:
    number, unit = re.fullmatch(r"(\d+)(\w+)", str(text)).groups()
    return int(number) * UNITS[unit]


@pytest.mark.parametrize("memory", [256, 512, 2048, 16384])
@pytest.mark.parametrize("cpus", [1, 2, 16, 128])
def test_all_that_is_promised_fits_into_the_memory(memory: int, cpus: int) -> None:
    found = _database.postgresql_parameters(memory, cpus, 3)
    promised = size(found["shared_buffers"]) + found["max_connections"] * size(found["work_mem"])
    assert promised <= memory * 1024**2
    assert size(found["maintenance_work_mem"]) <= 1024**3
    assert found["max_parallel_workers_per_gather"] <= found["max_parallel_workers"] <= found["max_worker_processes"]


def test_values_of_a_known_size() -> None:
    found = _database.postgresql_parameters(2144, 8, 3)
    assert found["shared_buffers"] == "512MB"
    assert found["effective_cache_size"] == "1536MB"
    assert found["work_mem"] == "5242kB"
    assert found["max_parallel_workers_per_gather"] == 2
    assert found["max_wal_senders"] == 11


def test_too_little_is_refused_with_the_way_out() -> None:
    with pytest.raises(_database.DatabaseError, match=r"database_postgresql_memory: 255 MiB.*at least 256M"):
        _database.postgresql_parameters(255, 2, 1)
