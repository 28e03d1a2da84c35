# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs: completions that are made later."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
kind = "expand"


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("environment", "owner", "url", "body", "state")),
        *(sa.Column(name, sa.Integer, nullable=False, server_default="0") for name in ("attempt", "lapses")),
        sa.Column("worker", sa.Text),
        sa.Column("lease_until", moment),
        sa.Column("created_at", moment, nullable=False, server_default=sa.text("now()")),
        sa.Column("started_at", moment),
        sa.Column("ended_at", moment),
        sa.Column("answer", sa.Text),
    )
    op.create_index("jobs_state", "jobs", ["environment", "state", "created_at"])
    op.create_index("jobs_owner", "jobs", ["owner", "state"])


def downgrade() -> None:
    op.drop_table("jobs")
