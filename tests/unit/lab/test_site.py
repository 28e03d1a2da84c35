# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests that kill a playbook at its writing tasks stand and fall with finding these."""

from __future__ import annotations

from tests.lab.site import writing_tasks

OUTPUT = """\
PLAY [Roll the release out] ****************************************************

TASK [bitnet.devops.swarm_rollout : Preflight (a [bracket])] *******************
ok: [localhost]

TASK [bitnet.devops.swarm_rollout : Bring the release into slot blue] **********
--- before
+++ after
@@ -1 +1 @@
-replicas: 1
+replicas: 2

changed: [localhost]

TASK [bitnet.devops.traffic : Make the folders of the edge] ********************
ok: [localhost] => (item=/var/lib/bitnet)
changed: [localhost] => (item=/var/lib/bitnet/environments)

TASK [bitnet.devops.docker_engine : Write the configuration] *******************
changed: [localhost]

TASK [bitnet.devops.traffic : Make the folders of the edge] ********************
changed: [localhost] => (item=again)

PLAY RECAP *********************************************************************
localhost                  : ok=4    changed=4    unreachable=0    failed=0
"""


def test_only_tasks_of_these_roles_that_changed_and_each_once():
    assert writing_tasks(OUTPUT, "swarm_rollout|traffic") == [
        "TASK [bitnet.devops.swarm_rollout : Bring the release into slot blue]",
        "TASK [bitnet.devops.traffic : Make the folders of the edge]",
    ]


def test_a_run_that_changed_nothing():
    assert writing_tasks(OUTPUT.replace("changed: [", "ok: ["), "swarm_rollout|traffic") == []
