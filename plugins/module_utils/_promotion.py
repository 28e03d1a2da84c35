# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mode swarm: whether the environments before this one have promoted a release, and which model a verdict is about."""

from __future__ import annotations

import base64
import binascii
import collections
import datetime
import json
import typing as t

from ._release import ReleaseError, model_digest

Json = t.Mapping[str, t.Any]


def decision_of(text: str) -> Json:
    """A decision that an environment keeps; empty if it is none that this version can read."""
    try:
        found = json.loads(text)
        datetime.datetime.fromisoformat(found["decided_at"].replace("Z", "+00:00"))
        return found if found["schema"] == 1 and found["outcome"] and found["release"] else {}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def not_promoted(
    after: t.Sequence[str], looks: t.Sequence[Json], release: str, soak: float, now: datetime.datetime
) -> list[str]:
    """What keeps the release away from the environments that come after these; empty if nothing does.

    A look is {environment, cluster, host, contents}; contents are the kept decisions, the newest first, and missing
    where the host did not answer.
    """
    problems = []
    for environment in after:
        own = [look for look in looks if look["environment"] == environment]
        if not own:
            problems.append(f"{environment}: the inventory has no manager of it, so nothing is known")
        for cluster in dict.fromkeys(look["cluster"] for look in own):
            there = [look for look in own if look["cluster"] == cluster]
            name = f"{environment}{f' in {cluster}' if cluster not in ('', environment) else ''}"
            answers = [look for look in there if look.get("contents") is not None]
            problem = _problem(answers[0]["contents"], release, soak, now) if answers else (
                f"none of its managers ({', '.join(look['host'] for look in there)}) has told what was decided"
            )  # fmt: skip
            problems += [f"{name}: {problem}"] if problem else []
    return problems


def _problem(texts: t.Iterable[str], release: str, soak: float, now: datetime.datetime) -> str:
    decisions = [decision for decision in map(decision_of, texts) if decision.get("release") == release]
    if not decisions:
        return f"it holds no decision on release {release}; run bitnet.devops.consensus when it has given its verdict"
    newest = decisions[0]
    if newest["outcome"] != "promote":
        return f"the decision on release {release} is {newest['outcome']} ({newest['decided_at']})"
    decided = datetime.datetime.fromisoformat(newest["decided_at"].replace("Z", "+00:00"))
    ready = decided + datetime.timedelta(seconds=soak)
    if now < ready:
        return (
            f"release {release} was promoted at {newest['decided_at']} and soaks for {soak:g} s, until "
            f"{ready.astimezone(datetime.timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
        )
    return ""


def claimed_model(verdicts: t.Iterable[t.Any], release: str) -> str:
    """The model that most verdicts on the release name, since the release's id does not show it; empty if none does.

    A claim and no proof: whoever lies about it has its own verdict ignored, and no other.
    """
    votes: collections.Counter[str] = collections.Counter()
    for envelope in verdicts:
        try:
            statement = json.loads(base64.b64decode(envelope["payload"], validate=True))
            if statement["release"] == release:
                votes[model_digest(statement["model"])] += 1
        except (ValueError, KeyError, TypeError, ReleaseError, binascii.Error, RecursionError):
            continue
    return min(votes, key=lambda model: (-votes[model], model), default="")
