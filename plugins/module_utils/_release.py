# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names of releases and bindings: hashes of what they are made of."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

ID_LENGTH = 12
RELEASE_KEYS = ("configuration", "image", "model")

_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_REFERENCE = re.compile(r"[^\s@]+@(sha256:[0-9a-f]{64})")


class ReleaseError(ValueError):
    """What was given cannot name a release or a binding."""


def plain(value: Any, where: str = "value") -> Any:
    """A copy made of plain JSON types; refuses what would not hash the same everywhere."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ReleaseError(f"{where} is {value}, which JSON cannot hold: give a finite number.")
        return float(value)
    if isinstance(value, Mapping):
        copy = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise ReleaseError(f"{where} has the key {key!r} of type {type(key).__name__}: keys must be strings.")
            copy[str(key)] = plain(item, f"{where}.{key}")
        return copy
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise ReleaseError(f"{where} is of type {type(value).__name__}: only what JSON can hold has an id.")


def canonical_json(value: Any) -> str:
    """One text for one content: sorted keys, no blanks, ASCII only."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def content_id(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()[:ID_LENGTH]


def image_digest(image: Any) -> str:
    """The digest in C(sha256:...) form, of a digest or of a reference by digest."""
    text = str(image)
    match = _REFERENCE.fullmatch(text)
    if match:
        return match.group(1)
    if _DIGEST.fullmatch(text) and text.startswith("sha256:"):
        return text
    raise ReleaseError(
        f"image is {text!r}: a release names its image by digest, as in registry/name@sha256:... "
        "A tag can be moved; push the image and use the digest that the registry gives."
    )


def model_digest(model: Any) -> str:
    match = _DIGEST.fullmatch(str(model))
    if not match:
        raise ReleaseError(f"model is {str(model)!r}: give the sha256 of the model file, 64 hexadecimal digits.")
    return f"sha256:{match.group(1)}"


def release_id(release: Any) -> str:
    """The id of a release; the registry's name is not part of it, a mirrored image is the same release."""
    if not isinstance(release, Mapping):
        raise ReleaseError(f"A release is a dictionary of {', '.join(RELEASE_KEYS)}; got {type(release).__name__}.")
    missing = [key for key in RELEASE_KEYS if key not in release]
    unknown = sorted(str(key) for key in release if key not in RELEASE_KEYS)
    if missing or unknown:
        raise ReleaseError(
            f"A release is a dictionary of exactly {', '.join(RELEASE_KEYS)}; "
            f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}."
        )
    configuration = release["configuration"]
    if not isinstance(configuration, Mapping):
        raise ReleaseError(f"configuration is of type {type(configuration).__name__}: give a dictionary.")
    return content_id(
        {
            "image": image_digest(release["image"]),
            "model": model_digest(release["model"]),
            "configuration": plain(configuration, "configuration"),
        }
    )


def binding_id(binding: Any) -> str:
    """The id of a binding: how one environment runs a release."""
    if not isinstance(binding, Mapping) or not binding:
        raise ReleaseError(f"A binding is a dictionary that is not empty; got {binding!r}.")
    return content_id(plain(binding, "binding"))
