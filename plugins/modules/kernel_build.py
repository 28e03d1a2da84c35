#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_build
short_description: Build an inference engine and its kernels, one variant per microarchitecture, and prove them
version_added: 0.1.0
description:
  - Compiles C(ik_llama.cpp), or another source, inside a builder container, so that the result needs no newer C library
    than the image it will run in. The container has no network, runs as an unprivileged user and sees the source
    read-only.
  - With O(backend=cmake) programs are built once and the libraries once per variant; the variant is chosen at start by
    E(LD_LIBRARY_PATH). With the other backends programs are built per variant, too, and lie beside its libraries.
  - On x86_64 it also compiles for aarch64, with a cross compiler. One call builds for one architecture.
  - A set of variants is named by the hash of source, flags and compiler. What is there already is not built again; an
    added variant rebuilds no other.
  - A variant is published after its disassembly was judged and after a run in the verifier image agreed with the
    reference computation. What the CPU of the host cannot run is run by C(qemu-user), with the CPU that the variant is
    for, if the verifier image has it. What that cannot run either (it has no AVX-512) is marked as not run, never as
    passed.
  - Two builds in one cache never work at the same time; the later one waits and takes what the first one built.
    A killed build publishes nothing, and the next one removes what it left.
author:
  - bitnet.devops contributors (@bitnet-devops)
requirements:
  - The Docker SDK for Python on the target, 5.0.3 or later (Debian and Ubuntu name it C(python3-docker)).
  - C(pip) on the target if O(source.package) is used, C(git) if O(source.git) is used.
options:
  source:
    description:
      - Where the source comes from; exactly one kind.
      - The kind does not take part in the hash, the content does.
    type: dict
    required: true
    suboptions:
      package:
        description:
          - A source distribution, fetched by the target's C(pip) as it is configured there.
          - C(pip) compares the hash before it looks inside; then it asks the package's build backend for its metadata.
        type: dict
        suboptions:
          name:
            description: Name of the package.
            type: str
            required: true
          version:
            description: Its version.
            type: str
            required: true
          sha256:
            description: SHA-256 of the source distribution.
            type: str
            required: true
          index:
            description: URL of the package index to use in place of the configured one.
            type: str
      git:
        description: A commit of a Git repository.
        type: dict
        suboptions:
          url:
            description: URL of the repository.
            type: str
            required: true
          version:
            description: The full commit hash. Branches and tags are refused, since they can move.
            type: str
            required: true
      url:
        description: A tar or zip archive.
        type: dict
        suboptions:
          url:
            description: URL of the archive.
            type: str
            required: true
          sha256:
            description: SHA-256 of the archive.
            type: str
            required: true
      path:
        description: An archive or a folder on the target. A folder is copied before it is built.
        type: path
      subdir:
        description:
          - The folder of the source to build.
          - By default the one with the layout of C(ik_llama.cpp), wherever it lies; without such, the topmost folder
            with a C(CMakeLists.txt), or a C(Cargo.toml) for O(backend=cargo).
        type: str
      patches:
        description:
          - Texts of the source to replace before it is built. They take part in the hash.
          - A text that is not there exactly once is refused.
        type: list
        elements: dict
        default: []
        suboptions:
          path:
            description: The file, below the folder that is built.
            type: str
            required: true
          find:
            description: The text, as it stands there.
            type: str
            required: true
          replace:
            description: What takes its place.
            type: str
            required: true
  variants:
    description:
      - Names of the variants to build. An unknown name is refused with the list of known ones.
      - All must be for one architecture.
    type: list
    elements: str
    required: true
  backend:
    description:
      - V(cmake) builds C(ik_llama.cpp), or a CMake project that compiles with the flags in C(GGML_ARCH_FLAGS), with
        Ninja and ccache.
      - V(cargo) builds a Rust workspace with the variant's CPU in E(RUSTFLAGS), for the architecture of the target
        alone. The source must hold a C(Cargo.lock), and all crates that are not its own (C(cargo vendor)).
      - V(command) runs O(command).
    type: str
    choices: [cmake, cargo, command]
    default: cmake
  command:
    description:
      - The steps of O(backend=command), each a program with its arguments; no shell takes them apart.
      - They run in a copy of the source, one after the other, with E(VARIANT), E(CC), E(CXX), E(CFLAGS), E(CXXFLAGS),
        E(JOBS), E(SOURCE) (the copy) and E(OUT), the folder in which O(programs), O(libraries) and O(hot_objects) are
        looked for afterwards.
    type: dict
    suboptions:
      generate:
        description: What writes a part of the source first, as projects do that have tables per model.
        type: list
        elements: list
        default: []
      build:
        description: What compiles.
        type: list
        elements: list
        required: true
  builder_image:
    description:
      - An image on the Docker daemon with binutils, a C and C++ compiler and, by O(backend), CMake, Ninja and ccache,
        or cargo, or ccache.
      - Compiling for aarch64 on x86_64 also takes C(aarch64-linux-gnu-g++) and what belongs to it.
      - The versions of its compiler, linker, C library and CMake take part in the hash; its ID does not, since the ID
        differs between two builds of the same Dockerfile.
    type: str
    required: true
  verify:
    description:
      - Whether to prove variants by a run in the O(verifier_image). The disassembly is judged always.
      - Variants that were built with V(false) are proven, not rebuilt, when it is V(true) again.
    type: bool
    default: true
  verifier_image:
    description:
      - An image on the Docker daemon in which C(bitnet-cli kernels verify) compares a variant with the reference.
      - It runs what the CPU of the host cannot if it has C(qemu-aarch64-static), or C(qemu-x86_64-static), and the
        libraries of that architecture where Debian's packages C(lib...-arm64-cross) put them.
      - Required if O(verify=true).
    type: str
  verify_command:
    description:
      - What proves a variant in place of C(bitnet-cli), a program with its arguments. It must fail if the variant
        computes wrongly.
      - It is run in the O(verifier_image) with E(VARIANT) and E(LD_LIBRARY_PATH), the set being at C(/kernels). One of
        the O(programs) is named without a path.
      - Where the CPU of the host cannot run the variant, an emulator runs it; it then must be one of the O(programs).
      - Required with O(verify=true) for the backends V(cargo) and V(command).
    type: list
    elements: str
  cache_dir:
    description:
      - Folder on the target for everything that is kept. The Docker daemon must see it under the same path.
      - Published sets are in C(kernels/<hash>).
    type: path
    default: /var/lib/bitnet/cache
  programs:
    description:
      - What is built and started - CMake targets, binaries of the workspace, or files in E(OUT).
      - With O(backend=cmake) by default V(llama-server), V(llama-bench) and V(llama-quantize).
    type: list
    elements: str
  libraries:
    description:
      - Shared libraries; C(ggml) becomes C(libggml.so).
      - With O(backend=cmake) by default V(ggml), V(llama) and V(mtmd).
    type: list
    elements: str
  hot_objects:
    description:
      - Names of the files that must hold the instructions of the variant - object files, or anything else that the
        build makes and C(objdump) reads.
      - With an empty list only forbidden instructions are looked for.
      - With O(backend=cmake) by default V(iqk_gemm_1bit.cpp.o).
    type: list
    elements: str
  required_instructions:
    description:
      - By variant, the instructions that its O(hot_objects) must hold, each as mnemonic and register class, for example
        V(vpmaddwd ymm) or V(sdot v).
      - With O(backend=cmake) by default those that C(ik_llama.cpp) computes ternary products with. Forbidden are always
        those that a CPU of the variant need not have.
    type: dict
  jobs:
    description: How many compilers run at a time. By default as many as the target has CPUs.
    type: int
  timeout:
    description: Seconds for the whole, waiting for another build included.
    type: int
    default: 3600
  docker_host:
    description: Address of the Docker daemon, which must run on the target.
    type: str
    default: unix:///var/run/docker.sock
  checksum:
    description:
      - Read all published files again and compare their SHA-256.
      - By default a file counts as unchanged if its size and time are as recorded; where they are not, it is read.
    type: bool
    default: false
  progress_file:
    description: File on the target to which progress is appended. The action plugin sets it and shows the lines.
    type: path
attributes:
  check_mode:
    support: full
    description: Fetches and builds nothing. Without the builder image or the daemon the hash is known after the build.
  diff_mode:
    support: full
    description: Shows which programs and variants are there and which set will be.
  idempotent:
    support: full
    description: The same content again changes nothing and takes less than a second.
notes:
  - The module goes on to its end if C(ansible-playbook) is killed; the next run waits for it.
"""

EXAMPLES = r"""
- name: Build the kernels for servers with and without AVX-512
  bitnet.devops.kernel_build:
    source:
      package:
        name: ik-llama-cpp-python
        version: 0.1.5
        sha256: 33c67eb99e4dcab5e611050433243815709b8b3067753f9ce18375013cf002ad
    variants:
      - x86-64-v3
      - x86-64-v4-vnni
    builder_image: bitnet/builder:1
    verifier_image: bitnet/runtime:1
  register: kernels

- name: Build a commit from Git, without the proof by a run
  bitnet.devops.kernel_build:
    source:
      git:
        url: https://git.example.com/ik_llama.cpp.git
        version: 2b1f0e0c4d7a9f3f5b6a8c9d0e1f2a3b4c5d6e7f
    variants: [x86-64-v3]
    builder_image: bitnet/builder:1
    verify: false

- name: Build for small ARM boards and for servers with ARM, on a host with an x86 CPU
  bitnet.devops.kernel_build:
    source: "{{ engine_source }}"
    variants: [armv8.0-a, armv8.2-a-dotprod]
    builder_image: bitnet/builder-cross:1
    verifier_image: bitnet/verifier:1

- name: Build a Rust workspace
  bitnet.devops.kernel_build:
    source:
      path: /srv/src/swarm
    backend: cargo
    variants: [x86-64-v3, x86-64-v4-vnni]
    programs: [swarm-worker]
    hot_objects: [swarm-worker]
    required_instructions:
      x86-64-v3: [vpmaddwd ymm]
    builder_image: bitnet/builder-cargo:1
    verifier_image: bitnet/runtime:1
    verify_command: [swarm-worker, --self-test]

- name: Build a project that generates its kernels for a model
  bitnet.devops.kernel_build:
    source:
      path: /srv/src/lut-kernels
    backend: command
    command:
      generate:
        - [python3, codegen.py, --model, bitnet-2b]
      build:
        - [make, -j2]
    variants: [x86-64-v3]
    libraries: [lut]
    builder_image: bitnet/builder:1
    verify: false
"""

RETURN = r"""
hash:
  description: Name of the set. Null in check mode if the builder image is not there yet.
  returned: success
  type: str
  sample: 9a2b0f3c4d5e6f70
path:
  description:
    - Folder of the published set, laid out as it goes into the image (C(manifest.json), C(bin), C(lib/<variant>)).
    - Null in check mode if the builder image is not there yet.
  returned: success
  type: str
  sample: /var/lib/bitnet/cache/kernels/9a2b0f3c4d5e6f70
variants:
  description: By name, the state (V(cached), V(built) or V(planned)) and the seconds that its build took now.
  returned: success
  type: dict
  sample: {"x86-64-v3": {"state": "built", "seconds": 214.3}}
manifest:
  description: The published manifest. Null as long as there is none.
  returned: success
  type: dict
  contains:
    schema:
      description: Version of the format, 1.
      type: int
    hash:
      description: Name of the set.
      type: str
    architecture:
      description: What it is for, V(x86_64) or V(aarch64).
      type: str
    source:
      description: Kind, name, version and content of the source.
      type: dict
    builder:
      description: Builder image, compiler, linker, C library and CMake.
      type: dict
    programs:
      description: Path, SHA-256 and size of each program.
      type: list
      elements: dict
    system_libraries:
      description: Shared libraries that the image must have.
      type: list
      elements: str
    variants:
      description: By name, flags, files, required CPU flags, rank (higher is better) and how it was verified.
      type: dict
verification:
  description: By variant that is in the cache, the judgement of its disassembly and of its run.
  returned: success
  type: dict
  sample:
    x86-64-v3:
      disassembly: {"passed": true}
      run: {"ran": true, "reason": "", "how": "natively", "cosine": 0.99998, "relative_l2": 0.004}
    armv8.2-a-dotprod:
      disassembly: {"passed": true}
      run: {"ran": true, "reason": "", "how": "under qemu-aarch64 version 7.2.22 with -cpu cortex-a76",
            "cosine": 0.99997, "relative_l2": 0.008}
plan:
  description: What was or is to be done, in order. Empty if nothing.
  returned: success
  type: list
  elements: str
  sample: [build x86-64-v3 and the programs, publish the set]
log_file:
  description: The whole log of a build that failed.
  returned: when a build failed
  type: str
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.build import Build
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.errors import KernelError
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.source import Tools


def argument_spec() -> dict:
    text = {"type": "str", "required": True}
    names = {"type": "list", "elements": "str"}
    return {
        "source": {
            "type": "dict",
            "required": True,
            "mutually_exclusive": [("package", "git", "url", "path")],
            "required_one_of": [("package", "git", "url", "path")],
            "options": {
                "package": {
                    "type": "dict",
                    "options": {"name": text, "version": text, "sha256": text, "index": {"type": "str"}},
                },
                "git": {"type": "dict", "options": {"url": text, "version": text}},
                "url": {"type": "dict", "options": {"url": text, "sha256": text}},
                "path": {"type": "path"},
                "subdir": {"type": "str"},
                "patches": {
                    "type": "list",
                    "elements": "dict",
                    "default": [],
                    "options": {"path": text, "find": text, "replace": text},
                },
            },
        },
        "variants": {**names, "required": True},
        "backend": {"type": "str", "choices": ["cmake", "cargo", "command"], "default": "cmake"},
        "command": {
            "type": "dict",
            "options": {
                "generate": {"type": "list", "elements": "list", "default": []},
                "build": {"type": "list", "elements": "list", "required": True},
            },
        },
        "builder_image": text,
        "verify": {"type": "bool", "default": True},
        "verifier_image": {"type": "str"},
        "verify_command": names,
        "cache_dir": {"type": "path", "default": "/var/lib/bitnet/cache"},
        "programs": names,
        "libraries": names,
        "hot_objects": names,
        "required_instructions": {"type": "dict"},
        "jobs": {"type": "int"},
        "timeout": {"type": "int", "default": 3600},
        "docker_host": {"type": "str", "default": "unix:///var/run/docker.sock"},
        "checksum": {"type": "bool", "default": False},
        "progress_file": {"type": "path"},
    }


def open_url(url: str, timeout: float) -> Any:
    """Opens a URL; imported only now, since it costs what a whole look at the cache may take."""
    from ansible.module_utils import urls

    return urls.open_url(url, timeout=timeout)


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(),
        required_if=[("verify", True, ("verifier_image",))],
        supports_check_mode=True,
    )
    # Containers of other users read what is made here.
    os.umask(0o022)
    params = dict(module.params)
    if params["jobs"] is None:
        params["jobs"] = len(os.sched_getaffinity(0))
    for option in ("jobs", "timeout"):
        if params[option] < 1:
            module.fail_json(msg=f"{option}: {params[option]} is too small; it must be at least 1")
    try:
        build = Build(params, module.check_mode, Tools(open_url, module.run_command))
        result = build.run()
    except KernelError as error:
        module.fail_json(msg=str(error), **error.details)
    except OSError as error:
        module.fail_json(msg=f"kernel_build could not go on: {error}")
    for warning in build.warnings:
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
