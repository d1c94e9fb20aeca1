#!/bin/sh
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# finish-postgres ROOT MAJOR: the parts of the official image's contract that lie in files. Runs after finish-extracted.
set -eu
root=$1 major=$2
echo "postgres:x:999:999::/var/lib/postgresql:/bin/bash" >>"$root/etc/passwd"
echo "postgres:x:999:" >>"$root/etc/group"
install -d -o 999 -g 999 -m 1777 "$root/var/lib/postgresql"
[ "$major" -ge 18 ] || install -d -o 999 -g 999 -m 1777 "$root/var/lib/postgresql/data"
install -d -o 999 -g 999 -m 3777 "$root/run/postgresql"
mkdir -p "$root/docker-entrypoint-initdb.d"
sed -i "s/^#listen_addresses = 'localhost'/listen_addresses = '*'/" "$root/usr/share/postgresql/$major/postgresql.conf.sample"
