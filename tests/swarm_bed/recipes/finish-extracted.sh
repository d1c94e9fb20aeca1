#!/bin/sh
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# finish-extracted ROOT: makes a root of packages that were only unpacked fit to run. No maintainer script has run in it.
set -eu
root=$1
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
for folder in bin sbin lib lib64; do
    [ -e "$root/$folder" ] || ln -s "usr/$folder" "$root/$folder"
done
# What update-alternatives and diversions would have linked.
[ -e "$root/usr/bin/sh" ] || ln -s dash "$root/usr/bin/sh"
[ -e "$root/usr/bin/awk" ] || ln -s mawk "$root/usr/bin/awk"
mkdir -p "$root/tmp" "$root/run" "$root/var" "$root/proc" "$root/sys" "$root/dev" "$root/root"
chmod 1777 "$root/tmp"
for folder in run lock; do
    rm -rf "${root:?}/var/$folder"
done
ln -s /run "$root/var/run"
ln -s /run/lock "$root/var/lock"
ln -sf /usr/share/zoneinfo/UTC "$root/etc/localtime"
# Perl comes by postgresql-common, LLVM by the just-in-time compiler; PostgreSQL runs without either.
for unwanted in \
    "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/info "$root"/usr/share/locale "$root"/usr/share/i18n \
    "$root"/usr/share/perl* "$root"/usr/share/lintian "$root"/usr/share/bash-completion "$root"/usr/bin/perl* \
    "$root"/usr/lib/*-linux-gnu/perl* "$root"/usr/lib/*-linux-gnu/libperl* "$root"/usr/lib/*-linux-gnu/libLLVM* \
    "$root"/usr/lib/llvm-* "$root"/usr/lib/postgresql/*/lib/bitcode "$root"/usr/lib/postgresql/*/lib/llvmjit* \
    "$root"/usr/lib/systemd "$root"/usr/lib/udev "$root"/var/lib/apt "$root"/var/cache/apt; do
    rm -rf "$unwanted"
done
ldconfig -r "$root"
