# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The login to a server out of its row, as the modules take it. Pure."""

from __future__ import annotations

from typing import Any, Dict, Mapping


def with_login(row: Mapping[str, Any], **database: Any) -> Dict[str, Any]:
    """One of ``databases`` of the module ``tenant_database``: with the login of its server's administrator, out of that server's row."""
    login = dict(
        database,
        login_host=row["host"],
        login_port=row["port"],
        login_user=row["admin_user"],
        login_password_encrypted=row["admin_password_encrypted"],
    )
    if row.get("tls"):
        # Without an authority nothing can be verified, and libpq then refuses to connect.
        login.update(login_ssl_mode="verify-full", login_ca_certificate=row["ca_certificate"] or "")
    return login
