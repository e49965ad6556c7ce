# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of a test's own."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["make_certificates"]


def make_certificates(place: Path, address: str = "127.0.0.1") -> None:
    """A certificate authority, and a certificate of it for an IP address."""
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    # With what Python 3.13 demands of certificates (RFC 5280).
    authority = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    server = ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", f"subjectAltName=IP:{address}"]
    server += ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "authorityKeyIdentifier=keyid"]
    for name, more in (("ca", authority), ("server", server)):
        files = ["-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN={name}"]
        subprocess.run([*make, *files, *more], cwd=place, check=True, capture_output=True)
