# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From I2_S, as Microsoft publishes, to IQ2_BN, as ik_llama.cpp computes."""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from . import engine_run
from .cpu import cpu_flags
from .gguf_check import check_i2s, check_servable, check_structure, raw_i2s
from .gguf_file import IQ2_BN, GGUFFile, ModelError
from .reference import unpack
from .verify import CPUINFO, requirements

SAMPLES = 5
"""Rows of each tensor that are compared, spread over it, the first and the last among them."""


def runnable_variant(kernels: Path) -> str:
    """A variant that this CPU can run; which one makes no difference to a conversion."""
    flags = cpu_flags(CPUINFO)
    known = requirements(kernels)
    for name in sorted(known):
        if set(known[name]) <= flags:
            return name
    raise ModelError(f"{kernels}: this CPU runs none of the variants {', '.join(sorted(known))}; build one for it.")


def convert(
    source: Path,
    output: Path,
    kernels: Path,
    *,
    variant: str | None = None,
    threads: int = 2,
    deadline: float = 1800,
    say: Callable[[str], None] = lambda _line: None,
) -> None:
    """Convert, compare with the original by our own decoders, and only then let the output appear."""
    original = GGUFFile(source)
    raw = raw_i2s(original)
    if not raw:
        raise ModelError(f"{source}: no tensor is in I2_S, so there is nothing to convert; serve it as it is.")
    check_structure(original)
    check_i2s(original)
    if output.exists() and output.samefile(source):
        raise ModelError(f"output={str(output)!r} is the input itself; choose another name.")
    variant = variant or runnable_variant(kernels)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        _quantize(source, temporary, kernels, variant, threads=threads, deadline=deadline)
        check_servable(temporary)
        compare(original, GGUFFile(temporary), raw)
        say(f"{len(raw)} tensors converted; {SAMPLES} rows of each are equal to the original")
        temporary.replace(output)
    except OSError as error:
        raise ModelError(
            f"{output}: cannot be written ({error.strerror}); make room or choose another output."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _quantize(source: Path, target: Path, kernels: Path, variant: str, *, threads: int, deadline: float) -> None:
    program = kernels / "bin" / "llama-quantize"
    command = [
        str(program), "--allow-requantize", "--token-embedding-type", "f16", str(source), str(target), "iq2_bn",
        str(threads),
    ]  # fmt: skip
    try:
        result = subprocess.run(
            command,
            env=engine_run.environment(kernels, variant),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=deadline,
            check=False,
        )
    except OSError as error:
        raise ModelError(f"{program}: cannot be started ({error.strerror}); build the kernels again.") from error
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{program}: not done after {deadline:.0f} s; give a longer --deadline.") from error
    if result.returncode:
        tail = result.stdout[-600:].decode("utf-8", "replace")
        raise ModelError(
            f"{program}: ended with {result.returncode} ({tail!r}); check free memory and disk, and the input's sha256."
        )


def compare(original: GGUFFile, converted: GGUFFile, names: list[str]) -> None:
    """That sample rows mean the same numbers before and after; everything else must have kept its shape."""
    for name, tensor in original.tensors.items():
        if converted.tensor(name).shape != tensor.shape:
            raise ModelError(f"{converted.path}: {name!r} changed its shape on the way; build the kernels again.")
    for name in names:
        before, after = original.tensors[name], converted.tensors[name]
        if after.type_id != IQ2_BN:
            raise ModelError(f"{converted.path}: {name!r} became {after.type_name}; build the kernels again.")
        rows = math.prod(before.shape[:-1])
        for row in np.linspace(0, rows - 1, min(SAMPLES, rows)).astype(int):
            wanted = unpack(original.bytes_of(name), before.type_id, before.shape, int(row), 1)
            found = unpack(converted.bytes_of(name), after.type_id, after.shape, int(row), 1)
            if not np.allclose(wanted, found, rtol=1e-6, atol=0):
                raise ModelError(
                    f"{converted.path}: row {row} of {name!r} is not what the input says, so the conversion is wrong; "
                    "build the kernels again and do not use the output."
                )
