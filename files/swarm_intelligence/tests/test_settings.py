# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import io
import json
import logging

import pytest
from swarm_intelligence import cpu
from swarm_intelligence.auth import Tokens
from swarm_intelligence.logs import JsonFormatter
from swarm_intelligence.settings import Settings, SettingsError

INTEL = {"avx2", "fma", "f16c", "bmi2"}
V3 = cpu.Variant("x86-64-v3", frozenset(INTEL), 3, proven=True)
V4 = cpu.Variant("x86-64-v4-vnni", frozenset(INTEL | {"avx512f", "avx512_vnni"}), 4, proven=False)
BOTH = {variant.name: variant for variant in (V3, V4)}


def test_defaults_are_usable():
    settings = Settings.from_environment({})
    assert (settings.slot, settings.engine_url) == ("blue", "http://127.0.0.1:8081")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BITNET_THREADS", "0"),
        ("BITNET_THREADS", "two"),
        ("BITNET_CONTEXT", "12"),
        ("BITNET_SLOT", "red"),
        ("BITNET_GRACE_SECONDS", "nan"),
        ("BITNET_GRACE_SECONDS", "-1"),
        ("BITNET_LOG_LEVEL", "loud"),
        ("BITNET_MAX_BODY_BYTES", "1e6"),
        ("BITNET_ENGINE_PORT", "70000"),
    ],
)
def test_wrong_settings_name_variable_value_and_way_out(name, value):
    with pytest.raises(SettingsError) as error:
        Settings.from_environment({name: value})
    assert f"{name}={value!r}" in str(error.value)
    assert "set it to" in str(error.value)


def test_the_best_variant_that_fits_comes_first():
    assert cpu.candidates(BOTH, frozenset(INTEL | {"avx512f", "avx512_vnni", "sse"})) == [V4, V3]
    assert cpu.candidates(BOTH, frozenset(INTEL)) == [V3]


def test_an_override_must_exist_and_fit():
    assert cpu.candidates(BOTH, frozenset(INTEL | {"avx512f", "avx512_vnni"}), "x86-64-v3") == [V3]
    with pytest.raises(SettingsError, match=r"BITNET_VARIANT='armv9'.*x86-64-v3, x86-64-v4-vnni"):
        cpu.candidates(BOTH, frozenset(INTEL), "armv9")
    with pytest.raises(cpu.CpuError, match="x86-64-v4-vnni needs avx512_vnni avx512f"):
        cpu.candidates(BOTH, frozenset(INTEL), "x86-64-v4-vnni")


def test_a_cpu_below_every_variant_is_told_what_is_missing():
    with pytest.raises(
        cpu.CpuError, match="x86-64-v3 needs avx2 bmi2; x86-64-v4-vnni needs avx2 avx512_vnni avx512f bmi2"
    ):
        cpu.candidates(BOTH, frozenset({"fma", "f16c", "sse2"}))


def test_flags_are_those_of_all_cpus(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor: 0\nflags\t\t: avx2 fma sse\n\nprocessor: 1\nflags\t\t: avx2 sse\nvmx flags: tsc\n")
    assert cpu.cpu_flags(cpuinfo) == {"avx2", "sse"}
    cpuinfo.write_text("processor: 0\nFeatures\t: fp asimd\n")
    assert cpu.cpu_flags(cpuinfo) == {"fp", "asimd"}
    with pytest.raises(SettingsError, match="BITNET_CPUINFO"):
        cpu.cpu_flags(tmp_path / "missing")


def test_on_aarch64_the_kernels_word_goes_before_its_file(monkeypatch):
    # fp, asimd, atomics, asimddp of the first word; i8mm of the second
    monkeypatch.setattr(cpu, "_hwcaps", lambda: (1 << 0 | 1 << 1 | 1 << 8 | 1 << 20, 1 << 13))
    assert cpu.cpu_flags(cpu.OWN, "aarch64") == {"fp", "asimd", "atomics", "asimddp", "i8mm"}
    assert "asimddp" not in cpu.cpu_flags(cpu.OWN, "x86_64")
    monkeypatch.setattr(cpu, "_hwcaps", lambda: (0, 0))
    assert cpu.cpu_flags(cpu.OWN, "aarch64") == cpu.cpu_flags(cpu.OWN)


def test_a_file_that_is_named_is_read_on_aarch64_too(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, "_hwcaps", lambda: (3, 0))
    (tmp_path / "cpuinfo").write_text("Features\t: fp asimd asimddp\n")
    assert cpu.cpu_flags(tmp_path / "cpuinfo", "aarch64") == {"fp", "asimd", "asimddp"}


def test_this_kernel_tells_its_processes_something():
    assert cpu._hwcaps()[0] > 0


def test_the_reason_names_what_better_ones_need():
    flags = frozenset(INTEL)
    assert cpu.why(V3, [V3], BOTH, flags) == (
        "the only one that this CPU runs; x86-64-v4-vnni needs avx512_vnni avx512f"
    )
    assert cpu.why(V4, [V4, V3], BOTH, V4.requires) == "the best of 2 that this CPU runs"
    assert cpu.why(V3, [V3], BOTH, V4.requires) == "the only one that this CPU runs"


def test_manifest(tmp_path):
    entry = {"requires": sorted(INTEL), "rank": 3, "verified": {"run": {"ran": True}}}
    (tmp_path / "manifest.json").write_text(json.dumps({"schema": 1, "variants": {"x86-64-v3": entry}}))
    assert cpu.read_manifest(tmp_path) == {"x86-64-v3": V3}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"variants": {}}', '{"variants": {"a": {"rank": 1}}}'])
def test_a_broken_manifest_is_named(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(SettingsError, match="manifest"):
        cpu.read_manifest(tmp_path)


def tokens_file(tmp_path, document):
    path = tmp_path / "tokens"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_tokens(tmp_path):
    digest = hashlib.sha256(b"secret").hexdigest()
    tokens = Tokens.from_file(tokens_file(tmp_path, {"schema": 1, "tokens": {"probe": digest, "other": "0" * 64}}))
    assert tokens.owner("secret") == "probe"
    assert tokens.owner("Secret") is None
    assert tokens.owner_of_header("bearer secret") == "probe"
    for header in (None, "", "secret", "Basic secret", "Bearer", "Bearer  ", "Bearer " + digest, "Bearer \udcff"):
        assert tokens.owner_of_header(header) is None


@pytest.mark.parametrize(
    "document",
    ["", "{", "[]", {}, {"schema": 1}, {"schema": 1, "tokens": {}}, {"schema": 2, "tokens": {"a": "0" * 64}},
     {"schema": 1, "tokens": {"a": "0" * 63}}, {"schema": 1, "tokens": {"a": "A" * 64}},
     {"schema": 1, "tokens": {"a": 5}}],
)  # fmt: skip
def test_without_usable_tokens_nothing_starts(tmp_path, document):
    with pytest.raises(SettingsError, match="BITNET_TOKENS_FILE"):
        Tokens.from_file(tokens_file(tmp_path, document))


def test_missing_tokens_and_no_secret_in_the_message(tmp_path):
    with pytest.raises(SettingsError, match="No such file"):
        Tokens.from_file(tmp_path / "missing")
    with pytest.raises(SettingsError) as error:
        Tokens.from_file(tokens_file(tmp_path, '{"tokens": {"a": "swordfish"'))
    assert "swordfish" not in str(error.value)


def test_log_lines_are_json():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter("part"))
    record = logging.LogRecord("x", logging.WARNING, "", 0, "two\nlines", None, None)
    record.fields = {"seconds": 1}
    handler.emit(record)
    line = json.loads(stream.getvalue())
    assert (line["level"], line["component"], line["message"], line["seconds"]) == ("warning", "part", "two\nlines", 1)
