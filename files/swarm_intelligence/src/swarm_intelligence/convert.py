# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From I2_S, as Microsoft publishes, to IQ2_BN_R4, which ik_llama.cpp computes with fastest.

The embeddings, which are the output matrix, too, and read whole for each token, become Q6_K (two fifths of F16)
unless they have outliers that make it too coarse.

A file does not say which ordering its I2_S has. Read in the wrong one a trained model knows nothing of language, so
both are tried on a text, and the one that makes more sense of it is taken.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from . import engine_run, i2s, q6k
from .cpu import cpu_flags
from .gguf_check import check_i2s, check_servable, check_structure, raw_i2s
from .gguf_file import IQ2_BN_R4, Q6_K, GGUFFile, ModelError
from .reference import unpack
from .verify import CPUINFO, requirements

SAMPLES = 5
"""Rows of each tensor that are compared, spread over it, the first and the last among them."""
EMBEDDINGS = 256
"""Rows of the embeddings that are tried in Q6_K, spread over them, ..."""
COARSE = 0.03
"""... and by how much of its length none may change. Numbers without outliers change by about 0.019."""
TEXT = "The name of the program is the name of the file that it is in, and the user of the system can read it."
POSITIONS = range(4, 24)
AUTO = "auto"
LEAST_SENSE = 0.5
"""Nats per token by which one ordering must be better than the other, and than guessing."""


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
    ordering: str = AUTO,
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
    embeddings = embeddings_type(original)

    def quantized(name: str) -> Path:
        """The model as the engine reads it, if the input has this ordering; compared with the input."""
        target = part(name)
        with in_x86_ordering(original, name, part(f"{name}-source")) as readable:
            _quantize(readable.path, target, embeddings, kernels, variant, threads=threads, deadline=deadline)
            check_servable(target)
            compare(readable, GGUFFile(target), raw)
        return target

    def part(name: str) -> Path:
        return output.with_name(f".{output.name}.{os.getpid()}.{name}.part")

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if ordering == AUTO:
            found = {name: sense(kernels, variant, quantized(name), deadline=deadline) for name in i2s.ORDERINGS}
            ordering, reason = choose(found, len(original.metadata["tokenizer.ggml.tokens"]))
            say(reason)
            chosen = part(ordering)
        else:
            chosen = quantized(ordering)
        say(f"{len(raw)} tensors converted; {SAMPLES} rows of each are equal to the original")
        chosen.replace(output)
    except OSError as error:
        raise ModelError(
            f"{output}: cannot be written ({error.strerror}); make room or choose another output."
        ) from error
    finally:
        for name in i2s.ORDERINGS:
            part(name).unlink(missing_ok=True)


@contextlib.contextmanager
def in_x86_ordering(original: GGUFFile, ordering: str, scratch: Path) -> Iterator[GGUFFile]:
    """The model itself, or a copy of it in ``scratch`` whose I2_S tensors are in the ordering that the engine reads."""
    if ordering == "x86":
        yield original
        return
    try:
        shutil.copyfile(original.path, scratch)
        with scratch.open("r+b") as file:
            for name in raw_i2s(original):
                tensor = original.tensors[name]
                file.seek(tensor.start)
                file.write(i2s.to_x86(np.asarray(original.bytes_of(name)), math.prod(tensor.shape)).tobytes())
        yield GGUFFile(scratch)
    finally:
        scratch.unlink(missing_ok=True)


def sense(kernels: Path, variant: str, model: Path, *, deadline: float) -> float:
    """Mean log-probability, in nats, that a model gives to the tokens of an English sentence."""
    size = len(GGUFFile(model).metadata["tokenizer.ggml.tokens"])
    logs = []
    try:
        with engine_run.running(kernels, variant, model, deadline=deadline) as engine:
            tokens = engine.tokens(TEXT)
            for position in POSITIONS[: len(tokens) - POSITIONS.start]:
                with contextlib.suppress(engine_run.NotText):
                    _unused, rows = engine.distributions(tokens[:position], 1, size)
                    logs.append(float(rows[0][tokens[position]]))
    except engine_run.EngineError:
        return -math.inf  # no numbers, no sense
    return sum(logs) / len(logs) if logs else -math.inf


def choose(found: dict[str, float], vocabulary: int) -> tuple[str, str]:
    """The ordering to take by the sense that each makes, and why. Where it cannot be told, the published one."""
    best = max(found, key=lambda name: found[name])
    figures = " and ".join(f"{value:.2f} with the {name} ordering" for name, value in found.items())
    others = [value for name, value in found.items() if name != best]
    if found[best] >= max([*others, -math.log(vocabulary)]) + LEAST_SENSE:
        return best, f"I2_S is in the {best} ordering: nats per token of a text are {figures}"
    return "x86", f"the ordering of I2_S cannot be told, x86 is taken: nats per token of a text are {figures}"


def embeddings_type(model: GGUFFile) -> str:
    """Q6_K, or F16 where it would change a row too much."""
    table = model.tensor("token_embd.weight")
    if table.shape[1] % q6k.BLOCK:
        return "f16"
    for row in np.linspace(0, table.shape[0] - 1, min(EMBEDDINGS, table.shape[0])).astype(int):
        exact = unpack(model.bytes_of(table.name), table.type_id, table.shape, int(row), 1)
        change = np.linalg.norm(unpack(q6k.encode(exact).reshape(-1), Q6_K, exact.shape) - exact)
        if change > COARSE * np.linalg.norm(exact):
            return "f16"
    return "q6_k"


def _quantize(
    source: Path, target: Path, embeddings: str, kernels: Path, variant: str, *, threads: int, deadline: float
) -> None:
    program = kernels / "bin" / "llama-quantize"
    command = [
        str(program), "--allow-requantize", "--token-embedding-type", embeddings, str(source), str(target), "iq2_bn_r4",
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
        if after.type_id != IQ2_BN_R4:
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
