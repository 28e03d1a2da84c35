#!/bin/sh
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Two environments of ours and, beside them, things of somebody else.
set -eu
image=debian:bookworm-slim
ours='--label io.bitnet.owner=bitnet.devops'

printf 'FROM %s\nRUN touch /ours\n' "$image" | docker build --quiet $ours --tag bitnet/ours:1 -
printf 'FROM %s\nRUN touch /used\n' "$image" | docker build --quiet $ours --tag bitnet/used:1 -
docker volume create $ours bitnet-registry-data
docker run --detach --name bitnet-registry $ours --label io.bitnet.registry=127.0.0.1:5000 --volume bitnet-registry-data:/data "$image" sleep infinity
for environment in local staging; do
    labels="$ours --label io.bitnet.environment=$environment"
    printf 'secret' | docker secret create $labels "bitnet-$environment-tokens" -
    printf 'config' | docker config create $labels "bitnet-$environment-edge" -
    docker volume create $labels "bitnet-$environment-data"
    docker service create --detach --quiet --name "bitnet-$environment-blue" $labels --container-label io.bitnet.owner=bitnet.devops \
        --container-label "io.bitnet.environment=$environment" --network "bitnet-$environment" --endpoint-mode dnsrr \
        --secret "bitnet-$environment-tokens" --config "bitnet-$environment-edge" --stop-grace-period 2s "$image" sleep infinity
    docker run --detach --name "bitnet-$environment-probe" $labels --network "bitnet-$environment" "$image" sleep infinity
    mkdir -p "/var/lib/bitnet/environments/$environment/tokens"
done
mkdir -p /var/lib/bitnet/cache/ccache /var/lib/bitnet/context /var/lib/bitnet/registry
touch /var/lib/bitnet/cache/ccache/kept

docker network create --driver overlay theirs
printf 'secret' | docker secret create theirs -
printf 'config' | docker config create theirs -
docker volume create theirs
docker service create --detach --quiet --name theirs --network theirs --endpoint-mode dnsrr "$image" sleep infinity
docker run --detach --name theirs "$image" sleep infinity
docker run --detach --name theirs-on-ours bitnet/used:1 sleep infinity

for service in bitnet-local-blue bitnet-staging-blue theirs; do
    for _ in $(seq 60); do
        [ "$(docker service ls --filter "name=$service" --format '{{.Replicas}}')" = 1/1 ] && continue 2
        sleep 1
    done
    echo "service $service does not run" >&2
    exit 1
done
