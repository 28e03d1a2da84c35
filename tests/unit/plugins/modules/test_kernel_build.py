# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module against a daemon that only pretends to compile: what is cached, refused, proven and published."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.bitnet.devops.plugins.module_utils._kernels import build, catalogue, client, workshop
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.errors import KernelError
from ansible_collections.bitnet.devops.plugins.modules import kernel_build

V3, VNNI = "x86-64-v3", "x86-64-v4-vnni"
INSPECTION = {
    "-march=x86-64-v3": "file hot/hot.o\n9 vpmaddubsw ymm other\n9 vpmaddwd ymm other\n",
    "-march=x86-64-v4": "file hot/hot.o\n9 vpdpbusd zmm evex\n",
}
AGREES = json.dumps({"ran": True, "cosine": 0.99999, "relative_l2": 0.001, "passed": True})


class Daemon:
    """Pretends to be Engine; `compiler` is called for each build, `verifier` for each proof."""

    def __init__(self) -> None:
        self.images = {"builder": "sha256:1", "verifier": "sha256:2"}
        self.builds: list[str] = []
        self.proofs: list[str] = []
        self.compiler = lambda out: (0, "")
        self.verdict = (0, AGREES)

    def __call__(self, host):
        return self

    def image_id(self, option, reference):
        if reference not in self.images:
            raise client.Unavailable(f"{option}: the Docker daemon has no image {reference!r}")
        return self.images[reference]

    def remove_orphans(self, cache):
        pass

    def run(self, image, command, *, mounts, **options):
        script = command[-1]
        if "getconf" in script:
            return 0, f"compiler c++ {self.images['builder'][-1]}\n"
        if command[0] == "bitnet-cli":
            folder = Path(next(iter(mounts)))
            manifest = json.loads((folder / "manifest.json").read_text())
            (variant,) = manifest["variants"]
            assert (folder / "bin" / "server").is_file()
            assert (folder / "lib" / variant / "libggml.so").is_file()
            self.proofs.append(variant)
            return self.verdict
        assert options["user"] != "0:0"
        out = Path(next(path for path, (bind, _mode) in mounts.items() if bind == "/out"))
        self.builds.append(script)
        for name in ("bin", "lib"):
            (out / name).mkdir()
        (out / "lib" / "libggml.so").write_text(script)
        if "--target ggml server" in script:
            (out / "bin" / "server").write_text("server")
        text = next(text for flag, text in INSPECTION.items() if flag in script)
        (out / "inspection").write_text(text + "file lib/libggml.so\nneeded libc.so.6\n5 ret none other\n")
        return self.compiler(out)


@pytest.fixture
def daemon(monkeypatch):
    made = Daemon()
    monkeypatch.setattr(build, "Engine", made)
    # Containers need another user; files of this test belong to whoever runs it.
    monkeypatch.setattr(workshop.os, "chown", lambda *args: None)
    return made


@pytest.fixture
def cpu(monkeypatch):
    flags = set(catalogue.VARIANTS[V3].requires)
    monkeypatch.setattr(catalogue, "cpu_flags", lambda text: flags)
    return flags


@pytest.fixture
def call(tmp_path, daemon, cpu, capsys):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "CMakeLists.txt").write_text("project(p)")

    def run(_check=False, **options):
        arguments = {
            "source": {"path": str(tmp_path / "source")},
            "variants": [V3],
            "builder_image": "builder",
            "verifier_image": "verifier",
            "cache_dir": str(tmp_path / "cache"),
            "programs": ["server"],
            "libraries": ["ggml"],
            "hot_objects": ["hot.o"],
            "_ansible_check_mode": _check,
            **options,
        }
        with patch_module_args(arguments), pytest.raises(SystemExit):
            kernel_build.main()
        return json.loads(capsys.readouterr().out)

    run.cache = tmp_path / "cache"
    run.source = tmp_path / "source"
    return run


def published(call):
    folder = call.cache / "kernels"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_the_arguments_are_those_of_the_documentation():
    def compare(spec, documented):
        assert set(spec) == set(documented)
        for name, option in spec.items():
            for key in ("type", "default", "required", "elements"):
                assert option.get(key) == documented[name].get(key), (name, key)
            compare(option.get("options", {}), documented[name].get("suboptions", {}))

    compare(kernel_build.argument_spec(), yaml.safe_load(kernel_build.DOCUMENTATION)["options"])


def test_a_set_is_built_proven_and_published(call, daemon):
    result = call(variants=[V3, VNNI])
    assert result["changed"]
    assert published(call) == [result["hash"]]
    assert {name: variant["state"] for name, variant in result["variants"].items()} == {V3: "built", VNNI: "built"}
    assert len(daemon.builds) == 2
    assert daemon.proofs == [V3]
    assert result["verification"][V3]["run"]["ran"]
    run = result["verification"][VNNI]["run"]
    assert not run["ran"]
    assert "lacks avx512f" in run["reason"]
    folder = Path(result["path"])
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "bin/server",
        f"lib/{V3}/libggml.so",
        f"lib/{VNNI}/libggml.so",
        "manifest.json",
    ]
    assert json.loads((folder / "manifest.json").read_text()) == result["manifest"]
    assert not list((call.cache / "work").iterdir())


def test_again_nothing_is_done(call, daemon):
    first = call()
    again = call()
    assert not again["changed"]
    assert again["plan"] == []
    assert again["diff"]["before"] == again["diff"]["after"]
    assert (again["hash"], again["manifest"]) == (first["hash"], first["manifest"])
    assert again["variants"][V3] == {"state": "cached", "seconds": 0.0}
    assert len(daemon.builds) == 1


def test_check_mode_says_the_same_and_does_nothing(call, daemon):
    look = call(_check=True)
    assert look["changed"]
    assert not call.cache.exists()
    done = call()
    assert (look["hash"], look["plan"], look["diff"]) == (done["hash"], done["plan"], done["diff"])
    assert not call(_check=True)["changed"]


def test_check_mode_without_the_builder_plans_what_it_cannot_know(call, daemon, monkeypatch):
    warnings = []
    monkeypatch.setattr(kernel_build.AnsibleModule, "warn", lambda self, text: warnings.append(text))
    daemon.images.clear()
    look = call(_check=True)
    assert look["changed"]
    assert look["hash"] is None
    assert "known after build" in look["diff"]["after"]
    assert "has no image 'builder'" in warnings[0]
    assert call()["failed"]


def test_an_added_variant_rebuilds_no_other(call, daemon):
    call()
    result = call(variants=[V3, VNNI])
    assert result["plan"] == [f"build {VNNI}", "publish the set"]
    assert len(daemon.builds) == 2
    assert len(published(call)) == 2
    assert not call()["changed"]


def test_another_image_with_the_same_compiler_builds_nothing(call, daemon):
    call()
    daemon.images["builder"] = "sha256:other1"
    assert not call()["changed"]
    daemon.images["builder"] = "sha256:other2"
    assert call()["changed"]


@pytest.mark.parametrize("name", ["libggml.so", "server"])
def test_a_damaged_file_is_built_again(call, daemon, name):
    path = Path(call()["path"])
    (damaged,) = path.rglob(name)
    damaged.write_text("damaged")
    result = call()
    assert result["changed"]
    (repaired,) = path.rglob(name)
    assert repaired.read_text() != "damaged"
    assert not call()["changed"]


def test_a_lost_set_is_published_without_compiling(call, daemon):
    path = Path(call()["path"])
    path.rename(path.with_name("away"))
    assert call()["plan"] == ["publish the set"]
    assert len(daemon.builds) == 1


def test_a_changed_source_is_another_set(call):
    first = call()
    (call.source / "x.c").write_text("int x;")
    second = call()
    assert first["hash"] != second["hash"]
    assert published(call) == sorted([first["hash"], second["hash"]])


def test_what_was_not_proven_is_proven_later_without_compiling(call, daemon, cpu):
    call(variants=[VNNI], verify=False)
    assert daemon.proofs == []
    assert not call(variants=[VNNI], verify=False)["changed"]
    # It cannot run here either way, but the manifest must say so for the right reason.
    told = call(variants=[VNNI])["manifest"]["variants"][VNNI]["verified"]["run"]
    assert "lacks avx512f" in told["reason"]
    assert not call(variants=[VNNI])["changed"]
    assert daemon.proofs == []
    cpu.update(catalogue.VARIANTS[VNNI].requires)
    result = call(variants=[VNNI])
    assert result["plan"] == [f"verify {VNNI} by a run", "publish the set"]
    assert result["manifest"]["variants"][VNNI]["verified"]["run"]["ran"]
    assert len(daemon.builds) == 1
    assert not call(variants=[VNNI])["changed"]


def test_a_variant_that_computes_wrongly_is_refused(call, daemon):
    daemon.verdict = (0, json.dumps({"ran": True, "cosine": 0.998, "relative_l2": 0.001}))
    result = call()
    assert result["failed"]
    assert "computes something else" in result["msg"]
    assert published(call) == []
    assert not (call.cache / "variants").exists()


def test_a_variant_without_its_instructions_is_refused(call, daemon, monkeypatch):
    monkeypatch.setitem(INSPECTION, "-march=x86-64-v3", "file hot/hot.o\n9 pmaddubsw xmm other\n")
    result = call()
    assert "holds no vpmaddubsw on ymm" in result["msg"]
    assert published(call) == []


def test_a_failing_compiler_shows_its_words_and_where_the_log_is(call, daemon):
    daemon.compiler = lambda out: (1, "[1/9] x\nFAILED: x.o\ncc1plus: internal compiler error\n")
    result = call()
    assert result["failed"]
    assert "internal compiler error" in result["msg"]
    assert result["log_file"] in result["msg"]
    assert "FAILED: x.o" in Path(result["log_file"]).read_text()
    assert published(call) == []
    assert not list((call.cache / "work").iterdir())


def test_a_full_disk_is_said_to_be_full(call, daemon):
    daemon.compiler = lambda out: (1, "as: error: No space left on device\n")
    result = call()
    assert "cache_dir: the disk under" in result["msg"]
    assert "Nothing was published" in result["msg"]

    def full(out):
        raise OSError(errno.ENOSPC, "No space left on device")

    daemon.compiler = full
    assert "cache_dir: the disk under" in call()["msg"]
    daemon.compiler = lambda out: (0, "")
    assert call()["changed"]


def test_what_was_finished_before_a_failure_is_kept(call, daemon):
    def second_fails(out):
        return (0, "") if len(daemon.builds) == 1 else (1, "no")

    daemon.compiler = second_fails
    assert call(variants=[V3, VNNI])["failed"]
    daemon.compiler = lambda out: (0, "")
    assert call(variants=[V3, VNNI])["plan"] == [f"build {VNNI}", "publish the set"]


def test_a_build_that_takes_too_long_ends(call, daemon, monkeypatch):
    def slow(*args, **options):
        raise KernelError("the build did not end within 3 s; it said last: [2/9]", log="[2/9]")

    call(_check=True)
    real = daemon.run
    monkeypatch.setattr(daemon, "run", lambda image, command, **o: (slow if o["mounts"] else real)(image, command, **o))
    result = call()
    assert "did not end within" in result["msg"]
    assert Path(result["log_file"]).read_text() == "[2/9]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variants": ["x86-64-v9"]}, "'x86-64-v9' is not in the catalogue"),
        ({"source": {"path": "/a", "subdir": "b", "url": {"url": "x", "sha256": "y"}}}, "mutually exclusive"),
        ({"source": {}}, "one of the following is required"),
        ({"verifier_image": None}, "verifier_image"),
        ({"verifier_image": "other"}, "verifier_image: the Docker daemon has no image 'other'"),
        ({"builder_image": "other"}, "builder_image: the Docker daemon has no image 'other'"),
        ({"jobs": 0}, "jobs: 0 is too small"),
        ({"timeout": -1}, "timeout: -1 is too small"),
        ({"cache_dir": "/dev/null/cache"}, "cache_dir: '/dev/null/cache' cannot be made"),
    ],
)
def test_bad_input_is_a_clear_error(call, options, message):
    result = call(**options)
    assert result["failed"]
    assert message in result["msg"]
    assert published(call) == []


def test_a_denied_socket_is_not_taken_for_a_missing_daemon(call, monkeypatch):
    def denied(host):
        raise KernelError(f"docker_host: {host!r} denies access")

    monkeypatch.setattr(build, "Engine", denied)
    for check in (True, False):
        assert "denies access" in call(_check=check)["msg"]


def test_the_missing_sdk_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(client, "docker", None)
    with pytest.raises(client.Unavailable, match="python3-docker"):
        client.Engine("unix:///var/run/docker.sock")


def test_no_daemon_at_an_address_is_said(tmp_path):
    with pytest.raises(client.Unavailable, match="no Docker daemon answers at"):
        client.Engine(f"unix://{tmp_path}/none.sock")
