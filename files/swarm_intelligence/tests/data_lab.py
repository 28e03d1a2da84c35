# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL 15 and a Redis of the tests' own: processes in a temporary folder, on ports of their own."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import redis
from swarm_intelligence.engine_run import free_port

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
PASSWORD = "correct-horse-9f2c"


def require_programs() -> None:
    """Debian's packages; installed where that is possible, else what is missing is said."""
    with (Path(tempfile.gettempdir()) / "bitnet-test-packages.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers of pytest come here at the same time
        missing = [] if (PROGRAMS / "postgres").exists() else ["postgresql-15"]
        missing += [] if shutil.which("redis-server") else ["redis-server"]
        if not missing:
            return
        sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        apt = [*sudo, "apt-get", "-qy", "-o", "DPkg::Lock::Timeout=300"]
        for command in (["update"], ["install", "--no-install-recommends", *missing]):
            done = subprocess.run(
                [*apt, *command], env=environment, capture_output=True, text=True, timeout=600, check=False
            )
            assert done.returncode == 0, f"needed: apt-get install {' '.join(missing)} ({done.stderr.strip()[-300:]})"


class Authority:
    """A CA of the tests' own, and what it has signed for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "server.pem", folder / "server.key"
        self.ca, ca_key, request = folder / "ca.pem", folder / "ca.key", folder / "request"
        names = folder / "names"
        names.write_text("subjectAltName=IP:127.0.0.1\n")
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        for command in (
            ["req", "-x509", *new, "-subj", "/CN=tests", "-keyout", ca_key, "-out", self.ca, "-days", "2"],
            ["req", *new, "-subj", "/CN=server", "-keyout", self.key, "-out", request],
            ["x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", ca_key, "-CAcreateserial", "-extfile", names,
             "-out", self.certificate, "-days", "2"],
        ):  # fmt: skip
            subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True, timeout=60)


class Postgres:
    """It does not run as root: then as the user postgres that its package has made."""

    def __init__(self) -> None:
        require_programs()
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="bitnet-postgres-"))
        self.as_user: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
            self.as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        password = self.folder / "password"
        password.write_text(PASSWORD)
        self._run("initdb", "--pgdata", self.folder / "data", "--username=bitnet", f"--pwfile={password}",
                  "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8")  # fmt: skip
        with (self.folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(f"port={self.port}\nlisten_addresses='127.0.0.1'\nunix_socket_directories='{self.folder}'\n"
                           "fsync=off\nshared_buffers=16MB\nmax_connections=60\n")  # fmt: skip
        self.start()

    def url(self, database: str) -> str:
        return f"postgresql://bitnet:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        self._run("pg_ctl", "--pgdata", self.folder / "data", "--wait", "--log", self.folder / "log", "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "--pgdata", self.folder / "data", "--wait", "--mode", mode, "stop")

    def freeze(self, frozen: bool) -> None:
        """Its connections stay open and are not answered."""
        number = signal.SIGSTOP if frozen else signal.SIGCONT
        parent = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        children = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False).stdout
        for pid in (parent, *map(int, children.split())):
            os.kill(pid, number)

    def secure(self, authority: Authority) -> None:
        """TLS beside what there is; the other connections stay."""
        for source, name in ((authority.certificate, "server.crt"), (authority.key, "server.key")):
            target = self.folder / "data" / name
            shutil.copy(source, target)
            target.chmod(0o600)
            if self.as_user:
                shutil.chown(target, "postgres", "postgres")
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET ssl = on")
            connection.execute("SELECT pg_reload_conf()")

    def create(self, name: str) -> str:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def remove(self) -> None:
        self.freeze(False)
        self.stop()
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: object) -> None:
        command = [*self.as_user, str(PROGRAMS / program), *map(str, arguments)]
        # pg_ctl hands its output on to the server, which would keep a pipe open.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(command, stdout=output, stderr=output, cwd="/", timeout=60, check=False)
            output.seek(0)
            assert done.returncode == 0, output.read().decode()


class RedisServer:
    def __init__(self, authority: Authority | None = None) -> None:
        require_programs()
        self.port = free_port()
        self.authority = authority
        self.folder = Path(tempfile.mkdtemp(prefix="bitnet-redis-"))
        self.url = f"redis{'s' if authority else ''}://:{PASSWORD}@127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        settings = f"port {self.port}\nbind 127.0.0.1\nrequirepass {PASSWORD}\nsave ''\nappendonly no\n"
        if self.authority:
            settings += (
                f"port 0\ntls-port {self.port}\ntls-auth-clients no\ntls-ca-cert-file {self.authority.ca}\n"
                f"tls-cert-file {self.authority.certificate}\ntls-key-file {self.authority.key}\n"
            )
        (self.folder / "redis.conf").write_text(settings)
        self.process = subprocess.Popen(
            ["redis-server", self.folder / "redis.conf"], stdout=subprocess.DEVNULL, cwd=self.folder
        )
        deadline = time.monotonic() + 10
        while not self._answers():
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except redis.exceptions.RedisError:
            return False

    def client(self) -> redis.Redis:
        trust = {"ssl_ca_certs": str(self.authority.ca)} if self.authority else {}
        return redis.Redis.from_url(self.url, decode_responses=True, **trust)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def freeze(self, frozen: bool) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)
