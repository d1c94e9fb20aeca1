#!/usr/bin/env bash
# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Entrypoint of the test bed's PostgreSQL image. It keeps what the official image promises: the same variables (each also as NAME_FILE),
# the same places, the same first start. Commands other than postgres are run as they are.
set -Eeuo pipefail

fail() {
    echo "Error: $*" >&2
    exit 1
}

# The value of a variable, or of the file that NAME_FILE names, or a default. It is exported, as the official image does, to survive gosu: so
# a password from a file is in PostgreSQL's environment here too, and a test that looks for it there finds what it would find in production.
setting() {
    local name=$1 default=${2-} file=${1}_FILE
    if [[ -n ${!name-} && -n ${!file-} ]]; then
        fail "both $name and $file are set, but only one may be"
    elif [[ -n ${!file-} ]]; then
        printf -v "$name" '%s' "$(<"${!file}")"
    else
        printf -v "$name" '%s' "${!name-$default}"
    fi
    export "${name?}"
    unset "$file"
}

prepare_directories() {
    mkdir -p "$PGDATA" /run/postgresql
    chmod 0700 "$PGDATA" || true
    chmod 3775 /run/postgresql || true
    if [[ $(id -u) == 0 ]]; then
        find "$PGDATA" /run/postgresql \! -user postgres -exec chown postgres '{}' +
    fi
}

refuse_misplaced_volume() {
    if ((PG_MAJOR >= 18)) && grep -q ' /var/lib/postgresql/data ' /proc/self/mountinfo; then
        fail "a volume is mounted at /var/lib/postgresql/data, which PostgreSQL $PG_MAJOR does not use; mount it at /var/lib/postgresql"
    fi
}

# The words that are evaluated name one of its variables.
# shellcheck disable=SC2034
make_cluster() {
    [[ -n $POSTGRES_PASSWORD || $POSTGRES_HOST_AUTH_METHOD == trust ]] ||
        fail "the database is not initialised and no superuser password is given: set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE"
    local wal=()
    [[ -z ${POSTGRES_INITDB_WALDIR-} ]] || wal=(--waldir "$POSTGRES_INITDB_WALDIR")
    # The arguments are several words in one variable: that is the contract.
    eval "initdb --username=\"\$POSTGRES_USER\" --pwfile=<(printf '%s\n' \"\$POSTGRES_PASSWORD\") \"\${wal[@]}\" $POSTGRES_INITDB_ARGS"
    local method=$POSTGRES_HOST_AUTH_METHOD
    printf '\nhost all all all %s\n' "${method:-$(postgres -C password_encryption)}" >>"$PGDATA/pg_hba.conf"
}

run_sql() {
    psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --no-password --dbname "${1:-$POSTGRES_DB}"
}

run_initial_scripts() {
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh) if [[ -x $file ]]; then "$file"; else source "$file"; fi ;;
            *.sql) run_sql <"$file" ;;
            *.sql.gz) gunzip -c "$file" | run_sql ;;
        esac
    done
}

first_start() {
    make_cluster
    # Only by its socket, so that nobody takes it for ready.
    PGPASSWORD=$POSTGRES_PASSWORD
    export PGPASSWORD
    NOTIFY_SOCKET='' pg_ctl --pgdata "$PGDATA" --options "-c listen_addresses='' -p 5432" --wait start
    if [[ $POSTGRES_DB != postgres ]]; then
        run_sql postgres <<<"CREATE DATABASE \"${POSTGRES_DB//\"/\"\"}\""
    fi
    run_initial_scripts
    pg_ctl --pgdata "$PGDATA" --mode fast --wait stop
    unset PGPASSWORD
    echo "PostgreSQL init process complete; ready for start up."
}

[[ ${1-} != -* ]] || set -- postgres "$@"
if [[ ${1-} == postgres ]]; then
    refuse_misplaced_volume
    setting POSTGRES_PASSWORD
    setting POSTGRES_USER postgres
    setting POSTGRES_DB "$POSTGRES_USER"
    setting POSTGRES_INITDB_ARGS
    setting POSTGRES_HOST_AUTH_METHOD
    prepare_directories
    if [[ $(id -u) == 0 ]]; then
        exec gosu postgres "${BASH_SOURCE[0]}" "$@"
    fi
    [[ -s $PGDATA/PG_VERSION ]] || first_start
fi
exec "$@"
