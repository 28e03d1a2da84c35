# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Adds to a stage of ./Dockerfile what kernels take that not every site builds:
#   PURPOSE=cross     on builder   compilers for aarch64
#   PURPOSE=cargo     on builder   Rust
#   PURPOSE=emulate   on runtime   qemu-user, and the libraries that kernels for aarch64 link to
# A file of its own, since the builder of Docker 20.10 makes all stages that stand before the one it is asked for.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
USER root
ARG PURPOSE
RUN machine=$(dpkg --print-architecture) \
    && case "${PURPOSE} ${machine}" in \
        "cross amd64") packages="g++-aarch64-linux-gnu" ;; \
        "cargo "*) packages="cargo rustc" ;; \
        "emulate amd64") packages="qemu-user-static libc6-arm64-cross libgomp1-arm64-cross libstdc++6-arm64-cross" ;; \
        "emulate "*) packages="qemu-user-static" ;; \
        *) echo "PURPOSE='${PURPOSE}' on ${machine}: it must be cross (on amd64 alone), cargo or emulate" >&2; exit 1 ;; \
    esac \
    && apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ${packages} \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
