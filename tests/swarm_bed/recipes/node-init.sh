#!/bin/sh
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The first process of a node container. It is not privileged (a machine may lack a capability that --privileged asks for), so what Docker
# mounts read-only for such a container is made writable here, and the root shared, as dockerd's bind mounts want it.
mount -o remount,rw /sys 2>/dev/null
for folder in /sys/fs/cgroup /sys/fs/cgroup/*; do
    mount -o remount,bind,rw "$folder" 2>/dev/null
done
mount --make-rshared /
mkdir -p /run/ceph
exec tini -s -- dockerd "$@"
