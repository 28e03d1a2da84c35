# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The trained model that ships, its tokenizer, and the perplexity of its held-out text."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from engine_lab import change_header, change_rows
from swarm_intelligence import perplexity
from swarm_intelligence.engine_run import running
from swarm_intelligence.gguf_check import check_servable, file_sha256, read_record
from swarm_intelligence.gguf_file import F16, F32, IQ2_BN, GGUFFile, ModelError, write_gguf
from swarm_intelligence.known_answer import NoAnswer, token_text
from swarm_intelligence.reference import Reference, unpack
from swarm_intelligence.tokenizer import Tokenizer

SHIPPED = Path(__file__).resolve().parents[2] / "models" / "jargon"
LIMIT = 5_000_000
FEW = 32
"""Positions, where the stand-in computes them one by one."""
LIMITS = {"tolerance": 0.01, "rms_tolerance": 0.1}
Run = Callable[..., tuple[int, Any, str]]


@pytest.fixture(scope="module")
def model() -> GGUFFile:
    return GGUFFile(SHIPPED / "model.gguf")


@pytest.fixture(scope="module")
def text() -> str:
    return (SHIPPED / "held-out.txt").read_text(encoding="ascii")


@pytest.fixture(scope="module")
def few(model: GGUFFile, text: str) -> dict[str, Any]:
    return perplexity.compute(model, text, "held-out.txt", FEW)


@pytest.fixture
def folder(tmp_path: Path, few: dict[str, Any]) -> Path:
    """The shipped model with a record of a few positions."""
    target = tmp_path / "jargon"
    target.mkdir()
    for name in ("model.gguf", "held-out.txt"):
        shutil.copy(SHIPPED / name, target / name)
    record = {**read_record(SHIPPED / "model.json"), "held_out": few}
    (target / "model.json").write_text(json.dumps(record))
    return target


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("secret-token\n")
    return path


def natively(run: Run, kernels: Path, folder: Path, *more: object) -> tuple[int, Any, str]:
    files = ("--model", folder / "model.gguf", "--text", folder / "held-out.txt")
    return run("model", "perplexity", "--kernels", kernels, "--variant", "good", *files, *more, "--json")


def served(run: Run, url: object, token: Path, folder: Path) -> tuple[int, Any, str]:
    options = ("--token-file", token, "--expect", folder / "model.json", "--text", folder / "held-out.txt")
    return run("model", "perplexity", "--url", url, *options, "--deadline", 60, "--json")


# ---- what ships ----


def test_shipped_model_is_the_recorded_one() -> None:
    record = read_record(SHIPPED / "model.json")
    assert record["sha256"] == file_sha256(SHIPPED / "model.gguf")
    assert (SHIPPED / "model.gguf").stat().st_size < LIMIT
    description = check_servable(SHIPPED / "model.gguf")
    assert (description["name"], description["type"]) == ("jargon", "iq2_bn")
    assert description["types"] == {"f16": 1, "f32": 17, "iq2_bn": 28}


def test_recorded_figures_are_those_of_the_shipped_text(model: GGUFFile, text: str) -> None:
    held_out = read_record(SHIPPED / "model.json")["held_out"]
    again = perplexity.compute(model, text, "held-out.txt", len(held_out["cases"]))
    assert again["sha256"] == held_out["sha256"]
    assert again["perplexity"] == pytest.approx(held_out["perplexity"], rel=1e-4)
    assert again["shortlist_perplexity"] == pytest.approx(held_out["shortlist_perplexity"], rel=1e-4)
    assert [case["id"] for case in again["cases"]] == [case["id"] for case in held_out["cases"]]
    assert len(held_out["cases"]) >= 200
    assert len(perplexity.listed(held_out["cases"])) >= 100


def test_types_cost_less_than_a_hundredth_of_perplexity(model: GGUFFile) -> None:
    """Against the trained weights in float32, as ``training/export.py`` writes them and the reference computes them."""
    held_out = read_record(SHIPPED / "model.json")["held_out"]
    trained = json.loads((SHIPPED / "trained.json").read_text())
    assert trained["text_sha256"] == held_out["sha256"]
    assert held_out["perplexity"] == pytest.approx(trained["perplexity"], rel=0.01)


def test_ternary_layout_loses_nothing(model: GGUFFile, text: str, few: dict[str, Any], tmp_path: Path) -> None:
    """The same network with its matrices written as plain numbers."""
    tensors = {}
    for name, tensor in model.tensors.items():
        plain = unpack(model.bytes_of(name), tensor.type_id, tensor.shape)
        tensors[name] = (F32, tensor.shape, plain.astype("<f4"))
        if tensor.type_id == IQ2_BN:
            assert len(np.unique(plain)) <= 3
    write_gguf(tmp_path / "plain.gguf", typed(model.metadata), tensors)
    plainly = perplexity.compute(GGUFFile(tmp_path / "plain.gguf"), text, "held-out.txt", FEW)
    assert plainly["perplexity"] == pytest.approx(few["perplexity"], rel=1e-5)


def typed(metadata: dict[str, Any]) -> dict[str, tuple[gguf.GGUFValueType, Any]]:
    kinds = {str: gguf.GGUFValueType.STRING, bool: gguf.GGUFValueType.BOOL, int: gguf.GGUFValueType.UINT32}
    kinds |= {float: gguf.GGUFValueType.FLOAT32, list: gguf.GGUFValueType.ARRAY}
    return {key: (kinds[type(value)], value) for key, value in metadata.items() if key != "general.architecture"}


def test_it_knows_its_own_way_of_writing(model: GGUFFile) -> None:
    """What random weights would not: an entry's head is followed by a part of speech, and that by a full stop."""
    tokenizer = Tokenizer(model)
    row = Reference(model).log_probabilities([tokenizer.encode("frobnicate: v")])[0][0]
    likely = [token_text(model.metadata["tokenizer.ggml.tokens"][number]) for number in row.argsort()[::-1][:5]]
    assert any(token.startswith((".", "t")) for token in likely), likely


# ---- the tokenizer ----


@pytest.mark.parametrize("line", ["hacker: n.", "  two  blanks\n\n and lines ", "it's 1,024 'words'--and {marks}", "x"])
def test_tokens_stand_for_the_text(model: GGUFFile, line: str) -> None:
    tokens = Tokenizer(model).encode(line)
    vocabulary = model.metadata["tokenizer.ggml.tokens"]
    assert vocabulary[tokens[0]] == "<|begin_of_text|>"
    assert "".join(token_text(vocabulary[token]) for token in tokens[1:]) == line


def test_tokenizer_refuses_what_it_cannot_read_right(model: GGUFFile, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="plain ASCII"):
        Tokenizer(model).encode("na\u00efve")
    other = change_header(SHIPPED / "model.gguf", tmp_path / "other.gguf", b"gpt-2", b"qwen2")
    with pytest.raises(ModelError, match="'qwen2'"):
        Tokenizer(GGUFFile(other))


# ---- the positions ----


def test_passages_are_parted_by_blank_lines() -> None:
    text = "one\ntwo\n\nthree\n\n\n\nfour\n"
    assert [text[start:end] for start, end in perplexity.passages(text)] == ["one\ntwo", "three", "four"]


def test_prompts_read_as_their_tokens(model: GGUFFile, text: str) -> None:
    tokenizer = Tokenizer(model)
    vocabulary = [token_text(token) for token in model.metadata["tokenizer.ggml.tokens"]]
    found = perplexity.places(tokenizer, vocabulary, text, 255)
    assert len(found) > 2000
    for place in found[::97]:
        assert tokenizer.encode(text[place.start : place.end]) == place.tokens
        assert text[place.end :].startswith(vocabulary[place.token])
        assert perplexity.LEAST_CONTEXT <= len(place.tokens) < 255


def test_shared_beginnings_change_nothing(model: GGUFFile) -> None:
    reference = Reference(model)
    prompts = [[2046, 50, 60], [2046, 50, 60, 70, 80], [2046, 9]]
    together = perplexity.distributions(reference, prompts)
    for row, alone in zip(together, reference.log_probabilities(prompts), strict=True):
        assert np.allclose(row, alone[0], atol=1e-4)


# ---- an engine's whole distributions ----


def test_right_kernels_pass(kernels: Path, folder: Path, run: Run) -> None:
    code, document, _unused = natively(run, kernels, folder)
    assert (code, document["verdict"], document["positions"]) == (0, "pass", FEW)
    assert abs(document["relative_difference"]) < 0.005  # the stand-in does not round to int8, the record does
    assert document["method"] == "whole"


@pytest.mark.parametrize("fault", ["sharp"])
def test_wrong_kernels_fail(kernels: Path, folder: Path, run: Run, fault: str) -> None:
    (kernels / "fault").write_text(fault)
    code, document, _unused = natively(run, kernels, folder)
    assert (code, document["verdict"]) == (1, "fail"), document
    assert "do not switch to it" in document["reason"]


@pytest.mark.parametrize("fault", ["die", "not finite"])
def test_kernels_that_give_no_numbers_fail(kernels: Path, folder: Path, run: Run, fault: str) -> None:
    (kernels / "fault").write_text(fault)
    code, document, _unused = natively(run, kernels, folder)
    assert (code, document["verdict"]) == (1, "fail"), document


WRONG_TENSORS = {
    "one scale half as large again": ("blk.1.ffn_down.weight", lambda rows: _scaled(rows, 1.5)),
    "one sign turned": ("blk.0.attn_v.weight", lambda rows: _scaled(rows, -1.0)),
    "codes shifted by one group": ("blk.2.ffn_up.weight", lambda rows: np.roll(rows[:, 4:], 16, axis=1)),
}


def _scaled(rows: np.ndarray, factor: float) -> np.ndarray:
    scales = np.ascontiguousarray(rows[:, :4]).view("<f4") * np.float32(factor)
    return np.concatenate([scales.view(np.uint8), rows[:, 4:]], axis=1)


@pytest.mark.parametrize("what", WRONG_TENSORS)
def test_wrong_conversion_fails(kernels: Path, folder: Path, run: Run, what: str) -> None:
    """One tensor of twenty-eight is wrong in the file that the engine reads; the record is of the right one."""
    name, change = WRONG_TENSORS[what]
    change_rows(folder / "model.gguf", folder / "model.gguf", name, change)
    code, document, _unused = natively(run, kernels, folder)
    assert (code, document["verdict"]) == (1, "fail"), document


def test_truncated_models_fail(kernels: Path, folder: Path, run: Run) -> None:
    """One that lacks its last bytes, and one that lacks its last layer and says so."""
    whole = (folder / "model.gguf").read_bytes()
    (folder / "model.gguf").write_bytes(whole[:-4096])
    code, document, _unused = natively(run, kernels, folder)
    assert (code, document["verdict"]) == (1, "fail")
    assert "truncated" in document["reason"]
    model = GGUFFile(SHIPPED / "model.gguf")
    last = model.metadata["bitnet-b1.58.block_count"] - 1
    metadata = typed({**model.metadata, "bitnet-b1.58.block_count": last})
    kept = {
        name: (tensor.type_id, tensor.shape, model.bytes_of(name))
        for name, tensor in model.tensors.items()
        if not name.startswith(f"blk.{last}.")
    }
    (folder / "model.gguf").unlink()
    write_gguf(folder / "model.gguf", metadata, kept)
    code, document, _unused = natively(run, kernels, folder)
    assert (code, document["verdict"]) == (1, "fail")


def test_tolerance_can_be_given() -> None:
    for tolerance, passed in ((None, False), (0.05, True)):
        assert perplexity.judge([-1.0, -2.0], [-1.02, -2.02], "whole", LIMITS, tolerance).passed is passed


# ---- a served slot ----


def test_served_slot(kernels: Path, folder: Path, token: Path, run: Run) -> None:
    with running(kernels, "good", folder / "model.gguf") as engine:
        code, document, _unused = served(run, engine._client.base_url, token, folder)
    assert (code, document["verdict"], document["method"]) == (0, "pass", "shortlist"), document
    assert 0 < document["positions"] <= FEW


def test_served_slot_of_wrong_kernels(kernels: Path, folder: Path, token: Path, run: Run) -> None:
    (kernels / "fault").write_text("sharp")
    with running(kernels, "good", folder / "model.gguf") as engine:
        code, document, _unused = served(run, engine._client.base_url, token, folder)
    assert (code, document["verdict"]) == (1, "fail"), document


def test_shortlist_does_not_depend_on_the_sum_that_the_engine_divides_by() -> None:
    case = {"token": " a", "top": {" a": -1.0, " b": -2.0, " c": -3.0}}
    wanted = perplexity._shortlisted(case, case["top"])
    shifted = {token: value - 0.7 for token, value in case["top"].items()} | {" z": -0.5}
    assert perplexity._shortlisted(case, shifted) == pytest.approx(wanted)
    assert wanted == pytest.approx(-math.log(1 + math.exp(-1) + math.exp(-2)))


def test_rival_that_is_not_named_counts_as_the_least() -> None:
    case = {"token": " c", "top": {" a": -1.0, " b": -2.0, " c": -3.0}}
    assert perplexity._shortlisted(case, {" a": -1.0, " b": -2.0}) == pytest.approx(
        perplexity._shortlisted(case, {" a": -1.0, " b": -2.0, " c": -2.0})
    )


def test_no_data_is_inconclusive(kernels: Path, folder: Path, token: Path, run: Run) -> None:
    code, document, _unused = served(run, "http://127.0.0.1:9", token, folder)
    assert (code, document["verdict"], document["positions"]) == (4, "inconclusive", 0)
    assert "no answer came" in document["reason"]
    record = json.loads((folder / "model.json").read_text())
    del record["held_out"]
    (folder / "model.json").write_text(json.dumps(record))
    code, document, _unused = served(run, "http://127.0.0.1:9", token, folder)
    assert (code, document["verdict"]) == (4, "inconclusive")
    code, document, _unused = natively(run, kernels, folder)
    assert (code, document["verdict"]) == (4, "inconclusive")
    assert "no reference perplexity" in document["reason"]


def test_the_deadline_is_for_all_positions(monkeypatch: pytest.MonkeyPatch, few: dict[str, Any], text: str) -> None:
    def slow(_client: Any, _prompt: str) -> None:
        time.sleep(0.3)
        raise NoAnswer("busy")

    monkeypatch.setattr(perplexity, "ask_one", slow)
    began = time.monotonic()
    finding = perplexity.ask("http://127.0.0.1:9", "token", few, text, deadline=0.5)
    assert time.monotonic() - began < 3
    assert finding.passed is None
    assert "The deadline of 0.5 s was over at position 2" in finding.reason, finding.reason


def test_not_a_number_is_no_pass() -> None:
    assert perplexity.judge([-1.0, -2.0], [-1.0, math.nan], "whole", LIMITS).passed is False


def test_errors_that_cancel_are_no_pass() -> None:
    finding = perplexity.judge([-1.0, -2.0], [-1.5, -1.5], "whole", LIMITS)
    assert (finding.perplexity, finding.passed) == (finding.expected, False)


# ---- what cannot be done ----


def test_another_text_is_refused(kernels: Path, folder: Path, run: Run) -> None:
    (folder / "held-out.txt").write_text("Something else.\n")
    code, _unused, error = natively(run, kernels, folder)
    assert (code, "not the text that the record was made with" in error) == (3, True)


@pytest.mark.parametrize("missing", ["model.json", "held-out.txt"])
def test_missing_files(kernels: Path, folder: Path, run: Run, missing: str) -> None:
    (folder / missing).unlink()
    code, _unused, error = natively(run, kernels, folder)
    assert code == 3
    assert missing in error


def test_options_that_belong_together(kernels: Path, folder: Path, run: Run) -> None:
    text = ("--text", folder / "held-out.txt")
    for options, wanted in (
        (("--kernels", kernels), "--model is needed"),
        (("--url", "http://127.0.0.1:9"), "--expect"),
        (("--url", "http://127.0.0.1:9", "--expect", folder / "model.json"), "--token-file is needed"),
        (("--record",), "--model is needed"),
    ):
        code, _unused, error = run("model", "perplexity", *options, *text)
        assert (code, wanted in error) == (3, True), error
    with pytest.raises(SystemExit) as caught:
        run("model", "perplexity", *text)
    assert caught.value.code == 2


def test_record_is_written_and_kept(folder: Path, run: Run) -> None:
    model, text = folder / "model.gguf", folder / "held-out.txt"
    (folder / "model.json").unlink()
    code, document, _unused = run(
        "model", "perplexity", "--record", "--model", model, "--text", text, "--positions", 16, "--json"
    )
    assert (code, document["positions"]) == (0, 16)
    record = read_record(model)
    assert len(record["held_out"]["cases"]) == 16
    assert len(record["known_answer"]) >= 3
    assert run("model", "check", model, "--record", "--json")[1] == record


def test_text_that_gives_no_position(folder: Path, run: Run) -> None:
    (folder / "held-out.txt").write_text("Too short.\n")
    arguments = ("--record", "--model", folder / "model.gguf", "--text", folder / "held-out.txt")
    code, _unused, error = run("model", "perplexity", *arguments)
    assert (code, "take a longer text" in error) == (3, True)
    (folder / "held-out.txt").write_text("\u00e9\n")
    code, _unused, error = run("model", "perplexity", *arguments)
    assert (code, "plain ASCII" in error) == (3, True)


def test_held_out_embeddings_are_half_precision(model: GGUFFile) -> None:
    assert model.tensor("token_embd.weight").type_id == F16
