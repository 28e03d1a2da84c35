# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that nobody vouches for: refused in one sentence, without a traceback and without much memory."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from swarm_intelligence import synthetic
from swarm_intelligence.gguf_check import check_servable, read_record, write_record
from swarm_intelligence.gguf_file import GGUFFile, ModelError
from swarm_intelligence.reference import Reference


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "model.gguf"
    synthetic.write(path, layers=1)
    return path


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "hostile.gguf"


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        check_servable(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert ";" in message, "no way out"
    return message


def header(tensors: int, keys: int, rest: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + rest


def test_rows_that_do_not_fill_a_group(scratch: Path) -> None:
    name = b"blk.0.attn_q.weight"
    entry = struct.pack("<Q", len(name)) + name + struct.pack("<IQQIQ", 2, 64, 6, 335, 0)
    assert "has 6 rows, which iq2_bn_r4 holds in fours" in refusal(scratch, header(1, 0, entry + b"\0" * 4096))


def test_each_bad_file_says_what_is_wrong(good: Path, scratch: Path) -> None:
    whole = good.read_bytes()
    assert "is empty" in refusal(scratch, b"")
    assert "no GGUF" in refusal(scratch, b"PK\x03\x04" + whole)
    assert "truncated" in refusal(scratch, whole[:10])
    assert "truncated" in refusal(scratch, whole[: len(whole) // 2])
    assert "truncated" in refusal(scratch, whole[:-40])
    assert "version 9" in refusal(scratch, header(0, 0, version=9))
    assert "corrupt" in refusal(scratch, header(1 << 60, 1 << 60))
    assert "corrupt" in refusal(scratch, header(0, 1, struct.pack("<Q", 1 << 62) + b"x"))
    assert "'llama'" in refusal(scratch, llama())
    other = whole.replace(b"bitnet-b1.58.block_count", b"bitnet-b1.58.block_xount")
    assert "'bitnet-b1.58.block_count' is missing" in refusal(scratch, other)


def llama() -> bytes:
    key, value = b"general.architecture", b"llama"
    pair = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    return header(0, 1, pair) + bytes(64)


def test_an_array_that_claims_more_than_the_file_holds(scratch: Path) -> None:
    for kind in (0, 8, 12):
        body = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, kind, 1 << 40)
        assert "more than the file can hold" in refusal(scratch, header(0, 1, body))
    nested = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 9, 1) + bytes(64)
    assert "unsupported type 9" in refusal(scratch, header(0, 1, nested))


def test_unknown_tensor_type(good: Path, scratch: Path) -> None:
    content = bytearray(good.read_bytes())
    at = content.index(b"blk.0.attn_q.weight") + len(b"blk.0.attn_q.weight") + 4 + 16
    assert struct.unpack_from("<I", content, at) == (135,)
    struct.pack_into("<I", content, at, 222)
    assert "unknown type 222" in refusal(scratch, bytes(content))


def test_wrong_shape(good: Path, scratch: Path) -> None:
    content = bytearray(good.read_bytes())
    at = content.index(b"blk.0.attn_q.weight") + len(b"blk.0.attn_q.weight") + 4
    struct.pack_into("<QQ", content, at, 512, 256)
    assert "has the shape (256, 512), (512, 512) is needed" in refusal(scratch, bytes(content))
    struct.pack_into("<QQ", content, at, 1 << 50, 1 << 50)
    assert "impossible shape" in refusal(scratch, bytes(content))


def test_raw_i2s_names_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "raw.gguf"
    synthetic.write(path, layers=1, kind="i2_s")
    with pytest.raises(ModelError, match=r"in I2_S.*bitnet-cli model convert"):
        check_servable(path)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.gguf", tmp_path):
        with pytest.raises(ModelError, match="cannot be read"):
            check_servable(path)


def survive(path: Path, content: bytes) -> None:
    """Whatever is in the file: an answer or a ModelError, and little memory."""
    path.write_bytes(content)
    tracemalloc.start()
    try:
        check_servable(path)
        Reference(GGUFFile(path))
    except ModelError as error:
        assert "\n" not in str(error).replace(str(path), "")
    finally:
        _unused, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 64 << 20


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_mutated_headers(good: Path, scratch: Path, data: st.DataObject) -> None:
    content = bytearray(good.read_bytes())
    end = GGUFFile(good).tensors["token_embd.weight"].start
    for _unused in range(data.draw(st.integers(1, 6))):
        # half of them where numbers and short names are, the rest anywhere in the header
        at = data.draw(st.one_of(st.integers(0, 1200), st.integers(0, end - 1), st.integers(end - 1200, end - 9)))
        piece = data.draw(st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(EXTREMES)))
        content[at : at + len(piece)] = piece
    survive(scratch, bytes(content))


EXTREMES = [struct.pack("<Q", value) for value in (0, 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(cut=st.floats(0, 1, exclude_max=True))
def test_truncated_anywhere(good: Path, scratch: Path, cut: float) -> None:
    whole = good.read_bytes()
    refusal(scratch, whole[: int(cut * (len(whole) - 32))])


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=400), tensors=st.integers(0, 2**64 - 1), keys=st.integers(0, 2**64 - 1))
def test_noise_behind_a_header(scratch: Path, body: bytes, tensors: int, keys: int) -> None:
    survive(scratch, header(tensors % 5, keys % 5, body))
    survive(scratch, header(tensors, keys, body))


def test_record_beside_the_model(good: Path) -> None:
    written = write_record(good, name="a name")
    assert read_record(good) == read_record(good.parent / "model.json") == written
    assert written["name"] == "a name"
    assert len(written["sha256"]) == 64
    assert [path.name for path in good.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("content", ["", "[]", '{"schema": 2}', "{"])
def test_record_that_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(ModelError, match="--record"):
        read_record(tmp_path / "model.json")


def test_record_is_json(good: Path) -> None:
    write_record(good)
    assert json.loads((good.parent / "model.json").read_text())["schema"] == 1
