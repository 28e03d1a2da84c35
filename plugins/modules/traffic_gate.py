#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: traffic_gate
short_description: Judges a slot by one named check with a deadline
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - A gate is a look with a deadline. Its verdict is V(pass), V(fail) or V(inconclusive).
  - No data is V(inconclusive) and never V(pass). An edge that is not reached, another slot that answered, a limit of
    the edge, and a gate that did not return say nothing about the slot.
  - Requests go through the edge to the slot that is named in their header C(X-Bitnet-Slot), whichever slot is active.
    The edge follows that header, and says who answered, for the tokens of testers only.
  - Runs on a host that reaches the edge. It uses Python's standard library only.
attributes:
  check_mode:
    support: partial
    description: A gate is a look, and looks in check mode, too.
    details: A command may change something. It is not run, and RV(verdict) is V(skipped in check mode).
  diff_mode:
    support: N/A
    description: A gate changes nothing.
  idempotent:
    support: full
    description: A gate changes nothing, and RV(ignore:changed) is always false.
options:
  name:
    description: Name of the gate, for people.
    type: str
    required: true
  kind:
    description:
      - V(healthy) asks C(GET /health) and C(GET /ready), and passes if both are answered 200. It asks again, until the
        deadline, while the slot is not ready yet.
      - V(token) has one token generated, with C(POST /v1/completions). It asks again while the slot is busy.
      - V(compare) has short texts completed by O(slot) and by O(baseline) in turns, and judges the errors of O(slot) by
        themselves and its latency against that of O(baseline).
      - V(watch) judges the errors that the edge has counted for O(slot) within O(seconds). It asks nothing of the slot,
        so somebody else has to.
      - V(command) runs O(argv). Status 0 passes, 4 is inconclusive, everything else fails.
    type: str
    required: true
    choices: [healthy, token, compare, watch, command]
  slot:
    description: The slot that is judged. Required unless O(kind=command).
    type: str
    choices: [blue, green]
  deadline:
    description: Seconds after which the gate ends, whatever it waits for.
    type: float
    default: 60
  required:
    description:
      - With V(true), the module fails unless the verdict is V(pass).
      - With V(false), the verdict is only returned. A gate that is described wrongly fails all the same.
    type: bool
    default: true
  url:
    description: Where the edge is.
    type: str
    default: http://127.0.0.1:8080
  token_file:
    description:
      - File on the target with the token of a tester, which nobody but its owner may read (mode 0600).
      - Required with O(kind=healthy), O(kind=token) and O(kind=compare). The token is in no argument and no result.
    type: path
  baseline:
    description: What O(kind=compare) compares with. Left out, it is the other slot.
    type: str
    choices: [blue, green]
  requests:
    description: Requests of O(kind=compare) to each of both slots, 1 to 1000. The latency is judged from 5 answers on.
    type: int
    default: 20
  concurrency:
    description: How many pairs of requests O(kind=compare) runs at once, 1 to 16.
    type: int
    default: 1
  max_error_ratio:
    description: Share of the requests to O(slot) that may fail, 0 to 1, with O(kind=compare) and O(kind=watch).
    type: float
    default: 0.0
  max_latency_ratio:
    description:
      - How many times the 95th percentile of O(baseline) that of O(slot) may be, with O(kind=compare).
      - With V(0) the latency is not judged and nothing is asked of O(baseline), as there is no second slot yet.
      - Two slots on one machine contend for it, so both are slower than they are alone, and the reason says so.
    type: float
    default: 1.5
  min_latency_ms:
    description: A difference of the percentiles up to this many milliseconds counts as noise, with O(kind=compare).
    type: float
    default: 50
  seconds:
    description: How long O(kind=watch) watches; less than O(deadline).
    type: float
    default: 30
  environment:
    description: The environment whose edge O(kind=watch) asks.
    type: str
    default: local
  state_dir:
    description:
      - Where the collection keeps its state on the target. HAProxy's socket is
        C(environments/ENVIRONMENT/edge/haproxy.sock) in it.
    type: path
    default: /var/lib/bitnet
  argv:
    description:
      - The command of O(kind=command) and its arguments; no shell reads it. It is killed with its process group at the
        deadline.
      - It is shown in logs, so it must not hold secrets.
    type: list
    elements: str
seealso:
  - module: bitnet.devops.swarm_service
"""

EXAMPLES = r"""
- name: Is green well?
  bitnet.devops.traffic_gate:
    name: healthy
    kind: healthy
    slot: green
    token_file: /var/lib/bitnet/environments/local/tokens/probe
    deadline: 30

- name: Is green as good as blue?
  bitnet.devops.traffic_gate:
    name: as good as the other
    kind: compare
    slot: green
    token_file: /var/lib/bitnet/environments/local/tokens/probe
    requests: 50
    max_error_ratio: 0.02
    max_latency_ratio: 1.3
    deadline: 120

- name: What do the users see after the switch?
  bitnet.devops.traffic_gate:
    name: after the switch
    kind: watch
    slot: green
    seconds: 60
    deadline: 70
    max_error_ratio: 0.01
    required: false
  register: watched

- name: Ask a check of our own
  bitnet.devops.traffic_gate:
    name: answers about our products
    kind: command
    argv: [/usr/local/bin/ask-about-products, --slot, green]
    deadline: 300
"""

RETURN = r"""
name:
  description: Name of the gate.
  returned: success or the verdict is not V(pass)
  type: str
kind:
  description: Kind of the gate.
  returned: success or the verdict is not V(pass)
  type: str
verdict:
  description: One of V(pass), V(fail), V(inconclusive), and V(skipped in check mode).
  returned: success or the verdict is not V(pass)
  type: str
reason:
  description: Why, for people. With O(kind=command) the last lines that it printed.
  returned: success or the verdict is not V(pass)
  type: str
  sample: 0 of 20 requests to green failed (allowed 0)
figures:
  description: What was measured; its keys depend on O(kind).
  returned: success or the verdict is not V(pass)
  type: dict
  sample:
    asked: 20
    slot: {requests: 20, errors: 0, not counted: 0, error_ratio: 0.0, p50_ms: 81.2, p95_ms: 97.0}
    baseline: {requests: 20, errors: 0, not counted: 0, error_ratio: 0.0, p50_ms: 80.1, p95_ms: 95.3}
    latency_ratio: 1.018
seconds:
  description: How long it took.
  returned: success or the verdict is not V(pass)
  type: float
"""

import threading
import time
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._traffic import gate, probe
from ..module_utils._traffic.gate import Answer, GateError, Verdict
from ..module_utils._traffic.probe import Deadline

COMPARED_TOKENS = 8
BETWEEN_TRIES = 0.5
BOUNDS: dict[str, tuple[float, float]] = {
    "deadline": (1, 86400),
    "requests": (1, 1000),
    "concurrency": (1, 16),
    "max_error_ratio": (0, 1),
    "max_latency_ratio": (0, 1000),
    "min_latency_ms": (0, 3600000),
    "seconds": (1, 86400),
}


def other(slot: str) -> str:
    return next(name for name in gate.SLOTS if name != slot)


def check(params: t.Mapping[str, t.Any]) -> None:
    """Refuse what no gate can be made of."""
    for option, (low, high) in BOUNDS.items():
        if not low <= params[option] <= high:
            raise GateError(f"{option}: {params[option]:g} is not between {low:g} and {high:g}")
    if params["max_latency_ratio"] and params["max_latency_ratio"] < 1:
        raise GateError(
            f"max_latency_ratio: {params['max_latency_ratio']:g} would ask of a slot to be faster than the other; give "
            "1 or more, or 0 to leave the latency unjudged"
        )
    if params["kind"] == "watch" and params["seconds"] >= params["deadline"]:
        raise GateError(
            f"seconds: a watch of {params['seconds']:g} s does not end within a deadline of {params['deadline']:g} s"
        )
    if params["kind"] == "compare" and params["baseline"] == params["slot"]:
        raise GateError(f"baseline: {params['slot']} is compared with itself; give the other slot or leave it out")
    if params["kind"] == "command" and not (params["argv"] and params["argv"][0]):
        raise GateError("argv: the command is empty; give a program and its arguments as a list")


def again(ask: t.Callable[[], dict[str, Answer]], deadline: Deadline) -> dict[str, Answer]:
    """Ask until the answers will not get better by waiting, or the time is over."""
    answers = ask()
    while any(map(gate.is_transient, answers.values())) and deadline.left > 2 * BETWEEN_TRIES:
        time.sleep(BETWEEN_TRIES)
        answers = ask()
    return answers


def healthy(params: t.Mapping[str, t.Any], edge: probe.Edge, deadline: Deadline) -> Verdict:
    def ask() -> dict[str, Answer]:
        return {path: edge.get(params["slot"], path, deadline) for path in ("/health", "/ready")}

    answers = again(ask, deadline)
    return _unless_cut(gate.healthy(answers, params["slot"]), answers.values(), deadline)


def token(params: t.Mapping[str, t.Any], edge: probe.Edge, deadline: Deadline) -> Verdict:
    answers = again(lambda: {"": edge.complete(params["slot"], 1, deadline)}, deadline)
    return _unless_cut(gate.token(answers[""], params["slot"]), answers.values(), deadline)


def _unless_cut(verdict: Verdict, answers: t.Iterable[Answer], deadline: Deadline) -> Verdict:
    """A request that the gate's own deadline has cut did not fail."""
    cut = [answer for answer in answers if answer.status is None and answer.reached]
    if cut and deadline.left <= 0:
        return gate.no_result(deadline.seconds, verdict.reason)
    return verdict


def compare(params: t.Mapping[str, t.Any], edge: probe.Edge, deadline: Deadline) -> Verdict:
    slot = gate.Tally(params["slot"])
    baseline = gate.Tally(params["baseline"] or other(params["slot"])) if params["max_latency_ratio"] else None
    lock = threading.Lock()

    def ask(tally: gate.Tally) -> None:
        answer = edge.complete(tally.slot, COMPARED_TOKENS, deadline)
        if answer.status is None and deadline.left <= 0:
            return  # the gate has cut it, which says nothing about the slot
        with lock:
            tally.add(answer)

    def pair(number: int) -> None:
        # Who comes first changes from pair to pair: what the first request warms up helps both alike.
        for tally in (slot, baseline) if number % 2 == 0 else (baseline, slot):
            if tally is not None and deadline.left > 0:
                ask(tally)

    probe.pairs(pair, params["requests"], params["concurrency"], deadline)
    limits = gate.Limits(params["max_error_ratio"], params["max_latency_ratio"], params["min_latency_ms"])
    with lock:
        verdict = gate.compare(slot, baseline, limits, params["requests"])
    if verdict.verdict == gate.INCONCLUSIVE and deadline.left <= 0:
        late = gate.no_result(deadline.seconds, verdict.reason)
        return Verdict(late.verdict, late.reason, verdict.figures)
    return verdict


def watch(params: t.Mapping[str, t.Any], deadline: Deadline) -> Verdict:
    path = Path(params["state_dir"]) / "environments" / params["environment"] / "edge" / "haproxy.sock"
    begin = time.monotonic()
    try:
        before = gate.seen(*probe.show(path, deadline), params["slot"])
        time.sleep(min(params["seconds"], deadline.left))
        after = gate.seen(*probe.show(path, deadline), params["slot"])
    except probe.NoAnswer as error:
        return Verdict(gate.INCONCLUSIVE, str(error))
    return gate.watch(before, after, params["slot"], time.monotonic() - begin, params["max_error_ratio"])


def command(params: t.Mapping[str, t.Any], deadline: Deadline) -> Verdict:
    status, output = probe.run(params["argv"], deadline)
    if status is None:
        return gate.no_result(deadline.seconds, gate.tail(output))
    return gate.command(status, output)


def way_out(params: t.Mapping[str, t.Any], verdict: Verdict) -> str:
    kind, service = params["kind"], f"bitnet-{params['environment']}-{params['slot']}"
    if kind == "command":
        return f"Run {' '.join(params['argv'])} by hand to see more"
    if verdict.verdict == gate.INCONCLUSIVE and kind == "watch":
        edge = f"docker service ps --no-trunc bitnet-{params['environment']}-edge"
        return f"Watch longer, or while there are requests; '{edge}' shows whether the edge runs"
    return f"'docker service ps --no-trunc {service}' and 'docker service logs --tail 100 {service}' show more"


def judge(module: AnsibleModule) -> Verdict:
    params = module.params
    check(params)
    deadline = Deadline(params["deadline"])
    if params["kind"] == "command":
        if module.check_mode:
            return Verdict(gate.SKIPPED, "a command may change something, so it was not run")
        return command(params, deadline)
    if params["kind"] == "watch":
        return watch(params, deadline)
    secret = probe.read_token(params["token_file"])
    module.no_log_values.add(secret)  # should an answer ever repeat it
    edge = probe.Edge(params["url"], secret)
    return {"healthy": healthy, "token": token, "compare": compare}[params["kind"]](params, edge, deadline)


def argument_spec() -> dict[str, t.Any]:
    slot: dict[str, t.Any] = {"type": "str", "choices": list(gate.SLOTS)}
    return {
        "name": {"type": "str", "required": True},
        "kind": {"type": "str", "required": True, "choices": ["healthy", "token", "compare", "watch", "command"]},
        "slot": slot,
        "deadline": {"type": "float", "default": 60},
        "required": {"type": "bool", "default": True},
        "url": {"type": "str", "default": "http://127.0.0.1:8080"},
        # A path, no value: nothing here has to be hidden.
        "token_file": {"type": "path", "no_log": False},
        "baseline": slot,
        "requests": {"type": "int", "default": 20},
        "concurrency": {"type": "int", "default": 1},
        "max_error_ratio": {"type": "float", "default": 0.0},
        "max_latency_ratio": {"type": "float", "default": 1.5},
        "min_latency_ms": {"type": "float", "default": 50},
        "seconds": {"type": "float", "default": 30},
        "environment": {"type": "str", "default": "local"},
        "state_dir": {"type": "path", "default": "/var/lib/bitnet"},
        "argv": {"type": "list", "elements": "str"},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(),
        required_if=[
            ("kind", "healthy", ["slot", "token_file"]),
            ("kind", "token", ["slot", "token_file"]),
            ("kind", "compare", ["slot", "token_file"]),
            ("kind", "watch", ["slot"]),
            ("kind", "command", ["argv"]),
        ],
        supports_check_mode=True,
    )
    params = module.params
    begin = time.monotonic()
    try:
        verdict = judge(module)
    except GateError as error:
        module.fail_json(msg=f"gate {params['name']}: {error}")
    result = {
        "changed": False,
        "name": params["name"],
        "kind": params["kind"],
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "figures": verdict.figures,
        "seconds": round(time.monotonic() - begin, 2),
    }
    if params["required"] and verdict.verdict not in (gate.PASS, gate.SKIPPED):
        figures = f" Figures: {verdict.figures}." if verdict.figures else ""
        module.fail_json(
            msg=f"gate {params['name']} ({params['kind']}): {verdict.verdict}. {verdict.reason}.{figures} "
            f"{way_out(params, verdict)}.",
            **result,
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
