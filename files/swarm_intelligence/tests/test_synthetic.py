# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from swarm_intelligence import synthetic
from swarm_intelligence.gguf_check import check_servable
from swarm_intelligence.gguf_file import GGUFFile, ModelError
from swarm_intelligence.reference import Reference, agreement


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthetic") / "model.gguf"
    synthetic.write(path)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_same_seed_same_bytes(model: Path, tmp_path: Path) -> None:
    synthetic.write(tmp_path / "again.gguf")
    synthetic.write(tmp_path / "other.gguf", seed=2)
    assert sha256(tmp_path / "again.gguf") == sha256(model)
    assert sha256(tmp_path / "other.gguf") != sha256(model)


def test_bytes_are_those_of_every_other_machine(model: Path) -> None:
    """Releases are named by this; a change here is a new model for everyone who serves the synthetic one."""
    assert sha256(model) == "fe2023a30ef64c0db3811bf75258d93ac6297ad3402bbb30e08e742e14f28670"


def test_small_and_servable(model: Path) -> None:
    description = check_servable(model)
    assert description["type"] == "iq2_bn"
    assert 2_500_000 < description["size"] < 3_500_000


def test_vocabulary_is_unambiguous() -> None:
    tokens, merges = synthetic.vocabulary()
    assert len(tokens) == len(set(tokens)) == synthetic.VOCABULARY
    assert all(merge.replace(" ", "") in tokens for merge in merges)


def test_known_prompts_are_what_byte_pair_encoding_makes_of_them() -> None:
    tokens, merges = synthetic.vocabulary()
    rank = {tuple(merge.split(" ")): n for n, merge in enumerate(merges)}
    for text, wanted in synthetic.known_prompts():
        ids = [tokens.index(synthetic.BEGIN)]
        for word in text.replace(" ", " " + synthetic.SPACE).split(" ")[1:]:
            parts = list(word)
            while pairs := [pair for pair in zip(parts, parts[1:], strict=False) if pair in rank]:
                best = min(pairs, key=lambda pair: rank[pair])
                at = list(zip(parts, parts[1:], strict=False)).index(best)
                parts[at : at + 2] = ["".join(best)]
            ids += [tokens.index(part) for part in parts]
        assert ids == wanted


def test_says_words_not_bytes(model: Path) -> None:
    logs = Reference(GGUFFile(model)).log_probabilities([[1022, 400, 500], [1022, 200], [65]])
    for distribution in logs:
        assert np.exp(distribution[0][256:-2]).sum() > 0.99


def test_both_types_mean_the_same_model(model: Path, tmp_path: Path) -> None:
    synthetic.write(tmp_path / "i2s.gguf", kind="i2_s")
    prompts = [[1022, 300, 700], [5]]
    ours = Reference(GGUFFile(model)).log_probabilities(prompts)
    theirs = Reference(GGUFFile(tmp_path / "i2s.gguf")).log_probabilities(prompts)
    for a, b in zip(ours, theirs, strict=True):
        assert np.allclose(a, b, atol=1e-5)


def test_reference_is_a_causal_distribution(model: Path) -> None:
    reference = Reference(GGUFFile(model))
    short = reference.log_probabilities([[9, 8, 7]])
    long = reference.log_probabilities([[9, 8, 7, 6]], last=2)[0]
    assert np.allclose(short[0][0], long[0], atol=1e-5)
    assert np.exp(long).sum(axis=1) == pytest.approx([1, 1])
    changed = reference.log_probabilities([[8, 9, 7]])[0][0]
    assert agreement(short[0][0], changed)[1] > 0.02


def test_reference_refuses_tokens_out_of_range(model: Path) -> None:
    for tokens in ([], [synthetic.VOCABULARY], [-1]):
        with pytest.raises(ValueError, match="token sequence"):
            Reference(GGUFFile(model)).log_probabilities([tokens])


def test_one_wrong_scale_is_more_than_the_tolerance(model: Path, tmp_path: Path) -> None:
    """What the comparison of verify can see: one tensor of twenty-eight with its sign turned."""
    right = Reference(GGUFFile(model)).log_probabilities([[1022, 300, 700]])[0][0]
    for name in ("blk.0.ffn_down.weight", "blk.3.attn_output.weight", "blk.2.attn_v.weight"):
        wrong = Reference(GGUFFile(flip_scale(model, tmp_path / "wrong.gguf", name))).log_probabilities(
            [[1022, 300, 700]]
        )
        assert agreement(right, wrong[0][0])[1] > 0.02, name


def test_missing_tensor_is_a_sentence(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model.read_bytes().replace(b"blk.1.attn_sub_norm", b"blk.1.attn_sub_nurm"))
    with pytest.raises(ModelError, match=r"'blk\.1\.attn_sub_norm\.weight' is missing; use"):
        check_servable(broken)


def flip_scale(source: Path, target: Path, name: str) -> Path:
    tensor = GGUFFile(source).tensor(name)
    content = bytearray(source.read_bytes())
    for row in range(tensor.shape[0]):
        content[tensor.start + row * (tensor.size // tensor.shape[0]) + 3] ^= 0x80
    target.write_bytes(content)
    return target
