# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._kernels import source
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.errors import KernelError

SHA = "a" * 64


def resolve(**options):
    return source.resolve(options, lambda path: source.content_hash(Path(path)))


def tarball(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as bundle:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            bundle.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            bundle.addfile(member)
    return path


class Answer(io.BytesIO):
    def __init__(self, content: bytes, length: int | None = None) -> None:
        super().__init__(content)
        self.headers = {} if length is None else {"Content-Length": str(length)}


def run_command(command, environ_update):
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environ_update})
    return done.returncode, done.stdout, done.stderr


def prepared(found: source.Source, folder: Path, opener=None) -> Path:
    tools = source.Tools(opener, run_command)
    source.prepare(found, folder / "work", folder / "sources" / "x", 60, tools)
    return folder / "sources" / "x"


def test_the_same_content_has_the_same_identity_wherever_it_comes_from():
    package = resolve(package={"name": "p", "version": "1", "sha256": SHA})
    url = resolve(url={"url": "http://h/p.tar.gz", "sha256": SHA.upper()})
    assert package.identity() == url.identity()
    assert package.described()["kind"] == "package"
    assert url.name == "p.tar.gz"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"package": {"name": "p", "version": "1", "sha256": "abc"}}, "source.package.sha256: 'abc' is no SHA-256"),
        ({"url": {"url": "http://h/x", "sha256": ""}}, "source.url.sha256"),
        ({"git": {"url": "http://h/x", "version": "main"}}, "'main' is no full commit hash"),
        ({"git": {"url": "https://me:secret@h/x", "version": "a" * 40}}, "https://h/x' comes with a password"),
        ({"path": "/does/not/exist"}, "source.path: '/does/not/exist' does not exist"),
        ({"path": "/tmp", "subdir": "a/../../b"}, "source.subdir: .* leads out"),
    ],
)
def test_a_source_that_cannot_be_right_is_refused(options, message):
    with pytest.raises(KernelError, match=message):
        resolve(**options)


def test_a_folder_is_known_by_names_kinds_and_contents(tmp_path):
    (tmp_path / "a").write_text("1")
    first = source.content_hash(tmp_path)
    os.utime(tmp_path / "a", (1, 1))
    assert source.content_hash(tmp_path) == first
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "index").write_text("x")
    assert source.content_hash(tmp_path) == first
    (tmp_path / "a").chmod(0o755)
    second = source.content_hash(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    third = source.content_hash(tmp_path)
    (tmp_path / "c").symlink_to("b")
    assert len({first, second, third, source.content_hash(tmp_path)}) == 4


def test_the_signature_changes_when_a_file_is_touched(tmp_path):
    (tmp_path / "a").write_text("1")
    first = source.signature(tmp_path)
    assert source.signature(tmp_path) == first
    os.utime(tmp_path / "a", (1, 1))
    assert source.signature(tmp_path) != first


def test_the_engine_is_found_in_a_package(tmp_path):
    engine = tmp_path / "p-1" / "vendor" / "engine"
    (engine / "ggml" / "src" / "iqk").mkdir(parents=True)
    (engine / "ggml" / "src" / "iqk" / "iqk_mul_mat.cpp").touch()
    for folder in (tmp_path / "p-1", engine, engine / "ggml"):
        (folder / "CMakeLists.txt").touch()
    assert source.find_root(tmp_path, "") == engine
    assert source.find_root(tmp_path, "vendor/engine") == engine
    with pytest.raises(KernelError, match=r"holds no vendor/other/CMakeLists.txt"):
        source.find_root(tmp_path, "vendor/other")


def test_any_other_project_is_its_topmost_folder(tmp_path):
    (tmp_path / "top" / "inner").mkdir(parents=True)
    (tmp_path / "top" / "inner" / "CMakeLists.txt").touch()
    (tmp_path / "top" / "CMakeLists.txt").touch()
    assert source.find_root(tmp_path, "") == tmp_path / "top"


def test_a_source_without_cmake_is_refused(tmp_path):
    with pytest.raises(KernelError, match=r"holds no CMakeLists.txt"):
        source.find_root(tmp_path, "")


def test_a_rust_workspace_is_its_topmost_folder(tmp_path):
    for folder in ("top/crates/a", "top"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "Cargo.toml").write_text("")
    assert source.find_root(tmp_path, "", "cargo") == tmp_path / "top"
    assert source.find_root(tmp_path, "crates/a", "cargo") == tmp_path / "top" / "crates" / "a"
    with pytest.raises(KernelError, match=r"holds no CMakeLists\.txt"):
        source.find_root(tmp_path, "")


def test_for_commands_it_is_the_folder_that_an_archive_holds(tmp_path):
    (tmp_path / "top" / "src").mkdir(parents=True)
    assert source.find_root(tmp_path, "", "command") == tmp_path / "top"
    assert source.find_root(tmp_path, "src", "command") == tmp_path / "top" / "src"
    (tmp_path / "file").write_text("")
    assert source.find_root(tmp_path, "", "command") == tmp_path


def test_the_backend_is_part_of_the_identity_since_another_folder_is_built():
    options = {"url": {"url": "https://example.com/a.tgz", "sha256": "a" * 64}}
    cmake, cargo = (source.resolve(options, str, backend) for backend in ("cmake", "cargo"))
    assert cmake.identity() == source.resolve(options, str).identity()
    assert cargo.folder != cmake.folder


def test_missing_build_information_is_supplied(tmp_path):
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "build-info.cpp.in").write_text('int N = @BUILD_NUMBER@; char *C = "@BUILD_COMMIT@";')
    source.complete(tmp_path)
    assert (tmp_path / "common" / "build-info.cpp").read_text() == 'int N = 0; char *C = "";'
    assert (tmp_path / "common" / "cmake" / "build-info-gen-cpp.cmake").is_file()


def test_a_patch_changes_the_source_and_its_identity(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "CMakeLists.txt").write_text("project(x)\n")
    (folder / "a.cpp").write_text("int f() { return last(cells, 32); }\n")
    patch = {"path": "a.cpp", "find": "last(cells, 32)", "replace": "last(cells)"}
    plain, patched = resolve(path=str(folder)), resolve(path=str(folder), patches=[patch])
    assert plain.identity() != patched.identity()
    assert plain.folder != patched.folder
    assert "patches" in patched.described()
    tree = prepared(patched, tmp_path)
    assert (tree / "a.cpp").read_text() == "int f() { return last(cells); }\n"
    assert "32" in (folder / "a.cpp").read_text(), "the user's own folder is left alone"


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ({"path": "a.cpp", "find": "nowhere"}, "a.cpp holds 'nowhere' 0 times, not once"),
        ({"path": "a.cpp", "find": "a"}, "a.cpp holds 'a' 2 times, not once"),
        ({"path": "b.cpp", "find": "a"}, "the source has no b.cpp"),
        ({"path": "../b.cpp", "find": "a"}, "leads out of the source"),
        ({"path": "/b.cpp", "find": "a"}, "leads out of the source"),
        ({"path": "a.cpp", "find": ""}, "'find' is empty"),
    ],
)
def test_a_patch_that_does_not_fit_is_refused(tmp_path, patch, message):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "CMakeLists.txt").write_text("project(x)\n")
    (folder / "a.cpp").write_text("a a\n")
    with pytest.raises(KernelError, match=re.escape(message)):
        prepared(resolve(path=str(folder), patches=[{"replace": "", **patch}]), tmp_path)


def test_an_archive_is_prepared_whole(tmp_path):
    archive = tarball(tmp_path / "a.tar.gz", {"p/CMakeLists.txt": b"project(p)", "p/x.c": b"int x;"})
    tree = prepared(resolve(path=str(archive)), tmp_path)
    assert (tree / "x.c").read_bytes() == b"int x;"
    assert (tree / "x.c").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("files", "links"),
    [({"../evil": b""}, {}), ({"/evil": b""}, {}), ({"CMakeLists.txt": b""}, {"link": "../../etc"})],
)
def test_an_archive_that_leads_out_is_refused(tmp_path, files, links):
    archive = tarball(tmp_path / "a.tar.gz", files, links)
    with pytest.raises(KernelError, match="leads out of the archive"):
        prepared(resolve(path=str(archive)), tmp_path)
    assert not (tmp_path / "sources").exists()


@pytest.mark.parametrize("cut", [10, 300])
def test_a_truncated_archive_is_refused(tmp_path, cut):
    whole = tarball(tmp_path / "a.tar.gz", {"CMakeLists.txt": os.urandom(4096)})
    broken = tmp_path / "b.tar.gz"
    broken.write_bytes(whole.read_bytes()[:cut])
    with pytest.raises(KernelError, match="no archive that can be unpacked"):
        prepared(resolve(path=str(broken)), tmp_path)


def test_a_download_that_breaks_off_is_refused(tmp_path):
    found = resolve(url={"url": "http://user:secret@h/x.tgz?key=1", "sha256": SHA})
    with pytest.raises(KernelError, match=r"http://h/x.tgz is truncated: 3 of 10 bytes") as caught:
        prepared(found, tmp_path, lambda url, timeout: Answer(b"abc", 10))
    assert "secret" not in str(caught.value)


def test_a_download_of_other_content_is_refused(tmp_path):
    found = resolve(url={"url": "http://h/x.tgz", "sha256": SHA})
    with pytest.raises(KernelError, match=f"source.url.sha256: the file has the SHA-256 .*, not {SHA}"):
        prepared(found, tmp_path, lambda url, timeout: Answer(b"abc", 3))
    assert not (tmp_path / "sources").exists()


def test_a_server_that_is_not_there_is_named(tmp_path):
    def opener(url, timeout):
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(KernelError, match=r"source.url: http://h/x.tgz could not be fetched"):
        prepared(resolve(url={"url": "http://h/x.tgz", "sha256": SHA}), tmp_path, opener)


def test_a_commit_is_fetched(tmp_path):
    repo = tmp_path / "repo"
    repo.mkdir()
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-C", str(repo)]
    (repo / "CMakeLists.txt").write_text("project(p)")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    tree = prepared(resolve(git={"url": f"file://{repo}", "version": commit}), tmp_path)
    assert (tree / "CMakeLists.txt").is_file()


def test_a_commit_that_is_not_there_is_refused(tmp_path):
    found = resolve(git={"url": f"file://{tmp_path}/none", "version": "b" * 40})
    with pytest.raises(KernelError, match=r"source.git: fetching b+ from .* failed"):
        prepared(found, tmp_path)


def test_a_program_that_is_missing_or_slow_is_named():
    tools = source.Tools(None, run_command)
    with pytest.raises(KernelError, match="fetching needs the program 'no-such-git', which the target does not have"):
        tools.run(["no-such-git"], 5, "fetching")
    with pytest.raises(KernelError, match=r"fetching took longer than what was left of the timeout \(1 s\)"):
        tools.run(["sleep", "20"], 1, "fetching")
