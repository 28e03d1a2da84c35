#!/bin/sh
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# entrypoint.sh etcd | postgresql | pgbouncer | redis    runs that part of a member
# entrypoint.sh check                                    says whether HAProxy takes the configuration on standard input
# entrypoint.sh write                                    proves through this member's PgBouncer that the leader takes a write
# entrypoint.sh console COMMAND                          one command of PgBouncer's console, as in PAUSE
# entrypoint.sh redis-cli | sentinel-cli ARGUMENT...     redis-cli, to this member's Redis or Sentinel, with its password
# entrypoint.sh managed-postgresql | managed-redis       proves that what somebody else runs answers
#
# Programs get their settings from the environment and from files of the Swarm. Passwords are in files only.
set -eu
data=/var/lib/bitnet-database
run=/run/bitnet-database
settings=/etc/bitnet-database
secrets=/run/secrets
address=${DATABASE_ADDRESS:-127.0.0.1}
umask 077

# Prints the password of a user of PgBouncer.
password_of() {
    sed -n "s/^\"$1\" \"\(.*\)\"\$/\1/p" "$secrets/userlist.txt"
}

# Runs the SQL on standard input: password, then what psql connects to.
sql() {
    PGPASSWORD=$1 PGCONNECT_TIMEOUT=5
    export PGPASSWORD PGCONNECT_TIMEOUT
    psql --no-psqlrc --quiet --no-align --tuples-only --set=ON_ERROR_STOP=1 "$2"
}

pgbouncer_sql() {
    sql "$(password_of "$1")" \
        "host=127.0.0.1 port=$DATABASE_PGBOUNCER_PORT dbname=$2 user=$1 sslmode=verify-full sslrootcert=$settings/ca.crt"
}

# A table that goes with its transaction is written like any other, waits for the standby like any other, and leaves nothing.
proof() {
    cat <<'SQL'
BEGIN;
SET LOCAL statement_timeout = '20s';
CREATE TEMPORARY TABLE bitnet_proof (at timestamptz) ON COMMIT DROP;
INSERT INTO bitnet_proof VALUES (now());
COMMIT;
SELECT 'written by ' || coalesce(inet_server_addr()::text, 'nobody');
SQL
}

# redis-cli reads the variable, so that nobody sees the password in the list of processes.
redis_command() {
    REDISCLI_AUTH=$1 authority=$2 host=$3 port=$4
    export REDISCLI_AUTH
    shift 4
    timeout 10 redis-cli --no-auth-warning --tls --cacert "$authority" -h "$host" -p "$port" "$@"
}

own_redis_command() {
    port=$1
    shift
    redis_command "$(sed -n 's/^requirepass //p' "$secrets/redis.conf")" "$settings/ca.crt" "$address" "$port" "$@"
}

case "${1:-}" in
    etcd)
        mkdir -p "$data/etcd"
        exec /usr/bin/python3 -I /usr/local/bin/keep.py etcd
        ;;
    postgresql)
        mkdir -p "$data/postgresql"
        exec /usr/bin/python3 -I /usr/local/bin/keep.py patroni "$settings/patroni.yml"
        ;;
    pgbouncer)
        # The included file ends within [pgbouncer]; that section begun a second time would forget what the first one said.
        printf '%%include %s/pgbouncer.ini\nlisten_addr = %s,127.0.0.1\n' "$settings" "$address" > "$run/pgbouncer.ini"
        exec /usr/bin/python3 -I /usr/local/bin/keep.py haproxy -db -f "$settings/haproxy.cfg" -- pgbouncer "$run/pgbouncer.ini"
        ;;
    redis)
        # Of what Redis and its Sentinel have written themselves only who follows whom is kept; all else is as it is wanted now.
        followed=$(sed -n 's/^\(replicaof\|slaveof\) /replicaof /p' "$data/redis.conf" 2> /dev/null || true)
        if [ ! -e "$data/redis.conf" ] && [ "$DATABASE_REDIS_FIRST" != "$address" ]; then
            followed="replicaof $DATABASE_REDIS_FIRST $DATABASE_REDIS_PORT"
        fi
        {
            printf 'include %s/redis.conf\ninclude %s/redis.conf\n' "$settings" "$secrets"
            printf 'bind %s 127.0.0.1\nreplica-announce-ip %s\n%s\n' "$address" "$address" "$followed"
        } > "$data/redis.conf.new"
        mv -f "$data/redis.conf.new" "$data/redis.conf"
        if [ "${DATABASE_SENTINEL_PORT:-0}" = 0 ]; then
            exec /usr/bin/python3 -I /usr/local/bin/keep.py redis-server "$data/redis.conf"
        fi
        touch "$data/sentinel.conf"
        password=$(sed -n 's/^requirepass //p' "$secrets/redis.conf")
        known=$(sed -n -E '/^sentinel (myid|monitor|config-epoch|leader-epoch|current-epoch|known-replica|known-sentinel) /p' "$data/sentinel.conf")
        case "$known" in
            *'sentinel monitor'*) ;;
            *) known="sentinel monitor bitnet $DATABASE_REDIS_FIRST $DATABASE_REDIS_PORT $DATABASE_SENTINEL_QUORUM" ;;
        esac
        {
            printf '%s\n' "$known" | grep '^sentinel myid' || true
            printf '%s\n' "$known" | grep '^sentinel monitor'
            printf '%s\n' "$known" | grep -v -e '^sentinel myid' -e '^sentinel monitor' || true
            cat "$settings/sentinel.conf"
            printf 'requirepass %s\nsentinel auth-pass bitnet %s\n' "$password" "$password"
            printf 'bind %s 127.0.0.1\nsentinel announce-ip %s\n' "$address" "$address"
        } > "$data/sentinel.conf.new"
        mv -f "$data/sentinel.conf.new" "$data/sentinel.conf"
        exec /usr/bin/python3 -I /usr/local/bin/keep.py redis-server "$data/redis.conf" -- redis-server "$data/sentinel.conf" --sentinel
        ;;
    check) exec haproxy -c -f /dev/stdin ;;
    write) proof | pgbouncer_sql "$DATABASE_USER" "$DATABASE_NAME" ;;
    console) printf '%s;\n' "$2" | pgbouncer_sql pgbouncer pgbouncer ;;
    redis-cli)
        shift
        own_redis_command "$DATABASE_REDIS_PORT" "$@"
        ;;
    sentinel-cli)
        shift
        own_redis_command "$DATABASE_SENTINEL_PORT" "$@"
        ;;
    managed-postgresql)
        proof | sql "$(cat /folder/postgresql)" "host=$DATABASE_HOST port=$DATABASE_PORT dbname=$DATABASE_NAME user=$DATABASE_USER sslmode=$DATABASE_SSLMODE sslrootcert=/folder/managed-postgresql.crt"
        ;;
    managed-redis) redis_command "$(cat /folder/redis)" /folder/managed-redis.crt "$DATABASE_REDIS_HOST" "$DATABASE_REDIS_PORT" ping ;;
    *)
        echo "database: '${1:-}' is no command: etcd, postgresql, pgbouncer, redis, check, write, console, redis-cli or sentinel-cli" >&2
        exit 2
        ;;
esac
