# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of a test's own."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["make_certificates"]


def make_certificates(place: Path, *addresses: str, days: int = 2) -> None:
    """A certificate authority, and a certificate of it for IP addresses, loopback's by default.

    :param place: directory for ``ca.crt``, ``ca.key``, ``server.crt`` and ``server.key``.
    :param days: for which they are valid.
    """
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    make += ["-days", str(days)]
    # With what Python 3.13 demands of certificates (RFC 5280).
    authority = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    names = ",".join(f"IP:{address}" for address in addresses or ["127.0.0.1"])
    server = ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", f"subjectAltName={names}"]
    server += ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "authorityKeyIdentifier=keyid"]
    for name, more in (("ca", authority), ("server", server)):
        files = ["-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN={name}"]
        subprocess.run([*make, *files, *more], cwd=place, check=True, capture_output=True)
