# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""verify, answer and the command line, against the stand-in of engine_lab."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from swarm_intelligence import cli, synthetic
from swarm_intelligence.convert import embeddings_type
from swarm_intelligence.engine_run import running
from swarm_intelligence.gguf_check import read_record
from swarm_intelligence.gguf_file import GGUFFile, ModelError
from swarm_intelligence.verify import verify_variant


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model" / "model.gguf"
    assert cli.main(["model", "synthetic", "--layers", "1", "--output", str(path)]) == 0
    return path


Run = Callable[..., tuple[int, Any, str]]


def test_variant_that_computes_right(kernels: Path, model: Path, run: Run) -> None:
    code, document, _unused = run("kernels", "verify", "--kernels", kernels, "--model", model, "--json")
    assert code == 0
    assert document["good"]["passed"]
    assert document["good"]["cosine"] == pytest.approx(1)
    assert document["good"]["relative_l2"] < 1e-4
    assert document["future"] == {
        "ran": False,
        "reason": "this CPU lacks avx4096 quantum",
        "cosine": None,
        "relative_l2": None,
        "passed": False,
    }


def test_variant_that_computes_wrong(kernels: Path, model: Path, run: Run) -> None:
    (kernels / "fault").write_text("noise")
    code, document, _unused = run(
        "kernels", "verify", "--kernels", kernels, "--model", model, "--variant", "good", "--json"
    )
    assert code == 1
    assert document["variant"] == "good"
    assert document["ran"]
    assert not document["passed"]
    assert document["relative_l2"] > 0.02


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("die", "the engine died of SIGILL.*cannot allocate"),
        ("hang", "did not load its model within the deadline"),
        ("short", "gave 1 of 2 tokens"),
        ("not finite", "1023 finite probabilities of|2046 finite probabilities of"),
    ],
)
def test_engine_that_fails(kernels: Path, model: Path, run: Run, fault: str, message: str) -> None:
    import re

    (kernels / "fault").write_text(fault)
    code, document, _unused = run(
        "kernels", "verify", "--kernels", kernels, "--model", model, "--variant", "good", "--deadline",
        "3" if fault == "hang" else "60", "--json",
    )  # fmt: skip
    assert code == 1
    assert document["ran"]
    assert not document["passed"]
    assert re.search(message, document["reason"]), document["reason"]


def test_nothing_runs_is_inconclusive(kernels: Path, model: Path, run: Run) -> None:
    code, document, _unused = run(
        "kernels", "verify", "--kernels", kernels, "--model", model, "--variant", "future", "--json"
    )
    assert code == 4
    assert not document["ran"]


def need_another_cpu(kernels: Path) -> None:
    manifest = json.loads((kernels / "manifest.json").read_text())
    manifest["variants"]["good"]["requires"] = ["quantum"]
    (kernels / "manifest.json").write_text(json.dumps(manifest))


def test_a_variant_for_another_cpu_runs_under_an_emulator(kernels: Path, model: Path, run: Run) -> None:
    need_another_cpu(kernels)
    verify = ["kernels", "verify", "--kernels", kernels, "--model", model, "--json"]
    assert not run(*verify, "--variant", "good")[1]["ran"]
    mark = kernels / "emulated"
    emulator = f'sh -c \'echo "$1" >{mark}; exec "$@"\' emulator'
    code, document, _unused = run(*verify, "--variant", "good", "--emulator", emulator)
    assert code == 0, document
    assert document["passed"]
    assert mark.read_text() == f"{kernels}/bin/llama-server\n"
    code, _unused, error = run(*verify, "--emulator", emulator)
    assert (code, "name it with --variant" in error) == (3, True)


def test_an_emulated_cpu_that_lacks_something_or_no_emulator(kernels: Path, model: Path) -> None:
    verdict = verify_variant(kernels, "good", model, emulator=["sh", "-c", "kill -ILL $$"])
    assert (verdict["ran"], verdict["passed"]) == (True, False)
    assert "the engine died of SIGILL" in verdict["reason"]
    verdict = verify_variant(kernels, "good", model, emulator=["qemu-of-nobody"])
    assert not verdict["passed"]
    assert "qemu-of-nobody: cannot be started" in verdict["reason"]
    assert "name an emulator that is installed" in verdict["reason"]


def test_unknown_variant_and_no_kernels(kernels: Path, tmp_path: Path, run: Run) -> None:
    code, _unused, error = run("kernels", "verify", "--kernels", kernels, "--variant", "x86-64-v9", "--json")
    assert (code, "name one of future, good" in error) == (3, True)
    code, _unused, error = run("kernels", "verify", "--kernels", tmp_path / "nothing", "--json")
    assert (code, "name an output directory of kernel_build" in error) == (3, True)


def test_missing_program(kernels: Path, model: Path) -> None:
    (kernels / "bin" / "llama-server").unlink()
    verdict = verify_variant(kernels, "good", model)
    assert not verdict["passed"]
    assert "build the kernels again" in verdict["reason"]


def test_requirements_can_be_given(kernels: Path, model: Path) -> None:
    (kernels / "manifest.json").unlink()
    assert verify_variant(kernels, "good", model, requires=[])["passed"]
    assert verify_variant(kernels, "good", model, requires=["quantum"])["reason"] == "this CPU lacks quantum"


def test_wrong_model_is_told_from_its_reference(kernels: Path, model: Path, tmp_path: Path) -> None:
    """An engine that reads one sign of the file differently would look like this."""
    other = tmp_path / "other.gguf"
    content = bytearray(model.read_bytes())
    tensor = GGUFFile(model).tensor("blk.0.ffn_down.weight")
    for row in range(tensor.shape[0]):
        content[tensor.start + row * (tensor.size // tensor.shape[0]) + 3] ^= 0x80
    other.write_bytes(content)
    assert not verify_variant(kernels, "good", other, reference=model)["passed"]


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("secret-token\n")
    return path


def answer(run: Run, url: object, token: Path, record: Path) -> tuple[int, Any, str]:
    return run("answer", "--url", url, "--token-file", token, "--expect", record, "--deadline", 10, "--json")


def test_known_answer(kernels: Path, model: Path, token: Path, run: Run) -> None:
    record = model.parent / "model.json"
    with running(kernels, "good", model) as engine:
        code, document, _unused = answer(run, engine._client.base_url, token, record)
    assert (code, document["verdict"]) == (0, "pass")
    assert document["rms_difference"] < 0.001


@pytest.mark.parametrize("fault", ["noise"])
def test_known_answer_of_wrong_kernels(kernels: Path, model: Path, token: Path, run: Run, fault: str) -> None:
    (kernels / "fault").write_text(fault)
    record = read_record(model)
    for case in record["known_answer"]:
        case["tolerance"] = 0.02
    (model.parent / "model.json").write_text(json.dumps(record))
    with running(kernels, "good", model) as engine:
        code, document, _unused = answer(run, engine._client.base_url, token, model.parent / "model.json")
    assert (code, document["verdict"]) == (1, "fail")
    assert "do not switch to it" in document["reason"]


def test_known_answer_of_another_model(kernels: Path, model: Path, token: Path, tmp_path: Path, run: Run) -> None:
    other = tmp_path / "other" / "model.gguf"
    run("model", "synthetic", "--layers", 1, "--seed", 2, "--output", other, "--json")
    with running(kernels, "good", other) as engine:
        code, document, _unused = answer(run, engine._client.base_url, token, model.parent / "model.json")
    assert (code, document["verdict"]) == (1, "fail")
    assert "another model" in document["reason"]


def test_no_data_is_inconclusive(model: Path, token: Path, run: Run) -> None:
    record = model.parent / "model.json"
    code, document, _unused = answer(run, "http://127.0.0.1:9", token, record)
    assert (code, document["verdict"]) == (4, "inconclusive")
    content = json.loads(record.read_text())
    del content["known_answer"]
    record.write_text(json.dumps(content))
    code, document, _unused = answer(run, "http://127.0.0.1:9", token, record)
    assert (code, document["verdict"]) == (4, "inconclusive")
    assert "no known answers" in document["reason"]


def test_openai_legacy_form_of_logprobs() -> None:
    from swarm_intelligence.known_answer import top_of

    legacy = {"choices": [{"logprobs": {"tokens": ["a"], "top_logprobs": [{"a": -1.0, "b": -2.0}]}}]}
    assert top_of(legacy) == {"a": -1.0, "b": -2.0}


def test_token_file_is_missing_or_empty(model: Path, tmp_path: Path, run: Run) -> None:
    for content in (None, "", "two words\nand a line"):
        path = tmp_path / "bad-token"
        if content is not None:
            path.write_text(content)
        code, _unused, error = answer(run, "http://127.0.0.1:9", path, model.parent / "model.json")
        assert code == 3
        assert "token-file=" in error


def test_check_and_inspect(model: Path, run: Run, tmp_path: Path) -> None:
    before = read_record(model)
    code, document, _unused = run("model", "check", model, "--record", "--json")
    assert code == 0
    assert document == before, "the known answers of the same file are kept"
    code, document, _unused = run("model", "inspect", model, "--tensors", "--json")
    assert code == 0
    assert document["tensor_list"]["blk.0.attn_q.weight"] == "iq2_bn [512, 512]"
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    for command in ("check", "inspect"):
        code, document, error = run("model", command, tmp_path / "bad.gguf", "--json")
        assert (code, document) == (1, None)
        assert error.count("\n") == 1
        assert "truncated" in error


def test_convert_refuses_what_is_not_i2s(kernels: Path, model: Path, tmp_path: Path, run: Run) -> None:
    output = tmp_path / "out.gguf"
    code, _unused, error = run("model", "convert", "--kernels", kernels, "--input", model, "--output", output)
    assert (code, "nothing to convert" in error) == (1, True)
    assert not output.exists()


@pytest.mark.parametrize(
    ("script", "message"),
    [("#!/bin/sh\necho no memory; exit 7\n", "ended with 7"), ('#!/bin/sh\ncp "$4" "$5"\n', "in I2_S")],
)
def test_convert_with_a_broken_program(kernels: Path, tmp_path: Path, run: Run, script: str, message: str) -> None:
    source, output = tmp_path / "raw.gguf", tmp_path / "out" / "model.gguf"
    synthetic.write(source, layers=1, kind="i2_s")
    program = kernels / "bin" / "llama-quantize"
    program.write_text(script)
    program.chmod(0o755)
    code, _unused, error = run("model", "convert", "--kernels", kernels, "--input", source, "--output", output)
    assert (code, message in error) == (1, True), error
    assert list(output.parent.iterdir()) == []


def test_convert_compares_with_the_original(kernels: Path, tmp_path: Path, run: Run) -> None:
    """A program that writes a fine model which is not the one it was given."""
    source, output, wrong = tmp_path / "raw.gguf", tmp_path / "out" / "model.gguf", tmp_path / "wrong.gguf"
    synthetic.write(source, layers=1, kind="i2_s")
    program = kernels / "bin" / "llama-quantize"
    program.write_text(f'#!/bin/sh\necho "$3 $6" > {tmp_path}/types\ncp {wrong} "$5"\n')
    program.chmod(0o755)
    synthetic.write(wrong, layers=1, seed=2, kind="iq2_bn_r4")
    arguments = ("--kernels", kernels, "--input", source, "--output", output, "--ordering", "x86")
    code, _unused, error = run("model", "convert", *arguments)
    assert (code, "is not what the input says" in error) == (1, True), error
    assert list(output.parent.iterdir()) == []
    synthetic.write(wrong, layers=1, kind="iq2_bn_r4")
    assert run("model", "convert", *arguments, "--no-known-answer", "--json")[0] == 0
    assert read_record(output)["type"] == "iq2_bn_r4"
    assert (tmp_path / "types").read_text() == "f16 iq2_bn_r4\n"


def test_embeddings_are_rounded_unless_outliers_forbid_it(model: Path) -> None:
    assert embeddings_type(GGUFFile(Path(__file__).resolve().parents[2] / "models" / "jargon" / "model.gguf")) == "q6_k"
    assert embeddings_type(GGUFFile(model)) == "f16"


def test_fetch_wants_url_and_sha256(tmp_path: Path, run: Run) -> None:
    code, _unused, error = run("model", "fetch", "--url", "http://127.0.0.1:9/x", "--output", tmp_path / "x")
    assert (code, "--sha256 are both needed" in error) == (3, True)


def test_fetch_from_a_mirror(tmp_path: Path, run: Run) -> None:
    code, _unused, error = run(
        "model", "fetch", "--name", "microsoft/bitnet-b1.58-2B-4T", "--mirror", "http://127.0.0.1:9/models/",
        "--output", tmp_path / "x", "--deadline", "0.2",
    )  # fmt: skip
    assert code == 3
    assert "http://127.0.0.1:9/models/ggml-model-i2_s.gguf" in error


def test_unwritable_output(run: Run) -> None:
    code, _unused, error = run("model", "synthetic", "--output", "/proc/nothing/model.gguf")
    assert code == 3
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["model"],
        ["model", "fetch"],
        ["model", "synthetic", "--output", "x", "--layers", "0"],
        ["kernels", "verify"],
    ],
)
def test_wrong_options(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2


def test_engine_is_stopped(kernels: Path, model: Path) -> None:
    import httpx

    with running(kernels, "good", model) as engine:
        url = str(engine._client.base_url)
        assert httpx.get(f"{url}/health").status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/health")


def test_verify_refuses_a_model_that_cannot_be_served(kernels: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw.gguf"
    synthetic.write(raw, layers=1, kind="i2_s")
    with pytest.raises(ModelError, match="model convert"):
        verify_variant(kernels, "good", raw)
