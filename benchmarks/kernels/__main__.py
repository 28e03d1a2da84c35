# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a variant gains: prompt processing and generation, as ratios of pairs measured in one run.

    make bench-kernels                       what `make site` built, against the generic wheel and mainline llama.cpp
    make bench-kernels ARGS="--rounds 2 --subjects wheel"     short

Subjects, all with the same number of threads, on models of the published 2B-4T's dimensions with random weights:
    chosen      the best variant that this CPU runs; IQ2_BN_R4, embeddings in Q6_K, as `model convert` makes it
    huge-pages  the same, the model read into transparent huge pages (which slots cannot share)
    plain-file  the same kernels; IQ2_BN, embeddings in F16
    VARIANT     another variant of the set, on the file of `chosen`; the one with the lowest rank is the floor
    wheel       libggml and libllama of the generic wheel ik-llama-cpp-python from the package index, on the plain file
    wheel-file  the wheel on the file of `chosen`
    mainline    llama-cpp-python's llama.cpp, compiled for this CPU; TQ2_0, embeddings in F16

Each round runs llama-bench once per subject, one after the other, in an order that turns from round to round. The
ratios are those of a round, the figure is their median. Beside it: how much of the memory's bandwidth generation uses,
which is what bounds it, since each token reads all weights once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import peers
from .models import ENGINE, MAINLINE, Dimensions, write

CACHE = Path(os.environ.get("BITNET_BENCH_CACHE", Path.home() / ".cache" / "bitnet-bench"))
SETS = Path("/var/lib/bitnet/cache/kernels")
KINDS = ("prompt", "generation")
PEERS = ("wheel", "wheel-file", "mainline")
BENCH_SECONDS = 600


@dataclass
class Subject:
    """A program with its libraries and a model."""

    name: str
    program: Path
    libraries: Path
    model: Path
    more: tuple[str, ...] = ()
    """Arguments of llama-bench."""
    speeds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    """Tokens per second, by kind, one of each round."""

    def measure(self, options: argparse.Namespace) -> None:
        argv = [
            str(self.program), "--model", str(self.model), "--n-prompt", str(options.prompt),
            "--n-gen", str(options.generate), "--threads", str(options.threads), "--repetitions", "1",
            "--output", "json", *self.more,
        ]  # fmt: skip
        environment = {**os.environ, "LD_LIBRARY_PATH": str(self.libraries)}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=BENCH_SECONDS, check=False)
        if done.returncode:
            raise SystemExit(f"{self.name}: exit status {done.returncode}: {done.stderr[-800:]}")
        for entry in json.loads(done.stdout[done.stdout.index("[") :]):
            self.speeds["generation" if entry["n_gen"] else "prompt"].append(float(entry["avg_ts"]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--kernels", type=Path, help=f"a set of kernel_build (default: the newest in {SETS} that this CPU can run)")
    add("--subjects", default="", help="which ones, separated by commas (default: all)")
    add("--rounds", type=int, default=5)
    add("--threads", type=int, default=len(os.sched_getaffinity(0)))
    add("--prompt", type=int, default=128, help="tokens of the prompt (default 128)")
    add("--generate", type=int, default=32, help="tokens that are generated (default 32)")
    add("--layers", type=int, default=Dimensions.layers, help="fewer for a short look (default 30)")
    add("--output", type=Path, default=Path("tests/output/kernels"))
    options = parser.parse_args()
    for name in ("rounds", "threads", "prompt", "generate", "layers"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: {getattr(options, name)} is too small, it must be at least 1")
    return options


def model(options: argparse.Namespace, architecture: str, ternary: str, embeddings: str) -> Path:
    path: Path = CACHE / f"{architecture}-{options.layers}-{ternary}-{embeddings}.gguf"
    if not path.exists():
        print(f"writing {path.name}", flush=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        write(path, Dimensions(layers=options.layers), architecture, ternary, embeddings)
    return path


def cpu_flags() -> set[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("flags", "Features")):
            return set(line.partition(":")[2].split())
    return set()


def kernel_set(given: Path | None) -> tuple[Path, list[str]]:
    """A set and the variants in it that this CPU runs, the best first."""
    flags = cpu_flags()
    seen = []
    for path in [given] if given else sorted(SETS.glob("*"), key=lambda path: -path.stat().st_mtime):
        try:
            variants = json.loads((path / "manifest.json").read_text())["variants"]
        except OSError as error:
            raise SystemExit(f"--kernels {path}: no manifest.json there ({error.strerror}); name a set") from error
        runnable = [name for name, entry in variants.items() if set(entry["requires"]) <= flags]
        if runnable:
            return path, sorted(runnable, key=lambda name: -variants[name]["rank"])
        seen += variants
    raise SystemExit(f"--kernels {given or SETS}: this CPU runs none of [{', '.join(seen)}]; make site builds a set")


def collect(options: argparse.Namespace) -> dict[str, Subject]:
    """The subjects that were asked for; `chosen` comes first and is always there."""
    kernels, runnable = kernel_set(options.kernels)
    program = kernels / "bin" / "llama-bench"
    converted, plain = model(options, ENGINE, "iq2_bn_r4", "q6_k"), model(options, ENGINE, "iq2_bn", "f16")
    best = kernels / "lib" / runnable[0]
    found = {
        "chosen": Subject("chosen", program, best, converted),
        "huge-pages": Subject("huge-pages", program, best, converted, ("--transparent-huge-pages", "1")),
        "plain-file": Subject("plain-file", program, best, plain),
    }
    for name in runnable[1:]:
        found[name] = Subject(name, program, kernels / "lib" / name, converted)
    known = [*found, *PEERS]
    wanted = [name for name in options.subjects.split(",") if name] or known
    if unknown := [name for name in wanted if name not in known]:
        raise SystemExit(f"--subjects {', '.join(unknown)}: there are {', '.join(known)}")
    for name, file in (("wheel", plain), ("wheel-file", converted)):
        if name in wanted:
            found[name] = Subject(name, program, peers.wheel_libraries(CACHE), file)
    if "mainline" in wanted:
        other, libraries = peers.mainline_bench(CACHE)
        found["mainline"] = Subject("mainline", other, libraries, model(options, MAINLINE, "tq2_0", "f16"))
    print(f"chosen is {runnable[0]}; {options.threads} threads, {options.rounds} rounds", flush=True)
    return {name: subject for name, subject in found.items() if name == "chosen" or name in wanted}


def bandwidth(threads: int, seconds: float = 2.0) -> float:
    """Bytes per second that so many threads read from memory: sums over 256 MiB for each, far more than a cache."""
    arrays = [np.ones(1 << 25, dtype=np.float64) for _unused in range(threads)]
    end = time.monotonic() + seconds

    def read(array: np.ndarray) -> int:
        count = 0
        while time.monotonic() < end:
            array.max()
            count += array.nbytes
        return count

    begun = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(read, arrays))
    return total / (time.monotonic() - begun)


def report(subjects: dict[str, Subject], bandwidths: list[float], options: argparse.Namespace) -> dict[str, object]:
    chosen = subjects["chosen"]
    rate = statistics.median(bandwidths)
    found = {}
    for name, subject in subjects.items():
        entry: dict[str, object] = {"model_bytes": subject.model.stat().st_size}
        for kind in KINDS:
            ratios = [a / b for a, b in zip(chosen.speeds[kind], subject.speeds[kind], strict=True)]
            entry[kind] = {
                "tokens_per_second": round(statistics.median(subject.speeds[kind]), 2),
                "chosen_is_times": round(statistics.median(ratios), 3),
                "from": round(min(ratios), 3),
                "to": round(max(ratios), 3),
            }
        read = statistics.median(subject.speeds["generation"]) * subject.model.stat().st_size
        entry["share_of_bandwidth"] = round(read / rate, 3)
        found[name] = entry
    return {
        "threads": options.threads, "rounds": options.rounds, "prompt": options.prompt, "generate": options.generate,
        "memory_bytes_per_second": round(rate), "subjects": found,
    }  # fmt: skip


def table(document: dict[str, object]) -> str:
    lines = ["| subject | prompt, tokens/s | chosen is | generation, tokens/s | chosen is | of memory's bandwidth |",
             "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for name, entry in document["subjects"].items():  # type: ignore[attr-defined]
        cells = [name]
        for kind in KINDS:
            found = entry[kind]
            cells += [f"{found['tokens_per_second']:.1f}",
                      f"{found['chosen_is_times']:.2f} times ({found['from']:.2f} to {found['to']:.2f})"]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} | {100 * entry['share_of_bandwidth']:.0f} % |")
    return "\n".join(lines)


def plot(subjects: dict[str, Subject], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(KINDS), figsize=(9, 3.2), layout="constrained")
    names = list(subjects)
    for axis, kind in zip(axes, KINDS, strict=True):
        for number, name in enumerate(names):
            speeds = subjects[name].speeds[kind]
            axis.barh(number, statistics.median(speeds), color="tab:blue" if name == "chosen" else "tab:gray")
            axis.plot(speeds, [number] * len(speeds), ".", color="black", markersize=3)
        axis.set_yticks(range(len(names)), names if kind == KINDS[0] else [])
        axis.invert_yaxis()
        axis.set_xlabel(f"{kind}, tokens per second (dots: rounds)", fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> int:
    options = arguments()
    subjects = collect(options)
    bandwidths = []
    for number in range(options.rounds):
        names = list(subjects)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            subjects[name].measure(options)
        bandwidths.append(bandwidth(options.threads))
        said = ", ".join(
            f"{name} {subject.speeds['prompt'][-1]:.1f}/{subject.speeds['generation'][-1]:.1f}"
            for name, subject in subjects.items()
        )
        print(f"  round {number + 1}, prompt/generation in tokens/s: {said}", flush=True)
    document = report(subjects, bandwidths, options)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "result.json").write_text(json.dumps(document, indent=2) + "\n")
    (options.output / "table.md").write_text(table(document) + "\n")
    plot(subjects, options.output / "plot.png")
    print(f"\n{table(document)}\n\nmemory: {document['memory_bytes_per_second'] / 1e9:.1f} GB/s read by"  # type: ignore[operator]
          f" {options.threads} threads. Written to {options.output}: result.json, table.md, plot.png")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
