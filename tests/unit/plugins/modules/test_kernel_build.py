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

V3, VNNI, DOTPROD = "x86-64-v3", "x86-64-v4-vnni", "armv8.2-a-dotprod"
INSPECTION = {
    "armv8.2-a": "file hot/hot.o\n9 sdot v other\n",
    "x86-64-v3": "file hot/hot.o\n9 vpmaddubsw ymm other\n9 vpmaddwd ymm other\n",
    "x86-64-v4": "file hot/hot.o\n9 vpdpbusd zmm evex\n",
}
AGREES = json.dumps({"ran": True, "cosine": 0.99999, "relative_l2": 0.001, "passed": True})


class Daemon:
    """Pretends to be Engine; `compiler` is called for each build, `verifier` for each proof."""

    def __init__(self) -> None:
        self.images = {"builder": "sha256:1", "verifier": "sha256:2"}
        self.emulators = ""
        self.builds: list[str] = []
        self.proofs: list[str] = []
        self.commands: list[list[str]] = []
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
        if "missing $tool" in script:
            target = "target aarch64-linux-gnu\n" if "aarch64" in script else ""
            return 0, f"compiler c++ {self.images['builder'][-1]}\n{target}"
        if "--version" in script:
            return 0, self.emulators
        if image == "verifier":
            folder = Path(next(iter(mounts)))
            manifest = json.loads((folder / "manifest.json").read_text())
            (variant,) = manifest["variants"]
            assert {path.name for path in folder.rglob("*") if path.is_file()} == {
                "manifest.json",
                "libggml.so",
                "server",
            }
            self.proofs.append(variant)
            self.commands.append(command)
            return self.verdict
        assert options["user"] != "0:0"
        out = Path(next(path for path, (bind, _mode) in mounts.items() if bind == "/out"))
        self.builds.append(script)
        for name in ("bin", "lib"):
            (out / name).mkdir()
        (out / "lib" / "libggml.so").write_text(script)
        if "--target ggml server" in script:
            (out / "bin" / "server").write_text("server")
        elif "one server;" in script:
            (out / "lib" / "server").write_text("server")
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
    assert result["verification"][V3]["run"]["how"] == "natively"
    assert result["manifest"]["architecture"] == "x86_64"
    run = result["verification"][VNNI]["run"]
    assert not run["ran"]
    assert "lacks avx512f" in run["reason"]
    assert "qemu emulates no CPU that has all of them" in run["reason"]
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


QEMU = """\
qemu-x86_64-static qemu-x86_64 version 7.2.22 (Debian 1:7.2)
qemu-aarch64-static qemu-aarch64 version 7.2.22 (Debian 1:7.2)
"""


def test_another_architecture_is_run_under_qemu_with_the_variants_cpu(call, daemon):
    daemon.emulators = QEMU
    result = call(variants=[DOTPROD])
    assert result["manifest"]["architecture"] == "aarch64"
    assert "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++" in daemon.builds[0]
    (command,) = daemon.commands
    assert command[command.index("--emulator") + 1] == ("qemu-aarch64-static -cpu cortex-a76 -L /usr/aarch64-linux-gnu")
    run = result["verification"][DOTPROD]["run"]
    assert (run["ran"], run["how"]) == (True, "under qemu-aarch64 version 7.2.22 with -cpu cortex-a76")
    assert not call(variants=[DOTPROD])["changed"]


def test_what_the_cpu_lacks_is_run_under_qemu(call, daemon, cpu):
    cpu.discard("avx2")
    daemon.emulators = QEMU
    result = call()
    assert "Haswell" in result["verification"][V3]["run"]["how"]
    assert "-L" not in daemon.commands[0]


def test_without_an_emulator_it_is_not_run_and_proven_once_there_is_one(call, daemon):
    run = call(variants=[DOTPROD])["verification"][DOTPROD]["run"]
    assert run == {
        "ran": False,
        "reason": "the building host is x86_64, and the verifier image has no qemu-aarch64-static",
    }
    assert daemon.proofs == []
    assert not call(variants=[DOTPROD])["changed"]
    daemon.emulators = QEMU
    daemon.images["verifier"] = "sha256:3"
    result = call(variants=[DOTPROD])
    assert result["plan"] == [f"verify {DOTPROD} by a run", "publish the set"]
    assert result["manifest"]["variants"][DOTPROD]["verified"]["run"]["ran"]


def test_one_call_builds_for_one_architecture(call, daemon):
    result = call(variants=[DOTPROD, V3])
    assert result["msg"] == (
        f"variants: {V3} are for x86_64; {DOTPROD} are for aarch64. One call builds for one architecture: call the "
        "module once for each"
    )
    assert daemon.builds == []


def test_a_set_that_does_not_say_its_architecture_is_published_anew(call, daemon):
    path = Path(call()["path"]) / "manifest.json"
    record = json.loads(path.read_text())
    del record["architecture"]
    path.write_text(json.dumps(record))
    assert call()["plan"] == ["publish the set"]
    assert len(daemon.builds) == 1


# --- other backends ---

COMMAND = {
    "backend": "command",
    "command": {"generate": [["gen", "a b"]], "build": [["make", "-j", 2]]},
    "verify_command": ["server", "--self-test"],
    "required_instructions": {V3: ["vpmaddwd ymm"]},
}


@pytest.fixture
def rust(call):
    (call.source / "Cargo.toml").write_text("[workspace]")
    (call.source / "Cargo.lock").write_text("version = 3\n")
    return {"backend": "cargo", "verify_command": ["server"], "required_instructions": {V3: ["vpmaddwd ymm"]}}


def test_a_command_builds_everything_per_variant(call, daemon):
    result = call(variants=[V3, VNNI], **COMMAND)
    folder = Path(result["path"])
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        *(f"lib/{name}/{file}" for name in (V3, VNNI) for file in ("libggml.so", "server")),
        "manifest.json",
    ]
    assert (folder / "lib" / V3 / "server").stat().st_mode & 0o777 == 0o755
    assert (folder / "lib" / V3 / "libggml.so").stat().st_mode & 0o777 == 0o644
    assert result["plan"] == [f"build {V3}", f"build {VNNI}", "publish the set"]
    assert "gen 'a b'\n" in daemon.builds[0]
    assert "make -j 2\n" in daemon.builds[0]
    assert daemon.commands == [[f"/kernels/lib/{V3}/server", "--self-test"]]
    assert result["verification"][V3]["run"] == {"ran": True, "reason": "", "how": "natively"}
    assert not call(variants=[V3, VNNI], **COMMAND)["changed"]


@pytest.mark.parametrize(
    "change",
    [
        {"command": {"build": [["make", "-j", 2]]}},
        {"verify_command": ["server", "--other"]},
        {"required_instructions": {}},
        {"programs": ["server", "other"]},
    ],
)
def test_another_way_of_building_is_another_set(call, daemon, change):
    first = call(**COMMAND)
    assert call(_check=True, **{**COMMAND, **change})["hash"] != first["hash"]


def test_a_command_that_finds_the_variant_wrong_refuses_it(call, daemon):
    daemon.verdict = (1, "sum is 7, not 6\n")
    result = call(**COMMAND)
    assert "verify_command ended with exit code 1: 'sum is 7, not 6'" in result["msg"]
    assert published(call) == []


def test_rust_is_compiled_with_the_variants_cpu(call, daemon, rust):
    result = call(**rust)
    assert "RUSTFLAGS='-C target-cpu=x86-64-v3'" in daemon.builds[0]
    assert published(call) == [result["hash"]]
    assert call(**{**rust, "required_instructions": {V3: ["vpdpbusd zmm"]}})["msg"].startswith(
        f"variant {V3} is refused: hot.o holds no vpdpbusd on zmm"
    )


LOCKED = '[[package]]\nname = "rand"\nversion = "0.8.5"\nsource = "registry+https://example.com/index"\n'


def test_rust_that_would_have_to_fetch_is_refused(call, daemon, rust):
    (call.source / "Cargo.lock").write_text(LOCKED)
    result = call(**rust)
    assert "needs the crates rand" in result["msg"]
    assert "run 'cargo vendor'" in result["msg"]
    (call.source / ".cargo").mkdir()
    (call.source / ".cargo" / "config.toml").write_text('[source.crates-io]\nreplace-with = "vendored-sources"\n')
    assert call(**rust)["changed"]
    (call.source / "Cargo.lock").unlink()
    assert "cargo generate-lockfile" in call(**rust)["msg"]
    assert not list((call.cache / "work").iterdir())


def test_a_variant_that_computes_wrongly_is_refused(call, daemon):
    daemon.verdict = (0, json.dumps({"ran": True, "cosine": 0.998, "relative_l2": 0.001}))
    result = call()
    assert result["failed"]
    assert "computes something else" in result["msg"]
    assert published(call) == []
    assert not (call.cache / "variants").exists()


def test_a_variant_without_its_instructions_is_refused(call, daemon, monkeypatch):
    monkeypatch.setitem(INSPECTION, "x86-64-v3", "file hot/hot.o\n9 pmaddubsw xmm other\n")
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
        ({"programs": ["../server"]}, "programs: '../server' is no name of a file"),
        ({"libraries": ["*"]}, "libraries: '*' is no name of a file"),
        ({"hot_objects": ["-delete"]}, "hot_objects: '-delete' is no name of a file"),
        ({"required_instructions": {V3: ["vpmaddwd"]}}, "'vpmaddwd' of x86-64-v3 is not a mnemonic and a register"),
        ({"required_instructions": {"pentium": []}}, "'pentium' is not in the catalogue"),
        ({"required_instructions": {V3: ["a ymm"]}, "hot_objects": []}, "hot_objects must name the files"),
        ({"backend": "make"}, "value of backend must be one of: cmake, cargo, command"),
        ({"backend": "command"}, "command: backend=command needs it"),
        ({"command": {"build": [["make"]]}}, "command: backend=cmake has no use for it"),
        ({**COMMAND, "verify_command": None}, "verify_command: backend=command needs it"),
        ({**COMMAND, "programs": [], "libraries": []}, "programs: backend=command needs the names of what is built"),
        ({**COMMAND, "command": {"build": [[["a"]]]}}, "command.build: [['a']] is not a list of words"),
        ({**COMMAND, "command": {"build": [[""]]}}, "command.build: [''] is not a list of words"),
        ({"backend": "cargo", "verify": False, "variants": [DOTPROD]}, "backend=cargo compiles only for the machine"),
        ({"backend": "cargo", "verify": False}, "source: holds no Cargo.toml"),
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
