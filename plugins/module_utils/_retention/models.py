# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of the models: models/SHA256/ with model.gguf and model.json, and models/sources/*.json.

Beside it images/SHA256/, with what image_build has written of the image of that digest.

A model goes in two steps, so that an interrupted removal leaves nothing that looks like a model: it is renamed, and
then removed.
"""

from __future__ import annotations

import json
import shutil
import typing as t
from pathlib import Path

from .plan import SHA256, Model

GOING = ".removing-"


def _document(path: Path) -> dict[str, t.Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


class Models:
    def __init__(self, state_dir: str) -> None:
        self.folder = Path(state_dir) / "models"
        self.sources = self.folder / "sources"
        self.images = Path(state_dir) / "images"

    def _folders(self) -> t.Iterator[Path]:
        if self.folder.is_dir():
            yield from (path for path in sorted(self.folder.iterdir()) if path.is_dir() and not path.is_symlink())

    def models(self) -> list[Model]:
        return [self._model(path) for path in self._folders() if SHA256.fullmatch(path.name)]

    def _model(self, folder: Path) -> Model:
        entries = list(folder.iterdir())
        plain = all(entry.is_file() and not entry.is_symlink() for entry in entries)
        ours = plain and _document(folder / "model.json").get("sha256") == folder.name
        status = folder.stat()
        size = sum(entry.lstat().st_size for entry in entries)
        # A rename, as the model's into its place, changes the second of these and not the first.
        return Model(folder.name, ours, size, max(status.st_mtime, status.st_ctime))

    def records(self) -> dict[str, str]:
        if not self.sources.is_dir():
            return {}
        found = {path.name: str(_document(path).get("sha256") or "") for path in sorted(self.sources.glob("*.json"))}
        return {name: sha256 for name, sha256 in found.items() if SHA256.fullmatch(sha256)}

    def leftovers(self) -> list[str]:
        return [path.name for path in self._folders() if path.name.startswith(GOING)]

    def evidence(self) -> dict[str, float]:
        """The digests of the images that image_build has written of, and when."""
        if not self.images.is_dir():
            return {}
        folders = [path for path in self.images.iterdir() if SHA256.fullmatch(path.name) and path.is_dir()]
        return {f"sha256:{path.name}": path.stat().st_mtime for path in folders}

    def remove_evidence(self, digest: str) -> None:
        shutil.rmtree(self.images / digest.partition(":")[2])

    def remove_record(self, name: str) -> None:
        (self.sources / name).unlink(missing_ok=True)

    def remove(self, sha256: str) -> None:
        going = self.folder / f"{GOING}{sha256}"
        if going.exists():
            self.finish(going.name)
        (self.folder / sha256).rename(going)
        self.finish(going.name)

    def finish(self, name: str) -> None:
        shutil.rmtree(self.folder / name)
