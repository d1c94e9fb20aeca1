# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which certificate a running server serves, seen by a TLS handshake as its clients make it, and having it serve another."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, List, Mapping, NamedTuple, Optional, Sequence, TypeVar

from ._authority import certificates_from, expires_at
from ._connection import connect
from ._errors import PoolsError

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
except ImportError:
    pass  # _secrets.CRYPTOGRAPHY_IMPORT_ERROR tells the module

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
# A reload takes some milliseconds; a server whose disk hangs may take longer.
_RELOAD_SECONDS = 15.0
_PAUSE_SECONDS = 0.05
_MAX_PARALLEL = 16
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Seen(NamedTuple):
    """What a server serves: a certificate that its clients accept, or why not."""

    certificate: Optional[bytes]
    problem: str = ""


class Served(NamedTuple):
    reloaded: bool
    # None under --check, when what a reload will bring is not known.
    expires_at: Optional[datetime.datetime]


def look(host: str, port: int, trusted: str, timeout: float) -> Seen:
    """Make the handshake of a client with ``sslmode=verify-full`` that trusts *trusted*.

    :raises PoolsError: nothing answers there, or a server without TLS.
    """
    context = ssl.create_default_context(cadata=trusted)
    where = "{0} port {1}".format(host, port)
    try:
        with contextlib.closing(socket.create_connection((host, port), timeout)) as plain:
            plain.sendall(_SSL_REQUEST)
            if plain.recv(1) != b"S":
                raise PoolsError(
                    "{0} has TLS switched off.".format(where),
                    "Its settings have to say ssl=on, ssl_cert_file and ssl_key_file.",
                )
            with context.wrap_socket(plain, server_hostname=host) as secure:
                return Seen(secure.getpeercert(binary_form=True))
    except ssl.SSLCertVerificationError as error:
        return Seen(None, "its certificate is refused: {0}".format(error.verify_message))
    except OSError as error:
        raise PoolsError(
            "{0} does not answer: {1}.".format(where, " ".join(str(error).split()).rstrip(".")),
            "See that the server runs and that this host reaches it.",
        ) from error


def ensure(login: Mapping[str, Any], trusted: str, wanted: Optional[str], timeout: float, check: bool) -> Served:
    """See that a server serves *wanted* (PEM; None for any that its clients accept), and have it read its files again if not.

    :param login: the administrator's ``login_*`` options.
    :raises PoolsError: it does not serve it, also after that.
    """
    host, port = login["login_host"], login["login_port"]
    expected = certificates_from(wanted or "")
    if wanted is not None and not expected:
        raise PoolsError("The certificate that {0} is to serve is no certificate.".format(host))

    def fits(seen: Seen) -> bool:
        der = expected[0].public_bytes(serialization.Encoding.DER) if expected else seen.certificate
        return seen.certificate is not None and seen.certificate == der

    seen = look(host, port, trusted, timeout)
    if fits(seen):
        return Served(False, expires_at(_parsed(seen)))
    if check:
        return Served(True, expires_at(expected[0]) if expected else None)
    _reload(login, timeout)
    deadline = time.monotonic() + _RELOAD_SECONDS
    while True:
        seen = look(host, port, trusted, timeout)
        if fits(seen):
            return Served(True, expires_at(_parsed(seen)))
        if time.monotonic() > deadline:
            raise PoolsError(
                "{0} port {1} does not serve its certificate: {2}.".format(
                    host, port, seen.problem or "it goes on with another"
                ),
                "See its log, and whether ssl, ssl_cert_file and ssl_key_file are set for its directory tls.",
            )
        time.sleep(_PAUSE_SECONDS)


def side_by_side(work: Callable[[_Item], _Result], items: Sequence[_Item]) -> List[_Result]:
    if not items:
        return []
    with ThreadPoolExecutor(max_workers=min(len(items), _MAX_PARALLEL)) as pool:
        return list(pool.map(work, items))


def _reload(login: Mapping[str, Any], timeout: float) -> None:
    # The certificate of the moment may have expired, so it cannot be what proves the server here. The password does:
    # with channel binding, only who holds its verifier and this end of the TLS connection completes the login.
    arguments = {"channel_binding": "require", "connect_timeout": max(2, int(timeout))}
    connection = connect(dict(login, ssl_mode="require", connect_params=arguments), "postgres")
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_reload_conf()")
    finally:
        connection.close()


def _parsed(seen: Seen) -> Any:
    return x509.load_der_x509_certificate(seen.certificate or b"")
