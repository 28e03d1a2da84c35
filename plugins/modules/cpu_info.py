#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module cpu_info: what a host's CPU is, and which kernel variant is the best for it."""

from __future__ import annotations

DOCUMENTATION = """
module: cpu_info
short_description: Says which kernel variant is the best for a CPU, and why
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Reads what Linux says about the CPU of a host, on x86_64 and aarch64, and finds the variants of
    M(bitnet.devops.kernel_build) that it runs.
  - Only what every core has counts, so that on a CPU of unlike cores (big.LITTLE) the variant runs on each of them.
    What the kernel or a hypervisor does not offer is not in the file and does not count either.
  - A host that no variant fits is a result, not a failure. So is a file that says nothing or contradicts itself.
attributes:
  check_mode:
    support: full
    description: Only looks.
  diff_mode:
    support: none
    description: Changes nothing.
  idempotent:
    support: full
    description: Only looks.
options:
  variants:
    description:
      - The variants to choose from. Those of another architecture than the CPU's do not count.
      - By default all of the catalogue.
    type: list
    elements: str
    default: []
  cpuinfo:
    description: The file to read. A file saved on another host is judged as that host.
    type: path
    default: /proc/cpuinfo
seealso:
  - module: bitnet.devops.kernel_build
  - plugin: bitnet.devops.variants_for_hosts
    plugin_type: filter
  - plugin: bitnet.devops.at_least_level
    plugin_type: test
"""

EXAMPLES = """
- name: Look at the CPU
  bitnet.devops.cpu_info:
  register: cpu

- name: Say which kernels it gets, and why
  ansible.builtin.debug:
    msg: "{{ cpu.best | default('no variant', true) }}: {{ cpu.why }}"

- name: Which of the two that are built would another host get?
  bitnet.devops.cpu_info:
    cpuinfo: /var/tmp/cpuinfo-of-the-other-host
    variants: [x86-64-v3, x86-64-v4-vnni]
"""

RETURN = """
architecture:
  description: As C(uname -m) writes it, V(x86_64) or V(aarch64); another word where no variant can fit.
  returned: success
  type: str
  sample: x86_64
vendor:
  description: Who made the CPU; empty where the file does not say.
  returned: success
  type: str
  sample: AuthenticAMD
model:
  description: The model's name; on ARM the names of the cores, with their numbers where they differ.
  returned: success
  type: str
  sample: 4 x Cortex-A53 + 2 x Cortex-A72
cpus:
  description: How many logical CPUs the file lists.
  returned: success
  type: int
  sample: 6
level:
  description:
    - The highest level of which every core has everything. V(x86-64-v1) to V(x86-64-v4) as the psABI defines them, or
      the version of the Arm architecture, V(armv8.0-a) to V(armv8.6-a) and V(armv9.0-a), by the mandatory features that
      the kernel shows.
    - Null where the file does not even show the lowest.
  returned: success
  type: str
  sample: x86-64-v3
features:
  description: The features that every core has, in the words of Linux. Empty where the file cannot be used.
  returned: success
  type: list
  elements: str
  sample: [abm, avx, avx2]
uneven_features:
  description: The features that only some cores have. They do not count.
  returned: success
  type: list
  elements: str
problems:
  description: What is odd about the file, as sentences. Also given as warnings.
  returned: success
  type: list
  elements: str
best:
  description: The best variant of those asked for; null where none fits.
  returned: success
  type: str
  sample: x86-64-v3
why:
  description: One sentence, which names what the CPU lacks for each better variant.
  returned: success
  type: str
  sample: x86-64-v3 is the only one that this CPU runs; x86-64-v4-vnni needs avx512_vnni
fitting:
  description: The variants that fit, best first.
  returned: success
  type: list
  elements: str
  sample: [x86-64-v3]
lacking:
  description: What the CPU lacks for each variant of its architecture that does not fit.
  returned: success
  type: dict
  sample: {"x86-64-v4-vnni": [avx512_vnni]}
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._kernels import cpu
from ..module_utils._kernels.errors import KernelError

OWN = "/proc/cpuinfo"
# 1,024 CPUs take about 2 MiB.
MOST_BYTES = 64 << 20


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "variants": {"type": "list", "elements": "str", "default": []},
            "cpuinfo": {"type": "path", "default": OWN},
        },
        supports_check_mode=True,
    )
    path = module.params["cpuinfo"]
    if Path(path).exists() and not Path(path).is_file():  # a pipe would never end
        module.fail_json(msg=f"cpuinfo: {path!r} is no regular file; name a file in the form of {OWN}")
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as stream:
            text = stream.read(MOST_BYTES)
        found = cpu.read(text, os.uname().machine if path == OWN else "")
        verdict = cpu.judge(found, module.params["variants"])
    except OSError as error:
        module.fail_json(msg=f"cpuinfo: {path!r} cannot be read ({error.strerror}); name a file in the form of {OWN}")
    except KernelError as error:
        module.fail_json(msg=str(error))
    for problem in found.problems:
        module.warn(f"{path}: {problem}")
    module.exit_json(changed=False, **cpu.document(found, verdict))


if __name__ == "__main__":
    main()
