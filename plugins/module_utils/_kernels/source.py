# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the source comes from: the option's checks, its identity, fetching, unpacking and making it ready to build."""

from __future__ import annotations

import errno
import hashlib
import http.client
import lzma
import os
import re
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable
from urllib.parse import urlsplit

from . import manifest
from .errors import KernelError

SHA256 = re.compile(r"[0-9a-f]{64}")
COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# A version that upstream's build would ask Git for; the manifest says what was really built.
BUILD_INFO = {"BUILD_NUMBER": "0", "BUILD_COMMIT": "", "BUILD_COMPILER": "see manifest.json", "BUILD_TARGET": "Linux"}


@dataclass(frozen=True)
class Patch:
    """A text that stands once in a file of the source, and what takes its place."""

    path: str
    find: str
    replace: str


@dataclass(frozen=True)
class Source:
    """One source; content is its SHA-256 or commit."""

    kind: str
    name: str
    version: str
    content: str
    subdir: str
    location: str = ""
    patches: tuple[Patch, ...] = ()
    backend: str = "cmake"

    def identity(self) -> dict[str, str]:
        """What takes part in the hash: the content, wherever it came from, and what is changed in it."""
        # The folder that is built is another for another backend.
        backend = {} if self.backend == "cmake" else {"backend": self.backend}
        return {"content": self.content, "subdir": self.subdir, **backend, **self._patched()}

    def described(self) -> dict[str, str]:
        """What the manifest says."""
        described = {"kind": self.kind, "name": self.name, "version": self.version, "sha256": self.content}
        return {**described, **self._patched()}

    def _patched(self) -> dict[str, str]:
        return {"patches": _digest(self.patches)} if self.patches else {}

    @property
    def folder(self) -> str:
        return hashlib.sha256(" ".join(self.identity().values()).encode()).hexdigest()[:16]


def _digest(patches: tuple[Patch, ...]) -> str:
    parts = [text for patch in patches for text in (patch.path, patch.find, patch.replace)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def without_secrets(url: str) -> str:
    parts = urlsplit(url)
    if not parts.netloc:
        return url
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _sha256(option: str, value: str) -> str:
    if not SHA256.fullmatch(value.lower()):
        raise KernelError(f"{option}: {value!r} is no SHA-256 (64 hexadecimal digits)")
    return value.lower()


def resolve(source: dict[str, Any], tree_hash: Callable[[str], str], backend: str = "cmake") -> Source:
    """The source that the option names. Only a path is read; nothing is fetched."""
    patches = tuple(Patch(entry["path"], entry["find"], entry["replace"]) for entry in source.get("patches") or ())
    for patch in patches:
        if Path(patch.path).is_absolute() or ".." in Path(patch.path).parts:
            raise KernelError(f"source.patches: {patch.path!r} leads out of the source; name a file below it")
        if not patch.find:
            raise KernelError(f"source.patches: 'find' is empty for {patch.path!r}; give the text to replace")
    return replace(_resolve(source, tree_hash), patches=patches, backend=backend)


def _resolve(source: dict[str, Any], tree_hash: Callable[[str], str]) -> Source:
    subdir = (source.get("subdir") or "").strip("/")
    if ".." in subdir.split("/"):
        raise KernelError(f"source.subdir: {subdir!r} leads out of the source")
    if source.get("package"):
        package = source["package"]
        content = _sha256("source.package.sha256", package["sha256"])
        return Source("package", package["name"], package["version"], content, subdir, package.get("index") or "")
    if source.get("git"):
        git = source["git"]
        if not COMMIT.fullmatch(git["version"]):
            raise KernelError(
                f"source.git.version: {git['version']!r} is no full commit hash; a branch or tag can move, so name the "
                "commit (git rev-parse prints it)"
            )
        if urlsplit(git["url"]).password:
            raise KernelError(
                f"source.git.url: {without_secrets(git['url'])!r} comes with a password, which the target's process "
                "list would show; leave it to git's credential helper on the target"
            )
        name = Path(urlsplit(git["url"]).path).name
        return Source("git", name, git["version"], git["version"], subdir, git["url"])
    if source.get("url"):
        url = source["url"]
        content = _sha256("source.url.sha256", url["sha256"])
        return Source("url", Path(urlsplit(url["url"]).path).name, "", content, subdir, url["url"])
    path = source["path"]
    if not Path(path).exists():
        raise KernelError(f"source.path: {path!r} does not exist on the target")
    return Source("path", Path(path).name, "", tree_hash(path), subdir, path)


# --- a path's content -------------------------------------------------------------------------------------------------


def walk(path: Path) -> Iterator[tuple[str, Path]]:
    """All files and links below a folder but Git's own, in a fixed order: (relative, full)."""
    for where, folders, files in os.walk(path):
        folder = Path(where)
        links = [name for name in folders if (folder / name).is_symlink()]
        folders[:] = sorted(name for name in folders if name != ".git" and name not in links)
        for name in sorted(files + links):
            yield str((folder / name).relative_to(path)), folder / name


def signature(path: Path) -> str:
    """Changes whenever the content of a file or folder may have changed; reads no content."""
    state = hashlib.sha256()
    for relative, full in walk(path) if path.is_dir() else [("", path)]:
        status = full.lstat()
        numbers = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_mode}"
        state.update(os.fsencode(f"{relative}\0{numbers}\0"))
    return state.hexdigest()


def content_hash(path: Path) -> str:
    """SHA-256 of an archive, or of the names, kinds and contents in a folder."""
    if not path.is_dir():
        return manifest.sha256_of(path)
    state = hashlib.sha256()
    for relative, full in walk(path):
        mode = full.lstat().st_mode
        if stat.S_ISLNK(mode):
            kind, content = "link", hashlib.sha256(os.fsencode(full.readlink())).hexdigest()
        elif stat.S_ISREG(mode):
            kind, content = ("program" if mode & 0o100 else "file"), manifest.sha256_of(full)
        else:
            raise KernelError(f"source.path: {str(full)!r} is neither file, folder nor link")
        state.update(os.fsencode(f"{kind}\0{relative}\0{content}\0"))
    return state.hexdigest()


# --- fetching ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tools:
    """What Ansible lends: a way to open a URL, and AnsibleModule.run_command."""

    open_url: Callable[..., Any]
    run_command: Callable[..., tuple[int, str, str]]

    def run(
        self, command: list[str], timeout: float, what: str, environment: dict[str, str] | None = None
    ) -> tuple[int, str]:
        """Exit code, and what was said on both channels."""
        limited = ["timeout", "--kill-after=5", str(max(1, int(timeout))), *command]
        code, out, err = self.run_command(limited, environ_update=environment or {})
        if code in (124, 137):
            raise KernelError(f"{what} took longer than what was left of the timeout ({timeout:.0f} s)")
        if code == 127:
            raise KernelError(f"{what} needs the program {command[0]!r}, which the target does not have")
        return code, out + err


def fetch_package(source: Source, folder: Path, timeout: float, tools: Tools) -> Path:
    """Through the target's pip as it is configured there; pip verifies the hash before it looks inside."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{source.name}=={source.version} --hash=sha256:{source.content}\n", encoding="utf-8")
    environment = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    if source.location:
        # Not on the command line: it may hold a password.
        environment["PIP_INDEX_URL"] = source.location
    what = f"source.package: fetching {source.name} {source.version} with pip"
    pip = [sys.executable, "-m", "pip"]
    if tools.run([*pip, "--version"], 60, what)[0] != 0:
        pip = ["pip3"]
    code, output = tools.run(
        [
            *(*pip, "download", "--no-deps", "--no-binary", source.name, "--require-hashes"),
            *("--requirement", str(requirements), "--dest", str(folder)),
        ],
        timeout,
        what,
        environment,
    )
    if "DO NOT MATCH THE HASHES" in output:
        got = re.search(r"Got\s+([0-9a-f]{64})", output)
        raise KernelError(
            f"source.package.sha256: {source.name} {source.version} has the SHA-256 "
            f"{got.group(1) if got else '(pip does not say)'}, not {source.content}; "
            "somebody changed the file or the option is wrong"
        )
    archives = [path for path in folder.iterdir() if path.name.endswith((".gz", ".zip", ".bz2", ".xz"))]
    if code != 0 or len(archives) != 1:
        if "No space left on device" in output:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))
        reason = "\n".join(line for line in output.splitlines() if "ERROR" in line)[-1500:] or output[-1500:]
        raise KernelError(f"{what} failed (exit code {code}): {_hide(reason, source.location)}")
    return archives[0]


def _hide(text: str, url: str) -> str:
    return text.replace(url, without_secrets(url)) if url else text


def fetch_url(source: Source, folder: Path, timeout: float, tools: Tools) -> Path:
    path = folder / "archive"
    what = f"source.url: {without_secrets(source.location)}"
    try:
        with tools.open_url(source.location, timeout=min(timeout, 60)) as answer, path.open("wb") as stream:
            length = answer.headers.get("Content-Length")
            shutil.copyfileobj(answer, stream, 1 << 20)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        raise KernelError(f"{what} could not be fetched: {type(error).__name__}: {error}") from None
    size = path.stat().st_size
    if length and size != int(length):
        raise KernelError(f"{what} is truncated: {size} of {length} bytes arrived")
    return path


def fetch_git(source: Source, folder: Path, timeout: float, tools: Tools) -> Path:
    tree = folder / "git"
    tree.mkdir()
    what = f"source.git: fetching {source.version} from {without_secrets(source.location)}"
    environment = {"GIT_TERMINAL_PROMPT": "0"}
    git = ["git", "-c", "advice.detachedHead=false", "-C", str(tree)]
    code, output = tools.run([*git, "init", "--quiet"], timeout, what, environment)
    for command in (
        ["fetch", "--quiet", "--depth", "1", "--", source.location, source.version],
        ["checkout", "--quiet", "--force", source.version],
    ):
        if code == 0:
            code, output = tools.run([*git, *command], timeout, what, environment)
    if code != 0:
        raise KernelError(f"{what} failed: {_hide(output.strip()[-800:], source.location)}")
    return tree


def unpack(archive: Path, folder: Path, what: str) -> None:
    """Unpacks a tar or zip file; nothing may land outside of the folder."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as bundle:
                bundle.extractall(folder)  # noqa: S202 - zipfile itself drops what would lead out
            return
        with tarfile.open(archive) as bundle:
            members = [_harmless(member) for member in bundle]
            # Python before 3.11.4 has no filters, hence the look of our own.
            options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            bundle.extractall(folder, members=members, **options)  # noqa: S202
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
        raise KernelError(f"{what} is no archive that can be unpacked (truncated?): {error}") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise KernelError(f"{what} is no archive that can be unpacked (truncated?): {error}") from None


def _harmless(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Refuses what is no file, folder or link, and what leads out of the archive; drops special modes and owners."""
    paths = [member.name]
    if member.issym():
        paths.append(str(Path(member.name).parent / member.linkname))
    elif member.islnk():
        paths.append(member.linkname)
    elif not (member.isfile() or member.isdir()):
        raise ValueError(f"{member.name!r} is a device")
    for path in paths:
        if Path(path).is_absolute() or Path(os.path.normpath(path)).parts[:1] == ("..",):
            raise ValueError(f"{member.name!r} leads out of the archive")
    member.mode = (member.mode & 0o755) | 0o600
    member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
    return member


# --- making it ready --------------------------------------------------------------------------------------------------


def find_root(tree: Path, subdir: str, backend: str = "cmake") -> Path:
    """The folder to build: subdir if given; else the one with ik_llama.cpp's layout; else the topmost project.

    For the backend command, which knows no project by its files, it is the folder that the source is, or holds alone.
    """
    project = {"cmake": "CMakeLists.txt", "cargo": "Cargo.toml"}.get(backend, "")
    if subdir:
        for top in (tree, *sorted(path for path in tree.iterdir() if path.is_dir())):
            if (top / subdir / project).exists():
                return top / subdir
        raise KernelError(f"source.subdir: the source holds no {subdir}/{project}")
    if not project:
        inside = list(tree.iterdir())
        return inside[0] if len(inside) == 1 and inside[0].is_dir() else tree
    projects = [path.parent for path in tree.rglob(project)]
    engines = [path for path in projects if (path / "ggml" / "src" / "iqk" / "iqk_mul_mat.cpp").is_file()]
    best = min(engines or projects, key=lambda path: (len(path.parts), str(path)), default=None)
    if best is None:
        raise KernelError(f"source: holds no {project}; source.subdir can name the folder to build")
    return best


def check_vendored(root: Path) -> None:
    """Refuses a Rust workspace that would have to fetch something, since the container has no network."""
    lock = root / "Cargo.lock"
    if not lock.is_file():
        raise KernelError("source: holds no Cargo.lock; 'cargo generate-lockfile' writes it, so that it can be shipped")
    foreign = re.findall(r'(?m)^name = "(.+)"\nversion = ".+"\nsource = ', lock.read_text(encoding="utf-8"))
    configs = [path for path in (root / ".cargo" / "config.toml", root / ".cargo" / "config") if path.is_file()]
    replaced = any("replace-with" in path.read_text(encoding="utf-8") for path in configs)
    if foreign and not replaced:
        raise KernelError(
            f"source: needs the crates {', '.join(foreign[:5])}{' and more' if len(foreign) > 5 else ''}, and the "
            "compiler has no network; run 'cargo vendor' in the workspace, write what it prints to .cargo/config.toml, "
            "and ship both with the source"
        )


def complete(root: Path) -> None:
    """Supplies the build information that upstream's CMake would take from a Git checkout into its own source tree.

    The source is mounted read-only, and packaged sources lack the script that generates the file.
    """
    common = root / "common"
    template = common / "build-info.cpp.in"
    if not template.is_file():
        return
    text = template.read_text(encoding="utf-8")
    text = re.sub(r"@(\w+)@", lambda match: BUILD_INFO.get(match.group(1), ""), text)
    (common / "build-info.cpp").write_text(text, encoding="utf-8")
    script = common / "cmake" / "build-info-gen-cpp.cmake"
    script.parent.mkdir(exist_ok=True)
    script.write_text("# build-info.cpp was written when the source was unpacked.\n", encoding="utf-8")


def apply(patches: tuple[Patch, ...], root: Path) -> None:
    """Replaces each text; one that is not there exactly once is refused, since something else would be built."""
    for patch in patches:
        try:
            text = (root / patch.path).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise KernelError(
                f"source.patches: the source has no {patch.path}; correct the path, or leave the patch out"
            ) from None
        found = text.count(patch.find)
        if found != 1:
            raise KernelError(
                f"source.patches: {patch.path} holds {patch.find.strip()[:80]!r} {found} times, not once; the patch is "
                "for another version, so leave it out, or write it anew"
            )
        (root / patch.path).write_text(text.replace(patch.find, patch.replace), encoding="utf-8")


def make_readable(root: Path) -> None:
    """For the builder container's user, whatever the umask was."""
    root.chmod(0o755)
    for path in root.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def prepare(source: Source, work: Path, target: Path, timeout: float, tools: Tools) -> None:
    """Brings the tree to build to target, whole or not at all."""
    work.mkdir(parents=True)
    tree = work / "tree"
    if source.kind == "git":
        tree = fetch_git(source, work, timeout, tools)
    elif source.kind == "path" and Path(source.location).is_dir():
        shutil.copytree(source.location, tree, symlinks=True, ignore=shutil.ignore_patterns(".git"))
        if content_hash(tree) != source.content:
            raise KernelError(f"source.path: {source.location!r} changed while it was copied; run again")
    else:
        if source.kind == "package":
            archive = fetch_package(source, work, timeout, tools)
        elif source.kind == "url":
            archive = fetch_url(source, work, timeout, tools)
        else:
            archive = Path(source.location)
        content = manifest.sha256_of(archive)
        if content != source.content:
            raise KernelError(
                f"source.{source.kind}.sha256: the file has the SHA-256 {content}, not {source.content}; somebody "
                "changed the file or the option is wrong"
            )
        tree.mkdir()
        unpack(archive, tree, f"source.{source.kind}: {source.name}")
    root = find_root(tree, source.subdir, source.backend)
    if source.backend == "cmake":
        complete(root)
    if source.backend == "cargo":
        check_vendored(root)
    apply(source.patches, root)
    make_readable(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    root.rename(target)
