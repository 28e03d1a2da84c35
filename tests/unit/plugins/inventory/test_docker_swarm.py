# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plugin docker_swarm on stand-ins for the API of managers, over each way to reach one."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import shutil
import ssl
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from ansible_collections.bitnet.devops.plugins.inventory import docker_swarm
from ansible_collections.bitnet.devops.plugins.module_utils._fleet import schema
from ansible_collections.bitnet.devops.plugins.plugin_utils import _document
from ansible_collections.bitnet.devops.plugins.plugin_utils._inventory import SCHEMAS

from tests.unit.engine_api import OURS, Engine, node, service, task

from .conftest import examples

pytest.importorskip("docker")

NODES = [node("m1", "manager", addr="10.0.0.1"), node("w1", addr="10.0.0.2"), node("x1", addr="10.0.0.3")]
BLUE = service("bitnet-production-blue", 1, {**OURS, "io.bitnet.slot": "blue", "io.bitnet.release": "r1"})
FLEET = """\
plugin: bitnet.devops.fleet
environments:
  production:
    regions:
      here:
        clusters:
          one:
            platform: swarm
            nodes:
              m1: {roles: [manager], address: 10.0.0.1}
              w1: {roles: [worker, builder], variant: x86-64-v3}
          two:
            platform: swarm
            nodes:
              m2: {roles: [manager], address: 10.0.1.1}
"""


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="bt-") as path:  # short: a socket's path has 107 characters at most
        yield Path(path)


@pytest.fixture
def engine(folder):
    """Makes managers that listen; each is told what it says."""
    made = []

    def make(*arguments, at=None, context=None, **options):
        place = at or folder / f"{len(made)}.sock"
        made.append(Engine(*arguments, **options).listen(place, context))
        return made[-1] if at else (made[-1], f"unix://{place}")

    yield make
    for one in made:
        one.close()


def listed(ansible, *swarms, fails=False, environment=None, **options):
    config = {"plugin": "bitnet.devops.docker_swarm", "swarms": list(swarms), **options}
    (ansible.folder / "it.docker_swarm.yml").write_text(yaml.safe_dump(config))
    return ansible("ansible-inventory", "-i", "it.docker_swarm.yml", "--list", fails=fails, **(environment or {}))


def look(docker_host, timeout=10, **more):
    (seen,) = docker_swarm.look_at([{"cluster": "one", "docker_host": docker_host, **more}], timeout)
    return seen


def test_the_examples_of_the_documentation(ansible, engine):
    _manager, host = engine(NODES)
    config = yaml.safe_load(examples("docker_swarm")[0])
    config["swarms"][0]["docker_host"] = host
    assert set(listed(ansible, *config["swarms"]).hosts) == {"m1", "w1", "x1"}
    config = yaml.safe_load(examples("docker_swarm")[1])
    fleet = FLEET.replace(" one:", " use1-a:").replace(" two:", " euw1-a:")
    (ansible.folder / config.pop("fleet")).write_text(fleet)
    swarms = [{"cluster": swarm["cluster"], "docker_host": host} for swarm in config["swarms"]]
    found = listed(ansible, *swarms, fleet="production.fleet.yml", keyed_groups=config["keyed_groups"])
    assert "m1" in found.groups["availability_active"]["hosts"]


def test_one_call_for_each_kind_however_many_nodes(engine):
    nodes = [node(f"n{number}") for number in range(200)]
    manager, host = engine(nodes, [BLUE], [task(BLUE, each) for each in nodes])
    seen = look(host)
    assert (seen.error, len(seen.nodes), len(seen.tasks)) == ("", 200, 200)
    assert manager.calls == {"version": 1, "nodes": 1, "services": 1, "tasks": 1, "info": 1}


def test_beside_the_fleet(ansible, engine):
    (ansible.folder / "it.fleet.yml").write_text(FLEET)
    _manager, host = engine(NODES, [BLUE], [task(BLUE, NODES[1])])
    found = listed(ansible, {"cluster": "one", "docker_host": host}, fleet="it.fleet.yml")
    assert sorted(found.groups["drifted"]["hosts"]) == ["w1", "x1"]
    assert "m2" not in found.hosts, "its Swarm is not asked"
    assert found.groups["service_bitnet_production_blue"]["hosts"] == ["w1"]
    assert found.groups["builders"]["hosts"] == ["w1"]
    both = ansible("ansible-inventory", "-i", "it.fleet.yml", "-i", "it.docker_swarm.yml", "--list")
    assert both.hosts["m2"]["ansible_host"] == "10.0.1.1"
    assert sorted(both.groups["drifted"]["hosts"]) == ["w1", "x1"]


def test_what_a_swarm_says_is_never_rendered(ansible, engine):
    marker = ansible.folder / "rendered"
    template = f"{{{{ lookup('ansible.builtin.pipe', 'touch {marker}') }}}}"
    evil = node(template, id="abcdefghijklmnop", labels={"x": template, "io.bitnet.variant": template}, addr=template)
    evil_service = service("s", 1, {**OURS, "io.bitnet.slot": "blue", "io.bitnet.release": template}, image=template)
    _manager, host = engine([evil], [evil_service], [task(evil_service, evil)])
    constructed = {
        "compose": {"copied": "bitnet_node.labels.x", "release": "bitnet_slots.production.blue.release"},
        "groups": {"same": "copied == bitnet_node.labels.x"},
        "keyed_groups": [{"key": "bitnet_node.labels", "prefix": "label"}],
    }
    found = listed(ansible, {"cluster": "one", "docker_host": host}, **constructed)
    assert found.groups["same"]["hosts"] == ["one-abcdefghijkl"]
    assert found.hosts["one-abcdefghijkl"]["copied"] == {"__ansible_unsafe": template}
    shown = "{{ copied }} {{ release }} {{ ansible_host }} {{ bitnet_node }} {{ bitnet_tasks }} {{ bitnet_services }}"
    tasks = [{"ansible.builtin.debug": {"msg": shown}}]
    play = [{"hosts": "cluster_one", "gather_facts": False, "connection": "local", "tasks": tasks}]
    (ansible.folder / "play.yml").write_text(yaml.safe_dump(play))
    run = ansible("ansible-playbook", "-i", "it.docker_swarm.yml", "play.yml", ANSIBLE_CALLBACK_RESULT_FORMAT="json")
    assert run.out.count("touch") >= 6
    assert not marker.exists()


def test_what_does_not_answer_keeps_nobody_away(ansible, engine, folder):
    (ansible.folder / "it.fleet.yml").write_text(FLEET)
    _manager, host = engine(NODES)
    _silent, silent = engine(silent=True)
    swarms = [
        {"cluster": "one", "docker_host": host},
        {"cluster": "two", "docker_host": f"unix://{folder}/absent.sock"},
        {"cluster": "three", "docker_host": silent},
    ]
    found = listed(ansible, *swarms, timeout=2)
    assert {"m1", "w1", "x1"} <= set(found.hosts)
    assert sorted(found.groups["unreachable"]["hosts"]) == ["three", "two"]
    assert "no Docker answers at" in found.hosts["two"]["bitnet_swarm_error"]["__ansible_unsafe"]
    found = listed(ansible, *swarms[:2], fleet="it.fleet.yml")
    assert found.groups["unreachable"]["hosts"] == ["m2"]
    assert "no Docker answers at" in found.hosts["m2"]["bitnet_swarm_error"]["__ansible_unsafe"]
    assert "[WARNING]: bitnet.devops.docker_swarm: two: docker_host: no Docker answers" in found.err
    refused = listed(ansible, *swarms, timeout=2, strict=True, fails=True)
    assert "two: docker_host: no Docker answers at" in refused.err
    assert "three: docker_host:" in refused.err


def test_only_a_whole_inventory_is_cached(ansible, engine, folder):
    manager, host = engine(NODES)
    cached = {
        "ANSIBLE_INVENTORY_CACHE": "1",
        "ANSIBLE_INVENTORY_CACHE_PLUGIN": "ansible.builtin.jsonfile",
        "ANSIBLE_INVENTORY_CACHE_CONNECTION": str(ansible.folder / "cache"),
    }
    one = {"cluster": "one", "docker_host": host}
    first = listed(ansible, one, environment=cached)
    assert listed(ansible, one, environment=cached).out == first.out
    assert manager.calls["nodes"] == 1
    gone = {"cluster": "two", "docker_host": f"unix://{folder}/absent.sock"}
    for _run in range(2):
        listed(ansible, one, gone, environment=cached)
    assert manager.calls["nodes"] == 3


ONE = {"cluster": "one", "docker_host": "unix:///x"}


@pytest.mark.parametrize(
    ("swarms", "says"),
    [
        (
            [{"cluster": "one", "docker_hots": "x"}],
            "it:3: swarms.0.docker_hots: unknown key 'docker_hots'; did you mean",
        ),
        ([{"cluster": "one"}], "it:3: swarms.0: the key 'docker_host' is missing"),
        ([ONE, {**ONE, "docker_host": "/x"}], "it:4: swarms.1.docker_host: '/x' is not of the form: unix://PATH"),
        ([ONE, ONE], "it:4: swarms.1.cluster: 'one' is there twice"),
        ([{**ONE, "cluster": "on"}], "it:3: swarms.0.cluster: the fleet declares no Swarm 'on'; did you mean 'one'?"),
        ([{**ONE, "tls": {}}], "it:3: swarms.0.tls: is for a tcp:// address"),
        (
            [{**ONE, "docker_host": "tcp://x", "tls": {"client_key": "x"}}],
            "it:3: swarms.0.tls: client_cert and client_k",
        ),
        ([], "it:2: swarms: is empty"),
        ([{"cluster": "all", "docker_host": "unix:///x"}], "it:3: swarms.0.cluster: 'all' is the name of a group"),
    ],
)
def test_what_is_wrong_is_told_by_line_and_key(swarms, says):
    items = [f"  - {json.dumps(swarm)}" for swarm in swarms] or ["  []"]
    text = "\n".join(["plugin: bitnet.devops.docker_swarm", "swarms:", *items])
    rules = json.loads((SCHEMAS / "docker_swarm.schema.json").read_text())
    problems = list(schema.compiled(rules)(_document.read(text, "it")))
    fleet = None if "group" in says else yaml.safe_load(FLEET)
    problems = problems or list(docker_swarm._problems_of(swarms, fleet))
    assert str(_document.refusal(text, "it", problems)).startswith(says)


@pytest.mark.parametrize("timeout", [0, -1, 10**20])
def test_a_deadline_is_one(timeout):
    rules = json.loads((SCHEMAS / "docker_swarm.schema.json").read_text())
    (problem,) = schema.compiled(rules)({"plugin": "bitnet.devops.docker_swarm", "swarms": [ONE], "timeout": timeout})
    assert problem.path == ["timeout"]


def test_certificates_lie_beside_the_file_that_names_them():
    tls = {"ca_path": "tls/ca.pem", "client_cert": "/etc/it.pem", "client_key": "~/it.key"}
    (found,) = docker_swarm._resolved([{**ONE, "tls": tls}], Path("/inventories"))
    key = str(Path.home() / "it.key")
    assert found["tls"] == {"ca_path": "/inventories/tls/ca.pem", "client_cert": "/etc/it.pem", "client_key": key}
    assert docker_swarm._resolved([ONE], Path("/inventories")) == [ONE]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"fleet": "bad.fleet.yml"}, "/bad.fleet.yml:8: environments.production.regions.here.clusters.one.platfrom"),
        ({"fleet": "absent.fleet.yml"}, "/absent.fleet.yml"),
        ({"fleets": "it.fleet.yml"}, "/it.docker_swarm.yml:1: fleets: unknown key 'fleets'; did you mean 'fleet'?"),
    ],
)
def test_a_fleet_that_is_wrong(ansible, more, says):
    (ansible.folder / "bad.fleet.yml").write_text(FLEET.replace("platform", "platfrom"))
    assert f"{ansible.folder}{says}" in listed(ansible, ONE, **more, fails=True).err


# ---------------------------------------------------------------------------- the ways to reach a manager


def certificates(folder: Path) -> None:
    """An authority, a server for 127.0.0.1 and a client, and another authority that signed nothing."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.timezone.utc)

    def make(name, issuer=None):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        by, by_key = issuer or (subject, key)
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        built = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(by)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
            .add_extension(address, critical=False)
            .sign(by_key, hashes.SHA256())
        )
        (folder / f"{name}.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        form = serialization.PrivateFormat.PKCS8
        (folder / f"{name}.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
        return subject, key

    authority = make("ca")
    make("server", authority)
    make("client", authority)
    make("stranger")


@pytest.mark.parametrize("bundle", ["", "stranger.pem"])
def test_tls_both_ways(engine, folder, monkeypatch, bundle):
    certificates(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.load_verify_locations(folder / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    manager = engine(NODES, at=("127.0.0.1", 0), context=context)
    host = f"tcp://127.0.0.1:{manager.port}"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(folder / bundle) if bundle else "")
    client = {"client_cert": str(folder / "client.pem"), "client_key": str(folder / "client.key")}
    seen = look(host, tls={"ca_path": str(folder / "ca.pem"), **client})
    assert (seen.error, len(seen.nodes)) == ("", 3)
    asked = manager.calls["nodes"]
    assert "no Docker answers" in look(host, tls={"ca_path": str(folder / "ca.pem")}).error, "without a certificate"
    assert "no Docker answers" in look(host, tls={"ca_path": str(folder / "stranger.pem"), **client}).error
    assert "no Docker answers" in look(host, tls={"ca_path": str(folder / "absent.pem"), **client}).error
    assert "no Docker answers" in look(host).error, "without TLS"
    assert manager.calls["nodes"] == asked


SSH = """\
#!{python}
# In place of ssh: what `docker system dial-stdio` does on the other side, on the socket of this test.
import os, pathlib, socket, sys, threading, time
pathlib.Path("{folder}/asked").write_text(" ".join(sys.argv[1:]))
if "{mode}" == "hangs":
    time.sleep(30)
if "{mode}" == "refuses":
    sys.exit("Permission denied (publickey).")
there = socket.socket(socket.AF_UNIX)
there.connect("{folder}/0.sock")
def forward():
    while data := sys.stdin.buffer.raw.read(65536):
        there.sendall(data)
threading.Thread(target=forward, daemon=True).start()
while data := there.recv(65536):
    while data:
        data = data[os.write(1, data):]
"""


@pytest.fixture
def ssh(folder, monkeypatch):
    pytest.importorskip("paramiko")  # the SDK imports it for its other way to do this

    def make(mode=""):
        path = folder / "ssh"
        path.write_text(SSH.format(python=sys.executable, folder=folder, mode=mode))
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        assert shutil.which("ssh") == str(path)

    return make


def test_ssh(engine, folder, ssh):
    ssh()
    engine(NODES)
    seen = look("ssh://admin@10.0.0.1:2222")
    assert (seen.error, len(seen.nodes)) == ("", 3)
    assert (folder / "asked").read_text() == "-l admin -p 2222 -- 10.0.0.1 docker system dial-stdio"


@pytest.mark.parametrize("mode", ["hangs", "refuses"])
def test_an_ssh_that_does_not_get_there(engine, ssh, mode):
    ssh(mode)
    began = time.monotonic()
    seen = look("ssh://admin@10.0.0.1", timeout=3)
    assert seen.error.startswith("docker_host: ")
    assert time.monotonic() - began < 10
