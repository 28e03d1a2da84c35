# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long kernel_build takes for each variant: from nothing, with its ccache, and after a change of one source line.

    python -m benchmarks.kernels.compile [--variants NAME ...]

The ratios are to the same variant's time from nothing in the same run. Verification is left out: it is no compilation.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from plugins.module_utils._kernels.catalogue import VARIANTS

CHECKOUT = Path(__file__).resolve().parents[2]
PUBLISHED = ("kernels", "variants", "programs", "work")
# In a file that every variant compiles; a comment would come out of the preprocessor as nothing.
ONE_LINE = {
    "path": "ggml/src/iqk/iqk_mul_mat.cpp",
    "find": "const int min_step = Ny <= 16 ? 16 : 32;",
    "replace": "const int min_step = Ny < 17 ? 16 : 32;",
}


def run(cache: Path, variants: list[str], patches: list[dict[str, str]]) -> dict[str, float]:
    """Seconds that each variant took."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "variants.json"
        given = {
            "compile_cache": str(cache), "compile_variants": variants, "compile_patches": patches,
            "compile_output": str(output),
            # What the role finds by its own path, which a task outside of it has not.
            "image_build_files": str(CHECKOUT / "files"),
        }  # fmt: skip
        argv = ["ansible-playbook", "benchmarks/kernels/compile.yml", "--extra-vars", json.dumps(given)]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}
        done = subprocess.run(argv, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"ansible-playbook ended with {done.returncode}: {done.stdout[-3000:]}")
        return {name: float(entry["seconds"] or 0) for name, entry in json.loads(output.read_text()).items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels.compile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--cache", type=Path, help="an empty folder to leave the result in (default: one that goes)")
    options = parser.parse_args()
    cache = options.cache or Path(tempfile.mkdtemp(prefix="bitnet-compile-"))
    cache.mkdir(parents=True, exist_ok=True)
    if any(cache.iterdir()):
        parser.error(f"--cache {cache}: is not empty; name a folder that is")
    found = {}

    def measure(kind: str, patches: list[dict[str, str]]) -> None:
        found[kind] = run(cache, options.variants, patches)
        print(f"{kind}: {', '.join(f'{name} {seconds:.0f} s' for name, seconds in found[kind].items())}", flush=True)

    try:
        measure("from nothing", [])
        for name in PUBLISHED:
            shutil.rmtree(cache / name, ignore_errors=True)
        measure("with ccache", [])
        measure("one line changed", [ONE_LINE])
        measure("nothing to do", [])
    finally:
        if not options.cache:
            shutil.rmtree(cache, ignore_errors=True)
    print(f"| variant | {' | '.join(f'{kind}, s' for kind in found)} |\n|{' --- |' * (len(found) + 1)}")
    for name in options.variants:
        print(f"| {name} | {' | '.join(f'{times[name]:.0f}' for times in found.values())} |")
    sums = {kind: sum(times.values()) for kind, times in found.items()}
    print(f"| all | {' | '.join(f'{seconds:.0f}' for seconds in sums.values())} |")
    shares = [f"{seconds / sums['from nothing']:.3f}" for seconds in sums.values()]
    print(f"| of the time from nothing | {' | '.join(shares)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
