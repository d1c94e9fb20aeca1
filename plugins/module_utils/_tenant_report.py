# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the options of the module tenant_database to orders, and from what became of them to its answer."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence, Tuple

from ._errors import PoolsError
from ._tenant import wanted
from ._tenant_servers import Orders, Outcome, Server, converge, group

_LOGIN = ("login_host", "login_port", "login_user", "login_password")
# What a server with TLS asks for: options of one database, on the right as those of the connection.
_TLS = {"login_ssl_mode": "ssl_mode", "login_ca_certificate": "ca_certificate"}
_CONNECTION = (
    *_LOGIN,
    "login_unix_socket",
    "ssl_mode",
    "ca_cert",
    "ssl_cert",
    "ssl_key",
    "connect_params",
    "connect_timeout",
    "ca_certificate",
)


def arrange(params: Mapping[str, Any], check_mode: bool) -> Tuple[List[Server], Orders]:
    """Check all options before anything is touched.

    :raises PoolsError: one cannot be; the message says which.
    """
    for option in ("max_parallel", "connect_timeout"):
        if not 1 <= params[option] <= 1000:
            raise PoolsError(f"{option} is {params[option]}.", "Give a number from 1 to 1000.")
    items = []
    for raw in params["databases"]:
        login = {option: params.get(option) for option in _CONNECTION}
        login.update((option, raw[option]) for option in _LOGIN if raw.get(option) not in (None, ""))
        login.update((keyword, raw[option]) for option, keyword in _TLS.items() if raw.get(option))
        items.append((login, wanted(raw, params["state"])))
    return group(items), Orders(params["state"], params["max_parallel"], params["require_wall"], check_mode)


def answer(servers: Sequence[Server], orders: Orders) -> Dict[str, Any]:
    """Carry the orders out, and say what became of them in the module's words."""
    outcomes = converge(servers, orders)
    of_servers = [outcome for outcome in outcomes if outcome.wanted is None]
    of_databases = [outcome for outcome in outcomes if outcome.wanted is not None]
    broken = {(outcome.host, outcome.port): outcome.error for outcome in of_servers if outcome.error}
    for outcome in of_databases:
        outcome.error = broken.get((outcome.host, outcome.port), outcome.error)
    result: Dict[str, Any] = {
        "changed": any(outcome.changed for outcome in outcomes),
        "failed": any(outcome.error for outcome in outcomes),
        "databases": [_show(outcome) for outcome in of_databases],
        "servers": [_show(outcome) for outcome in of_servers],
        "diff": {"before": _side(outcomes, "before"), "after": _side(outcomes, "after")},
    }
    if result["failed"]:
        result["msg"] = _complain(of_servers, of_databases)
    return result


def _show(outcome: Outcome) -> Dict[str, Any]:
    names = {"name": outcome.wanted.name, "owner": outcome.wanted.owner} if outcome.wanted else {}
    return dict(
        names,
        host=outcome.host,
        port=outcome.port,
        changed=outcome.changed,
        actions=outcome.actions,
        failed=bool(outcome.error),
        msg=outcome.error or "",
    )


def _side(outcomes: Sequence[Outcome], side: str) -> Dict[str, Any]:
    changed = [outcome for outcome in outcomes if outcome.changed]
    return {
        "{}:{}/{}".format(outcome.host, outcome.port, outcome.wanted.name if outcome.wanted else ""): {
            step.words: getattr(step, side) for step in outcome.steps if step.words
        }
        for outcome in changed
    }


def _complain(of_servers: Sequence[Outcome], of_databases: Sequence[Outcome]) -> str:
    failed = [outcome for outcome in of_databases if outcome.error]
    parts = []
    for server in of_servers:
        mine = [outcome for outcome in failed if (outcome.host, outcome.port) == (server.host, server.port)]
        where = f"{server.host} port {server.port}"
        if server.error:
            names = ", ".join(outcome.wanted.name for outcome in mine if outcome.wanted)
            parts.append(f"{where} (databases {names}): {server.error}")
            continue
        parts += [f"{where}, database {outcome.wanted.name}: {outcome.error}" for outcome in mine if outcome.wanted]
    return "{} of {} databases failed. {}".format(len(failed), len(of_databases), " ".join(parts))
