# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the authority signs, when a certificate is due, and which authorities that are given are refused."""

from __future__ import annotations

import datetime
import stat

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils import _authority
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._server_key import ServerKey
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

START = datetime.datetime(2026, 11, 22, 12, tzinfo=_authority.UTC)
DAY = datetime.timedelta(days=1)
NAMES = ["postgres-pool-1", "127.0.0.1"]


@pytest.fixture(scope="module")
def authority():
    return _authority.made(START)


@pytest.fixture
def key(tmp_path):
    return ServerKey("postgres-pool-1", str(tmp_path))


def parsed(pem):
    return _authority.certificates_from(pem)[0]


def extension(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind).value


def test_a_certificate_is_for_the_names_and_for_nothing_else(authority, key):
    certificate = parsed(_authority.sign(authority, key.ensure().request, NAMES, 90, START))
    names = extension(certificate, x509.SubjectAlternativeName)
    assert names.get_values_for_type(x509.DNSName) == ["postgres-pool-1"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "postgres-pool-1"
    assert not extension(certificate, x509.BasicConstraints).ca
    assert _authority.expires_at(certificate) == START + 90 * DAY
    certificate.verify_directly_issued_by(authority.certificate)


def test_the_names_in_a_request_do_not_count(authority):
    private = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "postgres-pool-2")])
    )
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("postgres-pool-2")]), critical=False)
    request = builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    signed = _authority.sign(authority, request, NAMES, 90, START)
    assert "postgres-pool-2" not in str(parsed(signed).subject)
    assert extension(parsed(signed), x509.SubjectAlternativeName).get_values_for_type(x509.DNSName) == ["postgres-pool-1"]


def test_a_certificate_ends_with_its_authority_at_the_latest(authority, key):
    late = _authority.expires_at(authority.certificate) - 5 * DAY
    request = key.ensure().request
    assert _authority.expires_at(parsed(_authority.sign(authority, request, NAMES, 90, late))) == late + 5 * DAY
    with pytest.raises(PoolsError, match="has expired"):
        _authority.sign(authority, request, NAMES, 90, late + 6 * DAY)


def test_an_authority_that_ends_is_warned_of_in_time(authority):
    ends = _authority.expires_at(authority.certificate)
    assert _authority.warning(authority, ends - 366 * DAY) is None
    assert "expires on {0:%Y-%m-%d}".format(ends) in _authority.warning(authority, ends - 364 * DAY)


@pytest.mark.parametrize("request_text", ["", "no request", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"])
def test_what_is_no_request_is_refused(authority, request_text):
    with pytest.raises(PoolsError, match="no request"):
        _authority.sign(authority, request_text, NAMES, 90, START)


def test_a_certificate_is_due_when_less_than_a_third_of_its_life_is_left(authority, key):
    request = key.ensure().request
    present = _authority.sign(authority, request, NAMES, 90, START)
    assert _authority.why_renew(authority, request, present, NAMES, START) is None
    assert _authority.why_renew(authority, request, present, NAMES, START + 59 * DAY) is None
    assert "less than a third" in _authority.why_renew(authority, request, present, NAMES, START + 61 * DAY)
    assert "less than a third" in _authority.why_renew(authority, request, present, NAMES, START + 100 * DAY)


def test_a_certificate_that_does_not_fit_is_due_at_once(authority, key, tmp_path):
    request = key.ensure().request
    present = _authority.sign(authority, request, NAMES, 90, START)
    (tmp_path / "other").mkdir()
    other_key = ServerKey("postgres-pool-1", str(tmp_path / "other")).ensure().request
    reasons = [
        _authority.why_renew(authority, request, None, NAMES, START),
        _authority.why_renew(authority, request, "torn", NAMES, START),
        _authority.why_renew(authority, other_key, present, NAMES, START),
        _authority.why_renew(_authority.made(START), request, present, NAMES, START),
        _authority.why_renew(authority, request, present, [*NAMES, "alias"], START),
    ]
    assert [reason.split()[-1] for reason in reasons] == ["none", "none", "another", "signs", "others"]


def test_another_authority_of_the_same_name_did_not_sign(authority, key):
    request = key.ensure().request
    present = _authority.sign(authority, request, NAMES, 90, START)
    double = _authority.made(START)
    assert double.certificate.subject == authority.certificate.subject
    assert _authority.why_renew(double, request, present, NAMES, START) == "another authority signs"


def test_the_key_is_not_shown(authority):
    assert "PrivateKey" not in repr(authority)


# --- authorities that are given


def write(tmp_path, private, *certificates):
    (tmp_path / "ca.pem").write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates))
    (tmp_path / "ca.key").write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return str(tmp_path / "ca.pem"), str(tmp_path / "ca.key")


def named(name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def certificate_of(public, subject, issuer, issuer_key, ca=True, end=START + 1000 * DAY):
    builder = x509.CertificateBuilder().subject_name(named(subject)).issuer_name(named(issuer)).public_key(public)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(START).not_valid_after(end)
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    return builder.sign(issuer_key, None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def test_a_chain_is_given_whole_and_served_without_its_root(tmp_path, key):
    root, middle = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP256R1())
    top = certificate_of(root.public_key(), "root", "root", root)
    below = certificate_of(middle.public_key(), "middle", "root", root)
    found = _authority.given(*write(tmp_path, middle, below, top), START)
    assert found.name == "CN=middle" and len(_authority.certificates_from(found.pem)) == 2
    served = _authority.certificates_from(_authority.sign(found, key.ensure().request, NAMES, 90, START))
    served[0].verify_directly_issued_by(below)
    assert served[1:] == [below]


def test_what_no_client_would_accept_is_refused(tmp_path):
    root, middle = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ed = ed25519.Ed25519PrivateKey.generate()
    top = certificate_of(root.public_key(), "root", "root", root)
    refused = [
        (root, (), "holds no certificate"),
        (middle, (top,), "is not that of the first certificate"),
        (middle, (certificate_of(middle.public_key(), "middle", "root", root),), "not followed by its issuer CN=root"),
        (root, (certificate_of(root.public_key(), "leaf", "leaf", root, ca=False),), "no authority's certificate"),
        (root, (certificate_of(root.public_key(), "old", "old", root, end=START + DAY),), "expired on"),
        (ed, (certificate_of(ed.public_key(), "ed", "ed", ed),), "no channel binding"),
    ]
    for private, certificates, told in refused:
        with pytest.raises(PoolsError, match=told):
            _authority.given(*write(tmp_path, private, *certificates), START + 2 * DAY)


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(PoolsError, match=r"nowhere\.pem cannot be read: No such file"):
        _authority.given(str(tmp_path / "nowhere.pem"), str(tmp_path / "nowhere.key"))


def test_a_key_with_a_passphrase_is_refused(tmp_path):
    private = ec.generate_private_key(ec.SECP256R1())
    certificate_file, key_file = write(tmp_path, private, certificate_of(private.public_key(), "root", "root", private))
    (tmp_path / "ca.key").write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
        )
    )
    with pytest.raises(PoolsError, match="without a passphrase"):
        _authority.given(certificate_file, key_file)


# --- the files beside a server


def test_the_key_is_its_owners_alone_and_stays(key, tmp_path):
    first = key.ensure()
    assert first.changed and first.certificate is None
    assert stat.S_IMODE((tmp_path / "tls" / "server.key").stat().st_mode) == 0o600
    second = key.ensure()
    assert not second.changed
    assert _authority.request_from(second.request).public_key() == _authority.request_from(first.request).public_key()


def test_a_certificate_takes_the_place_of_the_one_before(authority, key, tmp_path):
    request = key.ensure().request
    for name in ("one", "two"):
        certificate = _authority.sign(authority, request, [name], 90, START)
        assert key.ensure(certificate)[0] and not key.ensure(certificate)[0]
        assert (tmp_path / "tls" / "server.crt").read_text() == certificate
    assert sorted(path.name for path in (tmp_path / "tls").iterdir()) == ["server.crt", "server.key"]


def test_a_certificate_for_another_key_is_refused(authority, key, tmp_path):
    (tmp_path / "other").mkdir()
    certificate = _authority.sign(authority, ServerKey("x", str(tmp_path / "other")).ensure().request, NAMES, 90, START)
    key.ensure()
    with pytest.raises(PoolsError, match="is not for the key"):
        key.ensure(certificate)
    assert not (tmp_path / "tls" / "server.crt").exists()


def test_a_storage_that_is_not_there_is_not_made(tmp_path):
    away = ServerKey("x", str(tmp_path / "away"))
    with pytest.raises(PoolsError, match="is not on this host"):
        away.ensure()
    assert not (tmp_path / "away").exists()
    assert away.ensure(make_path=True).request


def test_a_check_writes_nothing(key, tmp_path):
    checked = ServerKey("postgres-pool-1", str(tmp_path), check=True)
    assert checked.ensure() == (True, None, None) and not list(tmp_path.iterdir())
    key.ensure()
    assert checked.ensure().request and not checked.ensure().changed


def test_a_host_without_openssl_is_told(key, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PoolsError, match="This host has no program openssl"):
        key.ensure()


def test_a_link_in_the_directorys_place_is_not_followed(key, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tls").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PoolsError, match="cannot be kept"):
        key.ensure()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_mode_that_postgresql_refuses_is_mended(key, tmp_path):
    key.ensure()
    (tmp_path / "tls" / "server.key").chmod(0o644)
    assert key.ensure().changed
    assert stat.S_IMODE((tmp_path / "tls" / "server.key").stat().st_mode) == 0o600


def test_a_key_that_is_none_is_not_replaced(key, tmp_path):
    key.ensure()
    (tmp_path / "tls" / "server.key").write_text("torn")
    with pytest.raises(PoolsError, match="holds no private key"):
        key.ensure()
    assert (tmp_path / "tls" / "server.key").read_text() == "torn"
