# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server's TLS files, in the directory tls of its storage: server.key, which never leaves it, and server.crt.

They are files and no Swarm secret: a secret cannot change without restarting the container, a file can be put in
another's place, and PostgreSQL reads both again at a reload.

The host with the storage may be a bare node, so this asks for the program openssl and not for a Python library.

The key stays when the certificate is renewed. So a renewal replaces one file, by a rename, and a server that starts at
any moment finds a certificate that fits its key.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
import time
import uuid
from typing import Iterator, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._account import account
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

DIRECTORY = "tls"
KEY = "server.key"
CERTIFICATE = "server.crt"
# PostgreSQL refuses a key that others can read.
_MODES = {KEY: 0o600, CERTIFICATE: 0o644}
_DIRECTORY_MODE = 0o711
_UNFINISHED = ".unfinished-"


class Files(NamedTuple):
    """What is there after the call. In check mode a key that is still to be made has no request."""

    changed: bool
    request: Optional[str]
    certificate: Optional[str]


class ServerKey:
    """The TLS files of the server *name*, whose storage is *path*, for PostgreSQL running as *owner*.

    :param owner: a user's name, a uid, or uid:gid; empty keeps that of the key, and for a new one is whoever a local PostgreSQL runs as.
    """

    def __init__(self, name: str, path: str, owner: str = "", check: bool = False) -> None:
        self.name = name
        self.path = path
        self.check = check
        self._owner = owner
        self._changed = False

    @property
    def key_file(self) -> str:
        return os.path.join(self.path, DIRECTORY, KEY)

    @property
    def certificate_file(self) -> str:
        return os.path.join(self.path, DIRECTORY, CERTIFICATE)

    def ensure(self, certificate: Optional[str] = None, make_path: bool = False) -> Files:
        """See that there is a key, and put *certificate* in its place if one is given.

        :raises PoolsError: the storage is not there and is not to be made; the certificate is another key's; a file cannot be written.
        """
        self._changed = False
        try:
            with self._directory(make_path) as directory:
                if directory is None:
                    return Files(True, None, None)
                self._clear_unfinished(directory)
                who = self._who(directory)
                key = self._key(directory, who)
                if certificate is not None:
                    self._replace(directory, certificate, key, who)
                for name in (KEY, CERTIFICATE):
                    self._own(directory, name, who)
                # The signer decides on the names; the request only brings the key and shows that it is held.
                request = self._from_key(["req", "-new", "-sha256", "-key", "/dev/stdin", "-subj", "/CN=server"], key)
                found = self._read(directory, CERTIFICATE)
                return Files(
                    self._changed,
                    request.decode("ascii") if request else None,
                    found.decode("ascii", "replace") if found else None,
                )
        except OSError as error:
            raise PoolsError(
                "The TLS files in {0} cannot be kept: {1}.".format(
                    os.path.join(self.path, DIRECTORY), error.strerror or error
                )
            ) from error

    @contextlib.contextmanager
    def _directory(self, make_path: bool) -> Iterator[Optional[int]]:
        if not os.path.isdir(self.path):
            if not make_path:
                raise PoolsError(
                    "The storage {0} is not on this host.".format(self.path),
                    "See that its file system is mounted, and that server_certificate_hosts names a host that has it.",
                )
            if not self.check:
                os.makedirs(self.path, _DIRECTORY_MODE, exist_ok=True)
        place = os.path.join(self.path, DIRECTORY)
        if not os.path.lexists(place):
            self._changed = True
            if self.check:
                yield None
                return
            with contextlib.suppress(FileExistsError):
                os.mkdir(place, _DIRECTORY_MODE)
        # All is done by this descriptor: the storage is PostgreSQL's, whose user could put a link in the directory's place.
        directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            # PostgreSQL's user has to pass through, whatever the umask was.
            if stat.S_IMODE(os.fstat(directory).st_mode) != _DIRECTORY_MODE:
                self._changed = True
                if not self.check:
                    os.fchmod(directory, _DIRECTORY_MODE)
            yield directory
        finally:
            os.close(directory)

    def _who(self, directory: int) -> Tuple[int, int]:
        if not self._owner:
            try:
                found = os.stat(KEY, dir_fd=directory, follow_symlinks=False)
                return found.st_uid, found.st_gid
            except FileNotFoundError:
                local = account()
                return local.uid, local.gid
        user, _colon, group = self._owner.partition(":")
        if user.isdigit():
            return int(user), int(group) if group.isdigit() else int(user)
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            raise PoolsError(
                "There is no user '{0}' on this host.".format(user),
                "Give the uid that PostgreSQL runs as in its image.",
            ) from None
        return entry.pw_uid, entry.pw_gid

    def _key(self, directory: int, who: Tuple[int, int]) -> Optional[bytes]:
        text = self._read(directory, KEY)
        if text is None:
            self._changed = True
            if self.check:
                return None
            text = _openssl(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], b"")
            unfinished = self._unfinished(directory, text, KEY, who)
            try:
                # Not by rename: of two runs at once the second takes the key of the first.
                os.link(unfinished, KEY, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
            except FileExistsError:
                text = self._read(directory, KEY) or text
            finally:
                os.unlink(unfinished, dir_fd=directory)
            os.fsync(directory)
        return text

    def _from_key(self, arguments: Sequence[str], key: Optional[bytes]) -> Optional[bytes]:
        try:
            return None if key is None else _openssl(arguments, key)
        except _RefusedError as error:
            raise PoolsError(
                "{0} holds no private key that can be read.".format(self.key_file),
                "Move it and server.crt away: a new key is made then, and a certificate for it.",
            ) from error

    def _replace(self, directory: int, certificate: str, key: Optional[bytes], who: Tuple[int, int]) -> None:
        encoded = certificate.encode("ascii")
        present = self._read(directory, CERTIFICATE)
        public = self._from_key(["pkey", "-pubout"], key)
        if public is not None and public != _public(encoded):
            raise PoolsError(
                "The certificate for {0} is not for the key in {1}.".format(self.name, self.key_file),
                "Another run was at work on it. Run it again.",
            )
        if present == encoded:
            return
        self._changed = True
        if not self.check:
            unfinished = self._unfinished(directory, encoded, CERTIFICATE, who)
            os.rename(unfinished, CERTIFICATE, src_dir_fd=directory, dst_dir_fd=directory)
            os.fsync(directory)

    def _own(self, directory: int, name: str, who: Tuple[int, int]) -> None:
        try:
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
        except FileNotFoundError:
            return
        with os.fdopen(handle, "rb") as stream:
            found = os.fstat(stream.fileno())
            if (found.st_uid, found.st_gid) == who and stat.S_IMODE(found.st_mode) == _MODES[name]:
                return
            self._changed = True
            if not self.check:
                os.fchown(stream.fileno(), *who)
                os.fchmod(stream.fileno(), _MODES[name])

    def _unfinished(self, directory: int, content: bytes, name: str, who: Tuple[int, int]) -> str:
        """A new file, complete on disk, to get *name*."""
        unfinished = "{0}{1}".format(_UNFINISHED, uuid.uuid4().hex)
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
        with os.fdopen(handle, "wb") as stream:
            os.fchown(stream.fileno(), *who)
            os.fchmod(stream.fileno(), _MODES[name])
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        return unfinished

    def _clear_unfinished(self, directory: int) -> None:
        # What a run left that was killed a while ago; a younger one may be another run's at this moment.
        for name in [] if self.check else os.listdir(directory):
            if name.startswith(_UNFINISHED):
                with contextlib.suppress(FileNotFoundError):
                    age = time.time() - os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime
                    if age > 3600:
                        os.unlink(name, dir_fd=directory)

    def _read(self, directory: int, name: str) -> Optional[bytes]:
        try:
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
        except FileNotFoundError:
            return None
        with os.fdopen(handle, "rb") as stream:
            return stream.read()


class _RefusedError(PoolsError):
    """The program openssl cannot do anything with what it got."""


def _public(certificate: bytes) -> bytes:
    try:
        return _openssl(["x509", "-noout", "-pubkey"], certificate)
    except _RefusedError:
        return b""


def _openssl(arguments: Sequence[str], given: bytes) -> bytes:
    """What openssl makes of *given*. A key passes by its input and output, which no list of processes shows."""
    program = shutil.which("openssl")
    if program is None:
        raise PoolsError("This host has no program openssl.", "Install its package, openssl.")
    try:
        done = subprocess.run([program, *arguments], input=given, capture_output=True, timeout=30, check=False)
    except subprocess.TimeoutExpired as error:
        raise PoolsError("openssl {0} did not end within 30 seconds.".format(arguments[0])) from error
    if done.returncode != 0:
        told = " ".join(done.stderr.decode("utf-8", "replace").split())
        raise _RefusedError("openssl {0} failed: {1}.".format(arguments[0], told[-500:].rstrip(".")))
    return done.stdout
