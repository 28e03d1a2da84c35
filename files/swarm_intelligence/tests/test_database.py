# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connection and schema, with a real PostgreSQL."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from api_lab import settings_with, wait_until
from data_lab import PASSWORD, Authority, RedisServer
from swarm_intelligence import data as service_data
from swarm_intelligence import schema
from swarm_intelligence.database import Source, metadata
from swarm_intelligence.migrate import MigrationError, _furthest, _refuse, upgrade
from swarm_intelligence.schema import MAXIMUM, MINIMUM, Schema
from swarm_intelligence.settings import SettingsError

IMAGES = Path(__file__).resolve().parents[2] / "images"


def execute(url, statement):
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement)


def test_up_and_down_and_up(url_file, database_url):
    source = Source(url_file)
    assert upgrade(source) == ("", MAXIMUM)
    assert upgrade(source) == (MAXIMUM, MAXIMUM)
    with pytest.raises(MigrationError, match="--lose-data"):
        upgrade(source, "0001")
    assert upgrade(source, "0001", lose_data=True) == (MAXIMUM, "0001")
    with psycopg.connect(database_url) as connection:
        tables = {row[0] for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    assert tables == {"alembic_version", "schema_compatibility", "api_keys"}
    assert upgrade(source) == ("0001", MAXIMUM)


def test_migrations_make_what_the_code_knows(url_file):
    source = Source(url_file)
    upgrade(source)
    with source.engine().connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_two_at_once_wait_for_each_other(url_file):
    results = []
    threads = [threading.Thread(target=lambda: results.append(upgrade(Source(url_file)))) for _unused in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == [("", MAXIMUM), *[(MAXIMUM, MAXIMUM)] * 3]


def test_a_contracting_migration_is_a_decision():
    line = {"0001": "expand", "0002": "expand", "0003": "contract", "0004": "expand"}
    assert _furthest(line, "0001", contract=False) == "0002"
    assert _furthest(line, "0003", contract=False) == "0004"
    assert _furthest(line, "", contract=True) == "0004"
    with pytest.raises(MigrationError, match="--contract"):
        _refuse(line, "0002", "0004", contract=False, lose_data=False)
    _refuse(line, "0002", "0004", contract=True, lose_data=False)


@pytest.mark.parametrize(
    ("revision", "oldest", "minimum", "maximum", "works"),
    [
        ("0003", "0001", "0003", "0003", True),
        ("0005", "0001", "0003", "0003", True),  # only added since
        ("0005", "0003", "0003", "0003", True),
        ("0005", "0004", "0003", "0003", False),  # taken away what it uses
        ("0005", "0004", "0003", "0004", True),
        ("0002", "0001", "0003", "0003", False),  # not there yet
        ("", "", "0003", "0003", False),
    ],
)
def test_which_releases_a_schema_lets_work(revision, oldest, minimum, maximum, works):
    assert (Schema(revision, oldest).problem(minimum, maximum) == "") is works


def test_the_image_says_which_schemas_it_works_with():
    """A rollback is judged by this label, while nothing of the image may run."""
    label = re.search(r'io\.bitnet\.schemas="([^"]+)"', (IMAGES / "Dockerfile").read_text())
    assert label is not None and label[1] == f"{MINIMUM}-{MAXIMUM}"


def test_check_and_migrate_from_the_command_line(run, url_file, database_url, monkeypatch):
    code, document, _said = run("database", "check", "--json", "--url-file", url_file)
    assert (code, document["problem"]) == (1, "the database is empty")
    monkeypatch.setenv("BITNET_DATABASE_URL_FILE", str(url_file))
    assert run("database", "migrate", "--json")[:2] == (0, {"changed": True, "before": "", "after": MAXIMUM})
    assert run("database", "migrate", "--json")[:2] == (0, {"changed": False, "before": MAXIMUM, "after": MAXIMUM})
    assert run("database", "check", "--json")[0] == 0
    execute(database_url, "UPDATE alembic_version SET version_num = '0009'")
    assert run("database", "check", "--json")[0] == 0
    execute(database_url, "UPDATE schema_compatibility SET oldest = '0008'")
    code, document, _said = run("database", "check", "--json")
    assert (code, "need to know up to 0008" in document["problem"]) == (1, True)
    assert run("database", "check", "--json", "--release", "0003-0008")[0] == 0
    assert run("database", "migrate", "--json")[:2] == (0, {"changed": False, "before": "0009", "after": "0009"})
    code, _none, said = run("database", "migrate", "--json", "--to", "0042")
    assert (code, "no revision; there are 0001, 0002, 0003" in said) == (1, True)


def test_what_is_wrong_is_said_without_the_password(run, tmp_path, url_file, monkeypatch):
    monkeypatch.delenv("BITNET_DATABASE_URL_FILE", raising=False)
    assert "--url-file is needed" in run("database", "check", "--json")[2]
    bad = tmp_path / "bad"
    for text in (f"mysql://u:{PASSWORD}@h/d", f"postgresql://u:{PASSWORD}@h:port/d?nonsense=1", "", "\0"):
        bad.write_text(text)
        code, _none, said = run("database", "check", "--json", "--url-file", bad)
        assert (code, "--url-file" in said, PASSWORD in said) == (2, True, False), text
    bad.write_text(url_file.read_text().replace("127.0.0.1", "127.0.0.2"))
    code, _none, said = run("database", "check", "--json", "--url-file", bad)
    assert (code, PASSWORD in said) == (3, False)
    bad.write_text(url_file.read_text().replace(PASSWORD, PASSWORD[::-1]))
    code, _none, said = run("keys", "list", "--json", "--url-file", bad)
    assert (code, "password authentication failed" in said, PASSWORD[::-1] in said) == (3, True, False)


def test_files_that_are_named_must_be_usable(tmp_path, url_file):
    named = {
        "BITNET_DATABASE_URL_FILE": {"database_url_file": str(tmp_path / "missing")},
        "BITNET_REDIS_URL_FILE": {"redis_url_file": str(url_file)},
        "BITNET_DATABASE_CA_FILE": {"database_url_file": str(url_file), "database_ca_file": str(tmp_path / "missing")},
        "BITNET_REDIS_CA_FILE": {"redis_url_file": str(url_file), "redis_ca_file": str(url_file)},
    }
    for name, variables in named.items():
        with pytest.raises(SettingsError, match=name) as error:
            service_data.check(settings_with(**variables))
        assert PASSWORD not in str(error.value)


def test_a_service_brings_its_schema(start_api, data):
    first, second = start_api(**data), start_api(**data)
    for api in (first, second):
        wait_until(lambda api=api: api.service.data.database.up)
    assert first.get("/ready", authorized=False).json() == {"ready": True, "database": "up", "redis": "up"}
    said = first.get("/api").json()["database"]
    assert said["schema"] == {"revision": MAXIMUM, "oldest": "0001"}
    assert said["release"] == {"minimum": schema.MINIMUM, "maximum": MAXIMUM}
    assert said["usable"] is True
    assert first.metric("bitnet_database_up") == 1


def test_it_leaves_the_schema_to_others_when_told(start_api, data):
    api = start_api(**data, database_migrate="never")
    wait_until(lambda: "empty" in api.service.data.database.reason)
    assert api.get("/ready", authorized=False).json()["database"] == "away"
    assert api.post("/v1/completions", {"prompt": "Hi"}).status_code == 200
    upgrade(Source(Path(data["database_url_file"])))
    wait_until(lambda: api.service.data.database.up)


def test_a_schema_that_is_too_new_is_not_touched(start_api, data, database_url):
    api = start_api(**data)
    wait_until(lambda: api.service.data.database.up)
    execute(database_url, "UPDATE alembic_version SET version_num = '0009'")
    execute(database_url, "UPDATE schema_compatibility SET oldest = '0008'")
    wait_until(lambda: not api.service.data.database.up)
    said = api.get("/api").json()["database"]
    assert said["usable"] is False
    assert "this release knows 0003" in said["reason"]
    assert api.post("/v1/completions", {"prompt": "Hi"}).status_code == 200
    assert execute(database_url, "SELECT version_num FROM alembic_version").fetchone() == ("0009",)


def test_nothing_is_said_where_nothing_is_set(api):
    assert api.get("/ready", authorized=False).json() == {"ready": True}
    assert not {"database", "redis"} & set(api.get("/api").json())
    assert "bitnet_database_up" not in api.get("/metrics").text
    assert api.get("/v1/jobs/x").status_code == 404


def test_a_container_whose_files_are_missing_does_not_start(tmp_path):
    (tmp_path / "tokens").write_text(json.dumps({"schema": 1, "tokens": {"tests": "0" * 64}}))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "BITNET_TOKENS_FILE": str(tmp_path / "tokens"),
        "BITNET_DATABASE_URL_FILE": "/run/secrets/missing",
    }
    done = subprocess.run(
        [sys.executable, "-m", "swarm_intelligence.orchestrator"], env=environment, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, "BITNET_DATABASE_URL_FILE='/run/secrets/missing'" in done.stdout) == (78, True)


def test_tls_with_a_ca_of_ones_own(start_api, data, postgres, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "other").mkdir()
    ours, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    postgres.secure(ours)
    secure_redis = RedisServer(ours)
    try:
        (tmp_path / "redis-url").write_text(secure_redis.url)
        trusting = start_api(**data, database_ca_file=str(ours.ca), redis_ca_file=str(ours.ca))
        wait_until(lambda: trusting.service.data.states() == {"database": "up", "redis": "up"})
        assert execute(Path(data["database_url_file"]).read_text().strip(), "SHOW ssl").fetchone() == ("on",)
        wrong = start_api(**data, database_ca_file=str(other.ca), redis_ca_file=str(other.ca))
        wait_until(lambda: "certificate verify failed" in wrong.service.data.database.reason)
        wait_until(lambda: "certificate verify failed" in wrong.service.data.redis.reason.lower())
        assert wrong.service.data.states() == {"database": "away", "redis": "away"}
    finally:
        secure_redis.remove()


def test_both_away_at_the_start_and_there_later(start_api, data, postgres, redis_server):
    postgres.stop()
    redis_server.stop()
    try:
        api = start_api(**data, requests_per_minute="600")
        assert api.post("/v1/completions", {"prompt": "Hi"}).status_code == 200
        said = {"ready": True, "database": "away", "redis": "away"}
        assert api.get("/ready", authorized=False).json() == said
        assert PASSWORD not in api.get("/api").text
        refused = api.post("/v1/jobs", {"url": "/v1/completions", "body": {"prompt": "Hi"}})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "jobs_unavailable")
    finally:
        postgres.start()
        redis_server.start()
    wait_until(lambda: api.service.data.states() == {"database": "up", "redis": "up"})
    wait_until(lambda: api.metric('bitnet_ledger_rows_total{kind="written"}') == 1)
