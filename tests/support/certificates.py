# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of a test's own."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

__all__ = ["make_certificates"]

DAY = timedelta(days=1)
NO_USAGE = dict.fromkeys(
    ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
     "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False)


def make_certificates(place: Path, *addresses: str, days: int = 2) -> None:
    """A certificate authority, and a certificate of it for IP addresses, loopback's by default.

    :param place: directory for ``ca.crt``, ``ca.key``, ``server.crt`` and ``server.key``.
    :param days: for which they are valid from now on; they have been since yesterday, for those whose clock is behind.
    """
    authority, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    # With what Python 3.13 demands of certificates (RFC 5280).
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    usage = x509.KeyUsage(**{**NO_USAGE, "key_cert_sign": True, "crl_sign": True})
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(each)) for each in addresses or ["127.0.0.1"]])
    for name, key, extensions in (
        ("ca", authority, {x509.BasicConstraints(True, None): True, usage: True}),
        ("server", server, {x509.BasicConstraints(False, None): True, names: False}),
    ):
        now = datetime.now(timezone.utc)
        builder = x509.CertificateBuilder(
            _named("ca"), _named(name), key.public_key(), x509.random_serial_number(), now - DAY, now + days * DAY)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        for extension, is_critical in {**extensions, identifier: False, issuer: False}.items():
            builder = builder.add_extension(extension, is_critical)
        certificate = builder.sign(authority, hashes.SHA256())
        (place / f"{name}.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (place / f"{name}.key").touch(mode=0o600)
        (place / f"{name}.key").write_bytes(private)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
