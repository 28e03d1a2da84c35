# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts pip into an ansible-test environment from Python's own ensurepip, where get-pip.py cannot be downloaded."""

import ensurepip
import os
import runpy
import sys

environment = dict(os.environ)
ensurepip.bootstrap()  # switches pip's configuration off for the whole process
os.environ.clear()
os.environ.update(environment)
wanted = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
sys.argv = ["pip", "install", *wanted]
runpy.run_module("pip", run_name="__main__")
