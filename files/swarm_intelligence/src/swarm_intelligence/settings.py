# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the container is told through its environment, checked before anything starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LOG_LEVELS = ("debug", "info", "warning", "error")
SLOTS = ("blue", "green")
MIGRATE = ("expand", "never")


class SettingsError(Exception):
    """A setting that cannot be used; the message names it, its value and the way out."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    environment: str
    release: str
    slot: str
    model: Path
    kernels: Path
    variant: str
    cpuinfo: Path
    threads: int
    context: int
    parallel: int
    queue: int
    queue_seconds: float
    stall_seconds: float
    request_seconds: float
    grace_seconds: float
    max_body_bytes: int
    tokens_file: Path
    engine_port: int
    log_level: str
    database_url_file: Path | None
    database_ca_file: Path | None
    database_migrate: str
    redis_url_file: Path | None
    redis_ca_file: Path | None
    requests_per_minute: int
    jobs_parallel: int
    jobs_lease_seconds: float

    @property
    def engine_url(self) -> str:
        return f"http://127.0.0.1:{self.engine_port}"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        read = _Reader(os.environ if environment is None else environment)
        return cls(
            environment=read.text("BITNET_ENVIRONMENT", "local"),
            release=read.text("BITNET_RELEASE", "unreleased"),
            slot=read.choice("BITNET_SLOT", "blue", SLOTS),
            model=Path(read.text("BITNET_MODEL", "/models/model.gguf")),
            kernels=Path(read.text("BITNET_KERNELS", "/opt/bitnet/kernels")),
            variant=read.text("BITNET_VARIANT", ""),
            cpuinfo=Path(read.text("BITNET_CPUINFO", "/proc/cpuinfo")),
            threads=read.integer("BITNET_THREADS", len(os.sched_getaffinity(0)), 1, 1024),
            context=read.integer("BITNET_CONTEXT", 2048, 64, 1_048_576),
            parallel=read.integer("BITNET_PARALLEL", 2, 1, 256),
            queue=read.integer("BITNET_QUEUE", 32, 0, 100_000),
            queue_seconds=read.seconds("BITNET_QUEUE_SECONDS", 30, 0.1, 3600),
            stall_seconds=read.seconds("BITNET_STALL_SECONDS", 120, 1, 3600),
            request_seconds=read.seconds("BITNET_REQUEST_SECONDS", 600, 1, 86_400),
            grace_seconds=read.seconds("BITNET_GRACE_SECONDS", 30, 0, 3600),
            max_body_bytes=read.integer("BITNET_MAX_BODY_BYTES", 1_048_576, 1024, 1_073_741_824),
            tokens_file=Path(read.text("BITNET_TOKENS_FILE", "/run/secrets/bitnet_tokens")),
            engine_port=read.integer("BITNET_ENGINE_PORT", 8081, 1, 65_535),
            log_level=read.choice("BITNET_LOG_LEVEL", "info", LOG_LEVELS),
            database_url_file=read.path("BITNET_DATABASE_URL_FILE"),
            database_ca_file=read.path("BITNET_DATABASE_CA_FILE"),
            database_migrate=read.choice("BITNET_DATABASE_MIGRATE", "expand", MIGRATE),
            redis_url_file=read.path("BITNET_REDIS_URL_FILE"),
            redis_ca_file=read.path("BITNET_REDIS_CA_FILE"),
            requests_per_minute=read.integer("BITNET_REQUESTS_PER_MINUTE", 0, 0, 1_000_000),
            jobs_parallel=read.integer("BITNET_JOBS_PARALLEL", 1, 0, 256),
            jobs_lease_seconds=read.seconds("BITNET_JOBS_LEASE_SECONDS", 30, 1, 3600),
        )


class _Reader:
    """Reads one variable each; an empty one counts as not set."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment

    def text(self, name: str, default: str) -> str:
        return self.environment.get(name, "").strip() or default

    def path(self, name: str) -> Path | None:
        value = self.text(name, "")
        return Path(value) if value else None

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.text(name, default)
        if value not in choices:
            raise SettingsError(f"{name}={value!r} is not known: set it to one of {', '.join(choices)}.")
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self.text(name, str(default))
        try:
            number = int(value)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise SettingsError(
                f"{name}={value!r} cannot be used: set it to a whole number from {low} to {high}, "
                f"or leave it out for {default}."
            )
        return number

    def seconds(self, name: str, default: float, low: float, high: float) -> float:
        value = self.text(name, str(default))
        try:
            number = float(value)
        except ValueError:
            number = low - 1
        if not low <= number <= high:  # false for NaN as well
            raise SettingsError(
                f"{name}={value!r} cannot be used: set it to seconds from {low:g} to {high:g}, "
                f"or leave it out for {default:g}."
            )
        return number
