# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries a plan out: fetch, compile, inspect, prove, publish. Each step leaves the cache whole."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from . import commands, disassembly, manifest, source, verification
from .cache import Cache
from .catalogue import Variant
from .client import USER, Engine, unprivileged_user
from .errors import KernelError
from .plan import Plan, Step, Wanted
from .progress import Progress
from .running import Way

ALMOST_NOTHING = 1 << 20
# A run against the reference takes some seconds; under an emulator some times as long.
NATIVE_SECONDS, EMULATED_SECONDS = 300, 900
# In the container, where it is a tmpfs of its own.
SCRATCH = "/tmp"  # noqa: S108


def disk_full(cache: Cache, what: str, **details: object) -> KernelError:
    return KernelError(
        f"cache_dir: the disk under {str(cache.path)!r} is full ({cache.room() >> 20} MiB free; a variant takes about "
        f"300 MiB while it is built): {what}. Nothing was published; free some room or choose another cache_dir",
        **details,
    )


@dataclass
class Workshop:
    """What one build needs at hand. Used by the holder of the cache's lock alone."""

    cache: Cache
    engine: Engine
    image_id: str
    origin: source.Source
    wanted: Wanted
    params: dict[str, Any]
    ways: dict[str, Way]
    progress: Progress
    left: Callable[[], float]
    tools: source.Tools
    seconds: dict[str, float] = field(default_factory=dict)

    def carry_out(self, plan: Plan) -> None:
        work = self.cache.at("work", uuid.uuid4().hex[:12])
        work.mkdir(parents=True)
        try:
            for number, step in enumerate(plan.steps):
                folder = work / str(number)
                folder.mkdir()
                if step.action == "build":
                    self._build(step, self._source_tree(work), folder)
                elif step.action == "verify":
                    self._prove_again(self.wanted.named(step.variant), folder)
                else:
                    self._publish(folder)
                shutil.rmtree(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _source_tree(self, work: Path) -> Path:
        tree = self.cache.at("sources", self.origin.folder)
        if not tree.is_dir():
            self.progress.begin("source")
            self.progress.say(f"fetch {self.origin.kind} {self.origin.name}")
            source.prepare(self.origin, work / "source", tree, self.left(), self.tools)
        return tree

    # --- one variant ---

    def _build(self, step: Step, tree: Path, folder: Path) -> None:
        variant = self.wanted.named(step.variant)
        begin = time.monotonic()
        self.progress.begin(variant.name)
        out = self._compile(variant, step.programs, tree, folder)
        seen = disassembly.parse((out / "inspection").read_text(encoding="utf-8"))
        system = disassembly.judge_linking(seen, {f"lib{name}.so" for name in self.wanted.libraries})
        judged = disassembly.judge(variant, seen, self.wanted.hot_objects if variant.present else [])
        seconds = round(time.monotonic() - begin, 1)
        if step.programs:
            staged = folder / "programs"
            collect(out, "bin", staged, {"key": self.wanted.programs_key(), "system_libraries": system})
            replace(staged, self.cache.at("programs", self.wanted.programs_key()))
        if not step.keep_variant:
            return
        staged = folder / "variant"
        record = collect(
            out,
            "lib",
            staged,
            {
                "key": self.wanted.variant_key(variant),
                "name": variant.name,
                "flags": list(variant.flags),
                "seconds": seconds,
                "system_libraries": system,
                "disassembly": judged,
                "run": verification.not_run("not run yet"),
            },
        )
        record["run"] = self._prove(variant, staged, record, folder)
        manifest.save(staged / "component.json", record)
        replace(staged, self.cache.at("variants", record["key"]))
        self.seconds[variant.name] = seconds
        self.progress.say("built and verified" if record["run"]["ran"] else "built")

    def _compile(self, variant: Variant, with_programs: bool, tree: Path, folder: Path) -> Path:
        user, group = unprivileged_user()
        places = {folder / "build": "/build", folder / "out": "/out", self.cache.at("ccache"): "/ccache"}
        for path in places:
            path.mkdir(exist_ok=True)
            if os.getuid() == 0:
                os.chown(path, user, group)
        script = commands.build_script(self.wanted, variant, with_programs, self.params["jobs"])
        left = self.left()
        try:
            status, log = self.engine.run(
                self.image_id,
                # If the module is killed nobody else ends the container before the next run: a limit of its own.
                ["timeout", "--kill-after=5", str(int(left) + 30), "sh", "-c", script],
                cache=self.cache.name,
                mounts={str(tree): ("/source", "ro"), **{str(path): (bind, "rw") for path, bind in places.items()}},
                environment={
                    "HOME": SCRATCH,
                    "CCACHE_DIR": "/ccache",
                    "CCACHE_MAXSIZE": "2G",
                    "CCACHE_TEMPDIR": f"{SCRATCH}/ccache",
                },
                timeout=left,
                user=f"{user}:{group}",
                on_line=self.progress.saw,
                what=f"the build of {variant.name}",
            )
        except KernelError as error:
            if "log" in error.details:
                error.details["log_file"] = self._keep_log(variant, str(error.details.pop("log")))
            raise
        if status != 0:
            log_file = self._keep_log(variant, log)
            if self.cache.room() < ALMOST_NOTHING or "No space left on device" in log:
                raise disk_full(self.cache, f"the build of {variant.name} stopped", log_file=log_file)
            raise KernelError(
                f"the build of {variant.name} failed (exit code {status}); the whole log is {log_file}\n"
                f"{commands.excerpt(log)}",
                log_file=log_file,
            )
        return folder / "out"

    def _keep_log(self, variant: Variant, log: str) -> str:
        path = self.cache.at("logs", f"{variant.name}.log")
        try:
            path.parent.mkdir(exist_ok=True)
            path.write_text(log, encoding="utf-8")
            return str(path)
        except OSError:
            # No room there: wherever temporary files go.
            handle, name = tempfile.mkstemp(prefix=f"kernel_build-{variant.name}-", suffix=".log")
            os.close(handle)
            with contextlib.suppress(OSError):
                Path(name).write_text(log, encoding="utf-8")
            return name

    # --- proof ---

    def _prove(self, variant: Variant, component: Path, record: dict[str, Any], folder: Path) -> dict[str, Any]:
        if not self.params["verify"]:
            return verification.not_run(verification.SWITCHED_OFF)
        way = self.ways[variant.name]
        if not way.possible:
            return verification.not_run(way.reason)
        self.progress.say("verify" + (f" {way.how}" if way.emulator else ""))
        stage = folder / "stage"
        self._assemble(stage, "unpublished", {variant.name: (component, record)})
        timeout = min(self.left(), EMULATED_SECONDS if way.emulator else NATIVE_SECONDS)
        command, environment = self._verification(variant, way, timeout)
        status, output = self.engine.run(
            self.params["verifier_image"],
            command,
            cache=self.cache.name,
            mounts={str(stage): ("/kernels", "ro")},
            environment={"HOME": SCRATCH, **environment},
            timeout=timeout,
            user=f"{USER}:{USER}",
            what=f"the verification of {variant.name}",
        )
        judge = verification.judge_command if self.wanted.verify_command else verification.judge_run
        run = judge(variant.name, status, output)
        return {**run, "how": way.how} if run["ran"] else run

    def _verification(self, variant: Variant, way: Way, timeout: float) -> tuple[list[str], dict[str, str]]:
        """What is run in the verifier image, and with which environment."""
        own = f"/kernels/lib/{variant.name}"
        if self.wanted.verify_command:
            program, *arguments = self.wanted.verify_command
            # What was built is named without a path; anything else is looked for as ever.
            program = f"{own}/{program}" if program in self.wanted.results else program
            program = f"/kernels/bin/{program}" if program in self.wanted.shared else program
            return [*way.emulator, program, *arguments], {"LD_LIBRARY_PATH": own, "VARIANT": variant.name}
        command = ["bitnet-cli", "kernels", "verify", "--kernels", "/kernels", "--variant", variant.name, "--json"]
        if way.emulator:
            command += ["--emulator", shlex.join(way.emulator), "--deadline", str(max(1, int(timeout) - 10))]
        return command, {}

    def _prove_again(self, variant: Variant, folder: Path) -> None:
        self.progress.begin(variant.name)
        component, record = self._component(variant)
        record["run"] = self._prove(variant, component, record, folder)
        manifest.save(component / "component.json", record)

    def _component(self, variant: Variant) -> tuple[Path, dict[str, Any]]:
        key = self.wanted.variant_key(variant)
        record = self.cache.component("variants", key)
        if record is None:
            raise KernelError(f"variant {variant.name} was changed in the cache while this ran; run again")
        return self.cache.at("variants", key), record

    # --- the set ---

    def _assemble(self, target: Path, key: str, variants: dict[str, tuple[Path, dict[str, Any]]]) -> None:
        """A set in the layout of the image, by hard links, so that it costs no room."""
        programs_key = self.wanted.programs_key()
        programs = self.cache.component("programs", programs_key)
        if programs is None and self.wanted.shared:
            raise KernelError("the programs were changed in the cache while this ran; run again")
        (target / "bin").mkdir(parents=True)
        for file in programs["files"] if programs else []:
            os.link(self.cache.at("programs", programs_key, file["path"]), target / file["path"])
        public = {}
        for name, (component, record) in variants.items():
            folder = target / "lib" / name
            folder.mkdir(parents=True)
            for file in manifest.below(record, "lib"):
                os.link(component / "lib" / file["path"], folder / file["path"])
            variant = self.wanted.named(name)
            public[name] = {**record, "requires": list(variant.requires), "rank": variant.rank}
        builder = {"image": self.params["builder_image"], **self.wanted.toolchain}
        described = manifest.make_manifest(
            key, self.origin.described(), builder, programs, public, architecture=self.wanted.architecture
        )
        manifest.save(target / "manifest.json", described)

    def _publish(self, folder: Path) -> None:
        variants = {variant.name: self._component(variant) for variant in self.wanted.variants}
        stage = folder / "set"
        self._assemble(stage, self.wanted.set_key(), variants)
        replace(stage, self.cache.at("kernels", self.wanted.set_key()))


def collect(out: Path, kind: str, staged: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Copies what the container made, so that owner and mode are ours, and writes down what it is."""
    (staged / kind).mkdir(parents=True)
    names = sorted(path.name for path in (out / kind).iterdir())
    for name in names:
        target = staged / kind / name
        shutil.copyfile(out / kind / name, target)
        target.chmod(0o644 if name.endswith(".so") else 0o755)
    record = {
        "schema": manifest.SCHEMA,
        **record,
        "files": [manifest.describe(staged, f"{kind}/{name}") for name in names],
    }
    manifest.save(staged / "component.json", record)
    return record


def replace(staged: Path, target: Path) -> None:
    """Puts a finished folder in its place; what was there (damaged or outdated) is moved out of the way first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(staged.with_name(f"{staged.name}.old"))
    staged.rename(target)
