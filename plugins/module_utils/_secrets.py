# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passwords made once, and kept encrypted in the inventory database."""

from __future__ import annotations

import os
import secrets
import string
import traceback
from typing import List, Mapping, Optional, Sequence

from ._errors import PoolsError

try:
    from cryptography.fernet import Fernet, InvalidToken, MultiFernet

    CRYPTOGRAPHY_IMPORT_ERROR: Optional[str] = None
except ImportError:
    CRYPTOGRAPHY_IMPORT_ERROR = traceback.format_exc()

_ALPHABET = string.ascii_letters + string.digits
# 32 letters and digits hold 190 bits: log2(62) * 32.
PASSWORD_LENGTH = 32
KEY_FILE_VARIABLE = "POSTGRES_POOLS_SECRET_KEY_FILE"
KEYS_VARIABLE = "POSTGRES_POOLS_SECRET_KEYS"
_KEY_REMEDY = (
    "Give secret_keys, secret_key_file, or the environment variable {0} or {1}; "
    "a key is 32 random bytes in URL-safe base64, as Fernet.generate_key() prints it."
).format(KEY_FILE_VARIABLE, KEYS_VARIABLE)


def new_password() -> str:
    """A password of 32 letters and digits: nothing in it needs quoting in a DSN, an INI file or a shell."""
    return "".join(secrets.choice(_ALPHABET) for unused in range(PASSWORD_LENGTH))


def keys_from(params: Mapping[str, object], environ: Optional[Mapping[str, str]] = None) -> List[str]:
    """The keys, newest first, from the option ``secret_keys``, then ``secret_key_file``, then the environment.

    :raises PoolsError: there is none, or the file cannot be read.
    """
    environ = os.environ if environ is None else environ
    given = params.get("secret_keys")
    if given:
        return [str(key).strip() for key in given]  # type: ignore[attr-defined]
    path = params.get("secret_key_file") or environ.get(KEY_FILE_VARIABLE)
    if path:
        try:
            with open(str(path), encoding="ascii") as stream:
                keys = stream.read().split()
        except (OSError, UnicodeDecodeError) as error:
            raise PoolsError("The secret key file {0} cannot be read: {1}.".format(path, error), _KEY_REMEDY) from error
        if keys:
            return keys
        raise PoolsError("The secret key file {0} is empty.".format(path), _KEY_REMEDY)
    keys = [key for key in environ.get(KEYS_VARIABLE, "").replace(",", " ").split() if key]
    if not keys:
        raise PoolsError("There is no secret key to encrypt passwords with.", _KEY_REMEDY)
    return keys


class Cipher:
    """Encrypts with the first key, decrypts with any (Fernet: AES-128-CBC with HMAC-SHA256).

    :raises PoolsError: a key is malformed. No message shows a key or a password.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        fernets = []
        for position, key in enumerate(keys, start=1):
            try:
                fernets.append(Fernet(key))
            except ValueError as error:
                raise PoolsError(
                    "Secret key number {0} of {1} is not a Fernet key.".format(position, len(keys)), _KEY_REMEDY
                ) from error
        self._newest = fernets[0]
        self._all = MultiFernet(fernets)

    def encrypt(self, clear: str) -> str:
        return self._all.encrypt(clear.encode()).decode("ascii")

    def decrypt(self, token: str, whose: str) -> str:
        """:raises PoolsError: none of the keys made *token*; the message names *whose* password it is."""
        try:
            return self._all.decrypt(token.encode("ascii")).decode()
        except InvalidToken as error:
            raise PoolsError(
                "The password of {0} was encrypted with a key that is not among those given.".format(whose),
                "Add the older key behind the newest one, then run playbooks/rotate_keys.yml.",
            ) from error

    def rotate(self, token: str, whose: str) -> Optional[str]:
        """*token* encrypted anew with the newest key, or None if the newest key made it already."""
        try:
            self._newest.decrypt(token.encode("ascii"))
            return None
        except InvalidToken:
            return self.encrypt(self.decrypt(token, whose))
