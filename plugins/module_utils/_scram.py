# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SCRAM-SHA-256 verifiers as PostgreSQL keeps them, so that no clear password is ever sent in a statement. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from typing import Optional, Tuple

from ._errors import PoolsError

# PostgreSQL's own: SCRAM_SHA_256_DEFAULT_ITERATIONS and SCRAM_DEFAULT_SALT_LEN in src/include/common/scram-common.h.
DEFAULT_ITERATIONS = 4096
SALT_BYTES = 16
_VERIFIER = re.compile(r"^SCRAM-SHA-256\$([1-9][0-9]*):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)\Z")


def check_password(password: Optional[str], whose: str) -> str:
    """Return *password* if a verifier can be made of it.

    :raises PoolsError: missing, empty or not plain ASCII. The message never shows it.
    """
    if not password:
        raise PoolsError(f"{whose} has no password.", "Give one of ASCII characters.")
    if any(not " " <= character <= "~" for character in password):
        # SASLprep maps other characters before hashing, and PostgreSQL falls back to the raw bytes where that fails;
        # a verifier made without it would lock the tenant out.
        raise PoolsError(
            f"The password of {whose} holds a character that is not printable ASCII.",
            "Use letters, digits and punctuation.",
        )
    return password


def _keys(password: str, salt: bytes, iterations: int) -> Tuple[bytes, bytes]:
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, iterations)
    client = hmac.new(salted, b"Client Key", hashlib.sha256).digest()
    server = hmac.new(salted, b"Server Key", hashlib.sha256).digest()
    return hashlib.sha256(client).digest(), server


def verifier(password: str, salt: Optional[bytes] = None, iterations: int = DEFAULT_ITERATIONS) -> str:
    """What PostgreSQL would keep of *password* in pg_authid.

    :raises PoolsError: the password is empty or not plain ASCII.
    """
    check_password(password, "the role")
    salt = os.urandom(SALT_BYTES) if salt is None else salt
    stored, server = _keys(password, salt, iterations)
    salt_text, stored_text, server_text = (base64.b64encode(part).decode("ascii") for part in (salt, stored, server))
    return f"SCRAM-SHA-256${iterations}:{salt_text}${stored_text}:{server_text}"


def matches(kept: Optional[str], password: str) -> bool:
    """Whether *kept*, as found in pg_authid, was made of *password*; false for md5, nonsense and no password."""
    found = _VERIFIER.match(kept or "")
    if not found or not password or not password.isascii():
        return False
    try:
        salt, stored, server = (base64.b64decode(found.group(part), validate=True) for part in (2, 3, 4))
    except binascii.Error:
        return False
    made = _keys(password, salt, int(found.group(1)))
    return hmac.compare_digest(made[0], stored) and hmac.compare_digest(made[1], server)
