# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pgBackRest's configuration from a declaration."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.bitnet.devops.plugins.filter import pgbackrest_config
from ansible_collections.bitnet.devops.plugins.module_utils._recovery import configuration
from ansible_collections.bitnet.devops.plugins.module_utils._recovery.errors import RecoveryError, seconds, spoken

PASS = "a-pass-of-sixteen"
POSIX = {"path": "/srv/backups", "cipher_pass": PASS}
S3 = {
    "type": "s3", "bucket": "bitnet-backups", "endpoint": "s3.eu-west-1.amazonaws.com", "region": "eu-west-1",
    "key": "AKIAEXAMPLE", "key_secret": "a-secret-of-the-bucket", "cipher_pass": PASS,
}  # fmt: skip
DECLARED = {"data": "/var/lib/postgresql/15/main", "repositories": [POSIX]}


def test_a_small_declaration_is_complete_and_safe():
    texts = configuration.render(DECLARED, 8)
    assert texts["config"].splitlines() == [
        "[global]",
        "start-fast=y",
        "compress-type=zst",
        "process-max=4",
        "archive-timeout=60",
        "log-path=/var/log/pgbackrest",
        "lock-path=/tmp/pgbackrest",
        "archive-async=y",
        "spool-path=/var/spool/pgbackrest",
        "repo1-type=posix",
        "repo1-path=/srv/backups",
        "repo1-bundle=y",
        "repo1-retention-full=2",
        "repo1-retention-full-type=count",
        "repo1-cipher-type=aes-256-cbc",
        "",
        "[main]",
        "pg1-path=/var/lib/postgresql/15/main",
        "pg1-port=5432",
        "pg1-socket-path=/var/run/postgresql",
    ]
    assert texts["secrets"] == f"[global]\nrepo1-cipher-pass={PASS}\n"


def test_secrets_are_in_their_own_text_only():
    texts = configuration.render({**DECLARED, "repositories": [POSIX, S3]}, 2)
    for secret in (PASS, S3["key"], S3["key_secret"]):
        assert secret in texts["secrets"] and secret not in texts["config"]
    assert "repo2-s3-bucket=bitnet-backups" in texts["config"] and "repo2-s3-uri-style=host" in texts["config"]


def test_wal_is_dropped_only_where_somebody_asks_for_it():
    assert "archive-push-queue-max" not in configuration.render(DECLARED, 2)["config"]
    texts = configuration.render({**DECLARED, "archive_push_queue_max": "4GiB"}, 2)
    assert "archive-push-queue-max=4GiB\n" in texts["config"]


@pytest.mark.parametrize("cpus, processes", [(1, 1), (2, 1), (7, 3), (64, 8)])
def test_the_database_keeps_half_of_the_processors(cpus, processes):
    assert f"process-max={processes}\n" in configuration.render(DECLARED, cpus)["config"]


@pytest.mark.parametrize(
    "change, says",
    [
        ({"stanza": "a b"}, "stanza: 'a b'"),
        ({"data": "relative"}, "data: 'relative' is no absolute path and has to be given"),
        ({"data": "/a/../etc"}, "data: '/a/../etc' is no absolute path"),
        ({"data": "/a\nrepo1-path=/b"}, r"data: '/a\\nrepo1-path=/b' has a control character"),
        ({"port": "70000"}, "port: '70000' is no whole number from 1 to 65535"),
        ({"port": True}, "port: True is no whole number"),
        ({"compress": "bz2"}, "compress: 'bz2' is none of zst, lz4, gz, none"),
        ({"archive_push_queue_max": "much"}, "archive_push_queue_max: 'much' is no size: .*leave it out"),
        ({"archive_async": "maybe"}, "archive_async: 'maybe' is neither true nor false"),
        ({"retention": 2}, "retention: there is no such option; there are .*repositories"),
        ({"repositories": []}, "repositories: give one to four"),
        ({"repositories": ["/srv"]}, r"repositories\[0\]: it is of type str, and no dictionary"),
        ({"repositories": [{"path": "/srv"}]}, r"repositories\[0\].cipher_pass: give at least 16 characters"),
        ({"repositories": [{**POSIX, "cipher_pass": "short-secret"}]}, r"repositories\[0\].cipher_pass: give at least"),
        ({"repositories": [{**POSIX, "cipher_pass": f"{PASS}\nx"}]}, r"cipher_pass: its value has a control character"),
        ({"repositories": [{**POSIX, "encrypted": False}]}, r"cipher_pass: it is given, and encrypted is false"),
        ({"repositories": [{**POSIX, "bucket": "b"}]}, r"repositories\[0\].bucket: it is of type s3"),
        ({"repositories": [POSIX, {**S3, "bucket": "A"}]}, r"repositories\[1\].bucket: 'A' is no name of a bucket"),
        ({"repositories": [{**S3, "endpoint": ""}]}, r"endpoint: '': an S3 repository needs it"),
        ({"repositories": [{**S3, "key_secret": None}]}, r"key_secret: give both, or key_type: auto"),
        ({"repositories": [{**POSIX, "retention_full": 0}]}, r"retention_full: 0 is no whole number from 1"),
    ],
)
def test_what_cannot_be_is_refused_and_no_secret_is_said(change, says):
    with pytest.raises(RecoveryError, match=says) as refusal:
        configuration.render({**DECLARED, **change}, 2)
    assert PASS not in str(refusal.value) and "short-secret" not in str(refusal.value)


def test_the_filter_says_so_as_ansible_does_and_shows_no_value():
    assert (
        pgbackrest_config.FilterModule().filters()["pgbackrest_config"](DECLARED, "4")["config"].startswith("[global]")
    )
    with pytest.raises(AnsibleFilterError, match="pgbackrest_config: a str was given") as refusal:
        pgbackrest_config.pgbackrest_config(PASS)
    assert PASS not in str(refusal.value)
    with pytest.raises(AnsibleFilterError, match=r"pgbackrest_config: data: .* has to be given"):
        pgbackrest_config.pgbackrest_config({"repositories": [POSIX]})


def test_the_cluster_of_a_stanza_is_found_again():
    text = configuration.render({**DECLARED, "port": 5999}, 2)["config"]
    found = configuration.of_cluster(text, "main")
    assert found["path"] == DECLARED["data"] and found["port"] == "5999"
    assert found["socket-path"] == "/var/run/postgresql" and found["spool-path"] == "/var/spool/pgbackrest"
    assert "path" not in configuration.of_cluster(text, "other")
    assert configuration.of_cluster("[global]\npg1-path = /a\n[main]\n  pg1-path=/b\n", "main") == {"path": "/b"}


@pytest.mark.parametrize(
    "text, number", [("45", 45), ("45s", 45), (" 5m", 300), ("24h", 86400), ("7d", 604800), (0, 0)]
)
def test_durations(text, number):
    assert seconds("max_age", text) == number


@pytest.mark.parametrize("text", ["", "-1", "1.5h", "1 day", "h", None])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(RecoveryError, match=r"max_age: .* is no duration: .*24h"):
        seconds("max_age", text)


@pytest.mark.parametrize(
    "number, text", [(5, "5 s"), (119.9, "119 s"), (150, "2.5 m"), (90_000, "25.0 h"), (864_000, "10.0 d")]
)
def test_durations_are_said(number, text):
    assert spoken(number) == text


def test_a_repository_that_is_no_dictionary_is_not_shown():
    with pytest.raises(RecoveryError, match=r"repositories\[0\]: it is of type str") as failure:
        configuration.render({**DECLARED, "repositories": [f"posix cipher_pass={PASS}"]}, 2)
    assert PASS not in str(failure.value)


@pytest.mark.parametrize("compress, most", [("zst", 22), ("lz4", 12), ("gz", 9)])
def test_each_compression_has_its_own_levels(compress, most):
    def level(number: int) -> dict[str, object]:
        return {**DECLARED, "compress": compress, "compress_level": number}

    assert f"compress-level={most}\n" in configuration.render(level(most), 2)["config"]
    with pytest.raises(RecoveryError, match=f"compress_level: {most + 1} is no whole number from .* to {most}"):
        configuration.render(level(most + 1), 2)
