# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The authority that signs the servers' certificates: kept in the inventory database, or given by files."""

from __future__ import annotations

import datetime
import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any, List, Mapping, Optional, Sequence, Tuple

from ._errors import PoolsError
from ._inventory import Inventory
from ._secrets import Cipher

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    pass  # _secrets.CRYPTOGRAPHY_IMPORT_ERROR tells the module

# Any number that no other program takes in this database: two runs do not make two authorities.
_AUTHORITY_LOCK = 0x617574686F7269
_AUTHORITY_YEARS = 10
_WARN_DAYS = 365
# Clocks of clients may be slow.
_SKEW = datetime.timedelta(hours=1)
_DAY = datetime.timedelta(days=1)
UTC = datetime.timezone.utc
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")


@dataclass(frozen=True)
class Authority:
    """An authority that can sign. ``chain`` is its certificate and those above it up to the root."""

    name: str
    chain: Tuple[Any, ...]
    key: Any = field(repr=False)

    @property
    def certificate(self) -> Any:
        return self.chain[0]

    @property
    def pem(self) -> str:
        return _pem(self.chain)


def now() -> datetime.datetime:
    return datetime.datetime.now(UTC)


def expires_at(certificate: Any) -> datetime.datetime:
    return _aware(certificate, "not_valid_after")


def made(at: Optional[datetime.datetime] = None) -> Authority:
    """A new authority that signs servers' certificates and no further authorities."""
    at = at or now()
    key = ec.generate_private_key(ec.SECP256R1())
    text = "postgres_pools {0}".format(at.strftime("%Y-%m-%dT%H:%M:%SZ"))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
    builder = _builder(name, name, key.public_key(), key.public_key(), at, at + _AUTHORITY_YEARS * 365 * _DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
    return Authority(text, (builder.sign(key, hashes.SHA256()),), key)


def given(certificate_file: str, key_file: str, at: Optional[datetime.datetime] = None) -> Authority:
    """The authority in these files.

    :raises PoolsError: it cannot be read, or cannot sign what PostgreSQL's clients accept.
    """
    chain = certificates_from(_read(certificate_file).decode("ascii", "replace"))
    if not chain:
        raise PoolsError("{0} holds no certificate.".format(certificate_file), "Give it as PEM.")
    try:
        key = serialization.load_pem_private_key(_read(key_file), None)
    except (ValueError, TypeError) as error:
        raise PoolsError(
            "{0} holds no private key that can be read.".format(key_file), "Give it as PEM without a passphrase."
        ) from error
    if _public_bytes(key.public_key()) != _public_bytes(chain[0].public_key()):
        raise PoolsError(
            "The key in {0} is not that of the first certificate in {1}.".format(key_file, certificate_file),
            "Put the certificate that signs first, those above it behind it.",
        )
    _refuse_unfit(chain, certificate_file, at or now())
    return Authority(chain[0].subject.rfc4514_string(), tuple(chain), key)


def _refuse_unfit(chain: Sequence[Any], where: str, at: datetime.datetime) -> None:
    if not isinstance(chain[0].public_key(), (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)):
        raise PoolsError(
            "The authority in {0} has a key of a kind for which PostgreSQL has no channel binding.".format(where),
            "Give one with an RSA or ECDSA key.",
        )
    for lower, upper in zip(chain, (*chain[1:], chain[-1])):
        if lower.issuer != upper.subject:
            raise PoolsError(
                "In {0} the certificate {1} is not followed by its issuer {2}.".format(
                    where, lower.subject.rfc4514_string(), lower.issuer.rfc4514_string()
                ),
                "Append every certificate up to the root: a client trusts a root only.",
            )
    for certificate in chain:
        constraints = _extension(certificate, "BasicConstraints")
        if constraints is None or not constraints.ca:
            raise PoolsError(
                "{0} in {1} is no authority's certificate.".format(certificate.subject.rfc4514_string(), where)
            )
        if expires_at(certificate) <= at:
            raise PoolsError(
                "{0} in {1} expired on {2:%Y-%m-%d}.".format(
                    certificate.subject.rfc4514_string(), where, expires_at(certificate)
                )
            )


def kept(inventory: Inventory, cipher: Cipher, files: Optional[Mapping[str, str]]) -> Tuple[Authority, bool]:
    """The authority that signs from now on, and whether that is news: the one in *files*, else the one that is kept, else a new one.

    :raises PoolsError: the current one was given by files before and is not now; one that is given is unfit.
    """
    authority = given(files["certificate"], files["key"]) if files else None
    with inventory.transaction():
        inventory.execute("SELECT pg_advisory_xact_lock(%(key)s)", {"key": _AUTHORITY_LOCK})
        found = inventory.row(
            "SELECT name, certificate, private_key_encrypted AS token FROM db_authorities WHERE current"
        )
        if authority is None and found:
            return _opened(found, cipher), False
        if authority and found and found["certificate"] == authority.pem:
            return authority, False
        inventory.execute("UPDATE db_authorities SET current = false WHERE current")
        token = None
        if authority is None:
            authority = made()
            token = cipher.encrypt(_private_bytes(authority.key).decode("ascii"))
        # One that is given again after another had its turn is there already.
        if not inventory.execute(
            "UPDATE db_authorities SET current = true WHERE certificate = %(pem)s", {"pem": authority.pem}
        ):
            inventory.execute(
                "INSERT INTO db_authorities (name, certificate, private_key_encrypted, expires_at)"
                " VALUES (%(name)s, %(pem)s, %(token)s, %(expires)s)",
                {
                    "name": authority.name,
                    "pem": authority.pem,
                    "token": token,
                    "expires": min(expires_at(one) for one in authority.chain),
                },
            )
    return authority, True


def trusted(inventory: Inventory) -> str:
    """The certificates of all authorities, as PEM: what a client checks a server by."""
    rows = inventory.rows("SELECT certificate FROM db_authorities ORDER BY current DESC, created_at DESC")
    return "".join(row["certificate"] for row in rows)


def warning(authority: Authority, at: Optional[datetime.datetime] = None) -> Optional[str]:
    """What to do in time about an authority that ends."""
    ends = min(expires_at(one) for one in authority.chain)
    if ends - (at or now()) > _WARN_DAYS * _DAY:
        return None
    return (
        "The authority {0} expires on {1:%Y-%m-%d}. Set current to false in its row of db_authorities, or give another: "
        "the next run signs with a new one, and tenants that fetch their connection anew trust both."
    ).format(authority.name, ends)


def names_of(server: Mapping[str, Any], more: Sequence[str] = ()) -> List[str]:
    """What the server's certificate is made out to: its name first, then every other name that clients may use."""
    names = [server["name"], server["host"], server.get("swarm_service_name"), *more]
    return list(dict.fromkeys(name for name in names if name))


def sign(
    authority: Authority, request: str, names: Sequence[str], days: float, at: Optional[datetime.datetime] = None
) -> str:
    """A certificate for the key in *request*, made out to *names*, with those between it and the root behind it; PEM.

    The names in the request do not count: who may have which name is for the inventory database to say.

    :raises PoolsError: the request is none; the authority has expired.
    """
    at = at or now()
    asked = request_from(request)
    end = min([at + days * _DAY, *(expires_at(one) for one in authority.chain)])
    if end <= at:
        raise PoolsError("The authority {0} has expired.".format(authority.name), "Give another, or have one made.")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    builder = _builder(subject, authority.certificate.subject, asked.public_key(), authority.key.public_key(), at, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(digital_signature=True), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
    return _pem((builder.sign(authority.key, hashes.SHA256()), *authority.chain[:-1]))


def why_renew(
    authority: Authority,
    request: str,
    present: Optional[str],
    names: Sequence[str],
    at: Optional[datetime.datetime] = None,
) -> Optional[str]:
    """Why a server needs another certificate than the *present* one; None if it does not."""
    at = at or now()
    chain = certificates_from(present or "")
    if not chain:
        return "there is none"
    certificate = chain[0]
    if _public_bytes(certificate.public_key()) != _public_bytes(request_from(request).public_key()):
        return "the server's key is another"
    if not _signed_by(certificate, authority.certificate):
        return "another authority signs"
    if sorted(_names_in(certificate)) != sorted(names):
        return "the server's names are others"
    left, life = expires_at(certificate) - at, expires_at(certificate) - _aware(certificate, "not_valid_before")
    if left < life / 3:
        return "it expires on {0:%Y-%m-%d}, and less than a third of its life is left".format(expires_at(certificate))
    return None


def request_from(pem: str) -> Any:
    try:
        request = x509.load_pem_x509_csr(pem.encode("ascii"))
        sound = request.is_signature_valid and isinstance(
            request.public_key(), (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)
        )
    except ValueError:
        sound = False
    if not sound:
        raise PoolsError("The request for a certificate is no request of an RSA or ECDSA key.")
    return request


def certificates_from(pem: str) -> List[Any]:
    """The certificates in a text; none if one of them is broken."""
    try:
        return [x509.load_pem_x509_certificate(found.encode("ascii")) for found in _PEM.findall(pem)]
    except ValueError:
        return []


def _opened(found: Mapping[str, Any], cipher: Cipher) -> Authority:
    if found["token"] is None:
        raise PoolsError(
            "The authority {0} was given by files, and its key is not kept.".format(found["name"]),
            "Give the files again (postgres_pools_ca); or set current to false in its row of db_authorities, to have one made and kept.",
        )
    opened = cipher.decrypt(found["token"], "authority {0}".format(found["name"])).encode("ascii")
    key = serialization.load_pem_private_key(opened, None)
    return Authority(found["name"], tuple(certificates_from(found["certificate"])), key)


def _builder(
    subject: Any, issuer: Any, key: Any, issuer_key: Any, at: datetime.datetime, end: datetime.datetime
) -> Any:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(at - _SKEW).not_valid_after(end)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    return builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)


def _usage(**wanted: bool) -> Any:
    kinds = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{kind: wanted.get(kind, False) for kind in kinds})


def _general(name: str) -> Any:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names_in(certificate: Any) -> List[str]:
    found = _extension(certificate, "SubjectAlternativeName")
    return [str(name.value) for name in found] if found is not None else []


def _extension(certificate: Any, kind: str) -> Any:
    try:
        return certificate.extensions.get_extension_for_class(getattr(x509, kind)).value
    except x509.ExtensionNotFound:
        return None


def _signed_by(certificate: Any, authority: Any) -> bool:
    if certificate.issuer != authority.subject:
        return False
    key = authority.public_key()
    signed = (certificate.signature, certificate.tbs_certificate_bytes)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(*signed, padding.PKCS1v15(), certificate.signature_hash_algorithm)
        else:
            key.verify(*signed, ec.ECDSA(certificate.signature_hash_algorithm))
    except InvalidSignature:
        return False
    return True


def _aware(certificate: Any, moment: str) -> datetime.datetime:
    # Before cryptography 42 the times are naive ones in UTC.
    found = getattr(certificate, moment + "_utc", None) or getattr(certificate, moment)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _pem(chain: Sequence[Any]) -> str:
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode("ascii") for one in chain)


def _public_bytes(key: Any) -> bytes:
    return bytes(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def _private_bytes(key: Any) -> bytes:
    return bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise PoolsError(
            "{0} cannot be read: {1}.".format(path, error.strerror),
            "The files of postgres_pools_ca lie on the client host.",
        ) from error
