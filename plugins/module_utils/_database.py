# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL's parameters for a host of a given size. Pure; docs/database.md has the reason of each value."""

from __future__ import annotations

SMALLEST_MIB = 256
CONNECTIONS = 100
BESIDE_MIB = 96  # Patroni, and what PostgreSQL has beside its buffers


class DatabaseError(Exception):
    """A size that no PostgreSQL fits into; the message names it and the way out."""


def postgresql_parameters(memory_mib: int, cpus: int, members: int) -> dict[str, object]:
    """What follows from the memory of one PostgreSQL, the processors of its host and the number of members."""
    if memory_mib < SMALLEST_MIB:
        raise DatabaseError(
            f"database_postgresql_memory: {memory_mib} MiB are too few for PostgreSQL; give at least {SMALLEST_MIB}M"
        )
    usable = memory_mib - BESIDE_MIB
    gathering = min(cpus // 4, 4)
    return {
        "max_connections": CONNECTIONS,
        "shared_buffers": f"{usable // 4}MB",
        "effective_cache_size": f"{usable * 3 // 4}MB",
        # A quarter of the memory for sorts, if every connection has one.
        "work_mem": f"{max(usable * 1024 // 4 // CONNECTIONS, 512)}kB",
        "maintenance_work_mem": f"{max(min(usable // 16, 1024), 16)}MB",
        "random_page_cost": 1.1,
        "effective_io_concurrency": 200,
        "max_worker_processes": max(cpus, 4) + 2,
        "max_parallel_workers": max(cpus, 1),
        "max_parallel_workers_per_gather": gathering,
        "max_parallel_maintenance_workers": max(gathering, 1),
        "wal_level": "replica",
        "wal_compression": "lz4",
        "max_wal_size": "1GB",
        "checkpoint_timeout": "5min",
        "hot_standby": "on",
        "max_wal_senders": 5 + 2 * members,
        "max_replication_slots": 5 + 2 * members,
        "wal_keep_size": "128MB",
        "max_slot_wal_keep_size": "4GB",
        "wal_sender_timeout": "10s",
        "wal_receiver_timeout": "10s",
        "tcp_keepalives_idle": 10,
        "tcp_keepalives_interval": 5,
        "tcp_keepalives_count": 3,
        "tcp_user_timeout": "15s",
        "idle_in_transaction_session_timeout": "60s",
        "password_encryption": "scram-sha-256",
        "log_checkpoints": "on",
        "log_lock_waits": "on",
        "log_min_duration_statement": "1s",
        "archive_mode": "on",
        "archive_command": "/bin/true",
    }
