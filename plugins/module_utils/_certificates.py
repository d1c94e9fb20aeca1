# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module ``server_certificate``: its options, and one call of it from the checked arguments to the result."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping

from . import _authority, _served
from ._errors import PoolsError
from ._inventory import Inventory
from ._secrets import Cipher

OPTIONS: Dict[str, Any] = dict(
    state=dict(type="str", default="issued", choices=["issued", "served"]),
    servers=dict(type="list", elements="str", required=True),
    requests=dict(type="dict", default={}),
    certificates=dict(type="dict", default={}),
    authority=dict(
        type="dict",
        options=dict(
            certificate=dict(type="path", required=True),
            key=dict(type="path", required=True, no_log=False),
        ),
    ),
    alternative_names=dict(type="list", elements="str", default=[]),
    days=dict(type="float", default=90.0),
    force=dict(type="bool", default=False),
    timeout=dict(type="float", default=10.0),
)
_ROWS = """SELECT name, host, port, swarm_service_name, tls, certificate_expires_at, admin_user, admin_password_encrypted
    FROM db_servers WHERE name = ANY (%(names)s)"""


def work(params: Mapping[str, Any], inventory: Inventory, cipher: Cipher) -> Dict[str, Any]:
    """Sign what is due, or see that it is served; the module's result."""
    wanted = params["servers"]
    rows = {row["name"]: row for row in inventory.rows(_ROWS, {"names": wanted})}
    for name in wanted:
        if name not in rows:
            raise PoolsError(
                "There is no server {0!r} in the inventory database.".format(name),
                "playbooks/pools.yml lists those there are.",
            )
        if not rows[name]["tls"]:
            raise PoolsError(
                "Server {0!r} has no TLS.".format(name), "Servers made with tls in postgres_pools_new_server have."
            )
    if not 0 < params["days"] <= 3650:
        raise PoolsError("days is {0}.".format(params["days"]), "Give a number above 0, of at most 3650.")
    return (_issue if params["state"] == "issued" else _serve)(params, inventory, cipher, rows)


def _issue(
    params: Mapping[str, Any], inventory: Inventory, cipher: Cipher, rows: Mapping[str, Mapping[str, Any]]
) -> Dict[str, Any]:
    authority, is_new = _authority.kept(inventory, cipher, params["authority"])
    issued = [_issue_one(rows[name], authority, params, inventory.dry_run) for name in params["servers"]]
    warning = _authority.warning(authority)
    return {
        "changed": is_new or any(one["changed"] for one in issued),
        "authority": authority.name,
        "ca_certificate": _authority.trusted(inventory),
        "certificates": issued,
        "warnings": [warning] if warning else [],
        "diff": {
            "before": "",
            "after": "".join(
                [
                    *(["authority {0}: new\n".format(authority.name)] if is_new else []),
                    *("certificate of {name}: {reason}\n".format(**one) for one in issued if one["changed"]),
                ]
            ),
        },
    }


def _issue_one(
    row: Mapping[str, Any], authority: _authority.Authority, params: Mapping[str, Any], dry_run: bool
) -> Dict[str, Any]:
    request, present = params["requests"].get(row["name"]), params["certificates"].get(row["name"])
    told: Dict[str, Any] = {"name": row["name"], "certificate": present, "changed": False, "reason": ""}
    if not request:
        if not dry_run:
            raise PoolsError(
                "There is no request for a certificate of {0}.".format(row["name"]),
                "The module server_key makes it where the server's key lies.",
            )
        # Under --check a key that is still to be made has no request.
        return dict(told, changed=True, reason="there is none", expires_at=None)
    names = _authority.names_of(row, params["alternative_names"])
    reason = _authority.why_renew(authority, request, present, names)
    if reason is None and params["force"]:
        reason = "it was asked for"
    if reason is not None:
        signed = _authority.sign(authority, request, names, params["days"])
        told.update(certificate=signed, changed=True, reason=reason)
    told["expires_at"] = _told(_authority.expires_at(_authority.certificates_from(told["certificate"])[0]))
    return told


def _serve(
    params: Mapping[str, Any], inventory: Inventory, cipher: Cipher, rows: Mapping[str, Mapping[str, Any]]
) -> Dict[str, Any]:
    trusted = _authority.trusted(inventory)
    if not trusted and inventory.dry_run:
        # The authority would have been made before; there is nothing yet to look at the servers by.
        return {"changed": False, "served": [], "ca_certificate": ""}
    if not trusted:
        raise PoolsError("The inventory database has no authority.", "Issue certificates first.")

    def serve_one(name: str) -> Dict[str, Any]:
        row, wanted = rows[name], params["certificates"].get(name)
        login = {
            "login_host": row["host"],
            "login_port": row["port"],
            "login_user": row["admin_user"],
            "login_password": cipher.decrypt(row["admin_password_encrypted"], "server {0}".format(row["name"])),
        }
        try:
            found = _served.ensure(login, trusted, wanted, params["timeout"], inventory.dry_run)
        except PoolsError as error:
            return {"name": row["name"], "reloaded": False, "expires_at": None, "msg": str(error)}
        return {"name": row["name"], "reloaded": found.reloaded, "expires_at": found.expires_at, "msg": ""}

    # One server's trouble is told beside the others' success.
    seen = _served.side_by_side(serve_one, params["servers"])
    changed = False
    for told in seen:
        changed |= told["reloaded"]
        if told["expires_at"] is not None:
            changed |= told["expires_at"] != rows[told["name"]]["certificate_expires_at"]
            inventory.execute(
                "UPDATE db_servers SET certificate_expires_at = %(expires_at)s"
                " WHERE name = %(name)s AND certificate_expires_at IS DISTINCT FROM %(expires_at)s",
                told,
            )
            told["expires_at"] = _told(told["expires_at"])
    return {"changed": changed, "served": seen, "ca_certificate": trusted, "diff": _diff(rows, seen)}


def _diff(rows: Mapping[str, Mapping[str, Any]], seen: List[Dict[str, Any]]) -> Dict[str, Any]:
    before = {name: _told(row["certificate_expires_at"]) for name, row in rows.items()}
    after = {one["name"]: one["expires_at"] or before[one["name"]] for one in seen}
    return {"before": {"expires": before}, "after": {"expires": after}}


def _told(moment: Any) -> Any:
    return moment.astimezone(_authority.UTC).isoformat(timespec="seconds") if moment else None
