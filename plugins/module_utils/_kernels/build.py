# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of the module: look, plan, and, unless in check mode, carry the plan out under the cache's lock."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from pathlib import Path
from typing import Any

from . import catalogue, commands, manifest, method, running, source
from .cache import Cache
from .client import Engine, Unavailable
from .errors import KernelError
from .lock import locked
from .plan import Found, Plan, Step, Wanted, make_diff, make_plan
from .progress import Progress
from .workshop import Workshop, disk_full


class Build:
    def __init__(self, params: dict[str, Any], check_mode: bool, tools: source.Tools) -> None:
        self.params = params
        self.check_mode = check_mode
        self.tools = tools
        self.cache = Cache(params["cache_dir"])
        self.progress = Progress(params.get("progress_file"))
        self.deadline = time.monotonic() + params["timeout"]
        self.warnings: list[str] = []
        self.method = method.resolve(params)
        self.variants = self.method.variants
        self.machine = os.uname().machine
        self.target = commands.cross_target(self.machine, self.variants[0].architecture, self.method.backend)
        self.features = catalogue.cpu_flags(Path("/proc/cpuinfo").read_text(encoding="utf-8"))
        self.ways: dict[str, running.Way] = {}

    def run(self) -> dict[str, Any]:
        try:
            if not self.check_mode:
                try:
                    self.cache.path.mkdir(mode=0o755, parents=True, exist_ok=True)
                except OSError as error:
                    raise KernelError(f"cache_dir: {str(self.cache.path)!r} cannot be made: {error.strerror}") from None
            return self._run()
        except (OSError, shutil.Error) as error:
            # copytree() collects its errors in one that has no number.
            if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error):
                raise disk_full(self.cache, str(error)[:300]) from None
            raise
        finally:
            self.progress.end()

    def _run(self) -> dict[str, Any]:
        origin = source.resolve(self.params["source"], self._content_of, self.method.backend)
        try:
            engine = Engine(self.params["docker_host"])
            image_id = engine.image_id("builder_image", self.params["builder_image"])
            self.ways = self._find_ways(engine)
            toolchain = self._toolchain(engine, image_id)
        except Unavailable as error:
            if not self.check_mode:
                raise
            self.warnings.append(f"{error}. The plan supposes that it will be there, and that nothing is cached.")
            return self._unknown()
        wanted = Wanted(
            source=origin.identity(),
            toolchain=toolchain,
            variants=self.variants,
            programs=self.method.programs,
            libraries=self.method.libraries,
            hot_objects=self.method.hot_objects,
            backend=self.method.backend,
            generate=self.method.generate,
            build=self.method.build,
            verify_command=self.method.verify_command,
        )
        found, plan = self._look(wanted)
        if self.check_mode or not plan.changed:
            if not self.check_mode:
                self._tidy(engine, wanted)
            return self._result(wanted, found, plan)
        with locked(self.cache.at("lock"), wanted.set_key(), self._left(), self.progress.say):
            self._remove_leftovers(engine)
            # Whoever had the lock before may have built just this.
            found, plan = self._look(wanted)
            if not plan.changed:
                return self._result(wanted, found, plan)
            workshop = Workshop(
                cache=self.cache,
                engine=engine,
                image_id=image_id,
                origin=origin,
                wanted=wanted,
                params=self.params,
                ways=self.ways,
                progress=self.progress,
                left=self._left,
                tools=self.tools,
            )
            workshop.carry_out(plan)
            after, rest = self._look(wanted)
            if rest.changed:
                raise KernelError(f"after the build there is still to do: {', '.join(rest.sentences())}")
            return {
                **self._result(wanted, after, plan, workshop.seconds),
                "diff": make_diff(wanted, found, plan, str(self.cache.at("kernels"))),
            }

    def _remove_leftovers(self, engine: Engine) -> None:
        """What a killed build left. For the holder of the lock."""
        engine.remove_orphans(self.cache.name)
        shutil.rmtree(self.cache.at("work"), ignore_errors=True)

    def _tidy(self, engine: Engine, wanted: Wanted) -> None:
        """Nothing is to be done, but a build that was killed as it ended may have left its folder."""
        work = self.cache.at("work")
        if work.is_dir() and any(work.iterdir()):
            # Held means that the folder belongs to a live build.
            with contextlib.suppress(KernelError), locked(self.cache.at("lock"), wanted.set_key(), 0, str):
                self._remove_leftovers(engine)

    # --- looking ---

    def _content_of(self, path: str) -> str:
        """SHA-256 of a path, read again only if something in it was touched."""
        now = source.signature(Path(path))
        known = self.cache.remembered("path", path)
        if known and known.get("signature") == now:
            return str(known["sha256"])
        content = source.content_hash(Path(path))
        if not self.check_mode:
            self.cache.remember("path", path, {"signature": now, "sha256": content})
        return content

    def _find_ways(self, engine: Engine) -> dict[str, running.Way]:
        """How each variant can be run here; the verifier image is looked at only if one can be."""
        emulators: dict[str, str] = {}
        if self.params["verify"]:
            obstacles = [running.obstacle(variant, self.machine, self.features) for variant in self.variants]
            emulated = any(reason and item.qemu_cpu for reason, item in zip(obstacles, self.variants))
            if emulated or not all(obstacles):
                image_id = engine.image_id("verifier_image", self.params["verifier_image"])
            if emulated:
                emulators = self._emulators(engine, image_id)
        return {item.name: running.find_way(item, self.machine, self.features, emulators) for item in self.variants}

    def _emulators(self, engine: Engine, image_id: str) -> dict[str, str]:
        known = self.cache.remembered("emulators", image_id)
        if known:
            return dict(known["emulators"])
        _status, output = self._ask(engine, image_id, running.LOOK, "verifier_image: the look at its emulators")
        emulators = running.parse_look(output)
        if not self.check_mode:
            self.cache.remember("emulators", image_id, {"emulators": emulators})
        return emulators

    def _toolchain(self, engine: Engine, image_id: str) -> dict[str, str]:
        backend = self.method.backend
        key = " ".join(word for word in (image_id, backend if backend != "cmake" else "", self.target) if word)
        known = self.cache.remembered("toolchain", key)
        if known:
            return dict(known["toolchain"])
        script = commands.toolchain_script(backend, self.target)
        status, output = self._ask(engine, image_id, script, "builder_image: the look at its tools")
        toolchain = commands.parse_toolchain(output)
        if status != 0:
            raise KernelError(
                f"builder_image: {self.params['builder_image']!r} cannot build: "
                + (f"it has no {toolchain['missing']}" if "missing" in toolchain else output.strip()[-500:])
            )
        if not self.check_mode:
            self.cache.remember("toolchain", key, {"toolchain": toolchain})
        return toolchain

    def _ask(self, engine: Engine, image_id: str, script: str, what: str) -> tuple[int, str]:
        return engine.run(
            image_id,
            ["sh", "-c", script],
            cache="look",
            mounts={},
            environment={},
            timeout=min(self._left(), 60),
            what=what,
        )

    def _look(self, wanted: Wanted) -> tuple[Found, Plan]:
        found = self.cache.find(wanted, self.params["checksum"])
        runnable = {name for name, way in self.ways.items() if way.possible}
        return found, make_plan(wanted, found, self.params["verify"], runnable)

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise KernelError(
                f"timeout: {self.params['timeout']} s were not enough; what is finished stays in the cache"
            )
        return left

    # --- answers ---

    def _unknown(self) -> dict[str, Any]:
        plan = Plan(
            [
                *(
                    Step("build", variant.name, programs=not number and self.method.backend == "cmake")
                    for number, variant in enumerate(self.variants)
                ),
                Step("publish"),
            ],
            {variant.name: "planned" for variant in self.variants},
        )
        return {
            "changed": True,
            "hash": None,
            "path": None,
            "manifest": None,
            "verification": {},
            "variants": {name: {"state": state, "seconds": 0.0} for name, state in plan.states.items()},
            "plan": plan.sentences(),
            "diff": make_diff(None, None, plan, str(self.cache.at("kernels"))),
        }

    def _result(
        self, wanted: Wanted, found: Found, plan: Plan, seconds: dict[str, float] | None = None
    ) -> dict[str, Any]:
        path = self.cache.at("kernels", wanted.set_key())
        seconds = seconds or {}
        return {
            "changed": plan.changed,
            "hash": wanted.set_key(),
            "path": str(path),
            "manifest": manifest.load(path / "manifest.json") if found.published else None,
            "variants": {
                name: {"state": "built" if name in seconds else state, "seconds": seconds.get(name, 0.0)}
                for name, state in plan.states.items()
            },
            "verification": {
                name: {"disassembly": record["disassembly"], "run": record["run"]}
                for name, record in found.variants.items()
            },
            "plan": plan.sentences(),
            "diff": make_diff(wanted, found, plan, str(self.cache.at("kernels"))),
        }
