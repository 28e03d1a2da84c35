# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a kernel variant compute what the model says? The engine's distributions against the NumPy forward pass."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from . import synthetic
from .cpu import cpu_flags
from .engine_run import Engine, EngineError, NotText, running
from .gguf_check import check_servable
from .gguf_file import GGUFFile, ModelError
from .reference import Reference, agreement

MIN_COSINE = 0.999
MAX_RELATIVE_L2 = 0.02
STEPS = 2
"""Tokens that are generated for each prompt: the first comes out of prompt processing, the second out of generation,
which run through different kernels (matrix times matrix, matrix times vector)."""
LENGTHS = (1, 2, 7, 33, 160)
"""Prompt lengths: the engine's kernels differ by the number of rows they work on at once."""
ATTEMPTS = 5
CPUINFO = Path("/proc/cpuinfo")


class Verdict(TypedDict):
    """Of one variant; cosine and relative_l2 are the worst of all distributions compared (null when it did not run)."""

    ran: bool
    reason: str
    cosine: float | None
    relative_l2: float | None
    passed: bool


def _not_run(reason: str) -> Verdict:
    return {"ran": False, "reason": reason, "cosine": None, "relative_l2": None, "passed": False}


def requirements(kernels: Path) -> dict[str, list[str]]:
    """The CPU features that each variant of a kernels directory needs, from its manifest."""
    path = kernels / "manifest.json"
    try:
        variants = json.loads(path.read_text(encoding="utf-8"))["variants"]
        return {str(name): [str(flag) for flag in entry["requires"]] for name, entry in variants.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path}: cannot be used ({type(error).__name__}: {error}); name an output directory of kernel_build."
        ) from error


def prompt(length: int, vocabulary: int, attempt: int = 0) -> list[int]:
    """A token sequence spread over the vocabulary, the same each time; without single bytes and special tokens, which
    lie at the two ends."""
    first, last = vocabulary // 4, vocabulary * 31 // 32
    return [
        first + (position * 7919 + (length + 1000 * attempt) * 104729) % (last - first) for position in range(length)
    ]


def _ask(engine: Engine, length: int, vocabulary: int) -> tuple[list[int], list[int], np.ndarray]:
    """A prompt, its continuation and the distributions, of the first prompt whose continuation is text."""
    for attempt in range(ATTEMPTS):
        tokens = prompt(length, vocabulary, attempt)
        try:
            return tokens, *engine.distributions(tokens, STEPS, vocabulary)
        except NotText:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def verify_variant(
    kernels: Path | str,
    variant: str,
    model: Path | str | None = None,
    *,
    requires: list[str] | None = None,
    cpuinfo: Path = CPUINFO,
    reference: Path | str | None = None,
    threads: int = 1,
    deadline: float = 120,
    emulator: Sequence[str] = (),
) -> Verdict:
    """Run one variant on a model (by default the synthetic one in each type that is served) and compare all next-token
    distributions.

    ``requires`` replaces the manifest's list, ``reference`` the file that NumPy reads (the model itself by default).
    Under an ``emulator`` (a command line) it does not count what this CPU lacks: an instruction that the emulated one
    does not have ends the engine.
    """
    kernels = Path(kernels)
    if requires is None:
        known = requirements(kernels)
        if variant not in known:
            raise ModelError(f"variant={variant!r} is not in {kernels}; name one of {', '.join(sorted(known))}.")
        requires = known[variant]
    missing = sorted(set(requires) - cpu_flags(cpuinfo))
    if missing and not emulator:
        return _not_run(f"this CPU lacks {' '.join(missing)}")
    with tempfile.TemporaryDirectory(prefix="bitnet-verify-") as scratch:
        models = [Path(model)] if model else [Path(scratch) / f"{kind}.gguf" for kind in synthetic.SERVED]
        pairs = []
        for path in models:
            if not model:
                synthetic.write(path, kind=path.stem)
            check_servable(path)
            try:
                original = Path(reference or path)
                pairs += _compare(kernels, variant, path, original, emulator, threads=threads, deadline=deadline)
            except EngineError as error:
                return {**_not_run(f"{path.name}: {error}"), "ran": True}
    cosine, distance = min(pair[0] for pair in pairs), max(pair[1] for pair in pairs)
    passed = bool(np.isfinite([cosine, distance]).all() and cosine >= MIN_COSINE and distance < MAX_RELATIVE_L2)
    return {
        "ran": True,
        "reason": f"{len(pairs)} distributions of {' and '.join(path.stem for path in models)}; "
        f"cosine must be at least {MIN_COSINE}, relative L2 under {MAX_RELATIVE_L2}",
        "cosine": round(cosine, 6),
        "relative_l2": round(distance, 6),
        "passed": passed,
    }


def _compare(
    kernels: Path,
    variant: str,
    model: Path,
    original: Path,
    emulator: Sequence[str],
    *,
    threads: int,
    deadline: float,
) -> list[tuple[float, float]]:
    """Cosine and relative L2 error of each distribution."""
    truth = Reference(GGUFFile(original))
    size = truth.parameters.vocabulary
    with running(kernels, variant, model, threads=threads, deadline=deadline, emulator=emulator) as engine:
        answers = [_ask(engine, length, size) for length in LENGTHS]
    # The reference reads the continuation that the engine chose: its choice is not judged, its numbers are.
    read = [tokens + chosen[:-1] for tokens, chosen, _unused in answers]
    expected = truth.log_probabilities(read, last=STEPS)
    return [
        agreement(wanted, measured)
        for (_unused, _unused, found), wide in zip(answers, expected, strict=True)
        for wanted, measured in zip(wide, found, strict=True)
    ]


def verify(
    kernels: Path, variant: str | None = None, model: Path | None = None, *, threads: int = 1, deadline: float = 120
) -> dict[str, Any]:
    """One or all variants of a kernels directory."""
    names = [variant] if variant else sorted(requirements(kernels))
    return {name: verify_variant(kernels, name, model, threads=threads, deadline=deadline) for name in names}
