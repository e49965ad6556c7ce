# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engine says when a registry doesn't give it an image, and what to do about each. Pure."""

from __future__ import annotations

from typing import Tuple

from .errors import DriftguardError
from .untrusted import clean

MAX_SAID = 500
_Case = Tuple[Tuple[str, ...], str, str]

# The words of Docker Engine 20.10 to 28, of containerd, and of the registries that they repeat; the first that fits.
_CASES: tuple[_Case, ...] = (
    (
        ("no space left on device", "disk quota exceeded"), "room for it on the disk of this host's engine",
        "free room there: prune-workers.yml removes what no kept revision needs; then run again"),
    (
        ("x509:", "certificate signed by unknown", "certificate is not valid", "tls: failed to verify"),
        "a certificate that this host's engine trusts",
        ("put the registry's certificate authority into /etc/docker/certs.d/{registry}/ca.crt on this host (variable "
         "docker_host_registry_authorities of role docker_host); the engine needs no restart")),
    (
        ("server gave http response to https",), "a registry with TLS",
        "give the registry a certificate, or the engine the option insecure-registries"),
    (
        ("no basic auth", "unauthorized", "authentication required", "incorrect username or password", "denied",
         "401 unauthorized", "403 forbidden", "invalid username/password"),
        "a registry that lets this host pull",
        "mend worker_registry_username and worker_registry_password (in a vault), or that user's rights"),
    (
        ("manifest unknown", "name unknown", "not found", "manifest for ", "blob unknown", "repository does not exist"),
        "a registry that still has it",
        "push it again (deploy its commit from a machine that has it), or go to another revision"),
    (
        ("verification failed", "digest mismatch", "filesystem layer verification", "unexpected commit digest",
         "failed size validation"),
        "content of that digest",
        ("the registry, or a proxy before it, gives out something else: do not deploy from it; look at its storage,"
         " push the image again and run again")),
    (
        ("timeout", "timed out", "deadline exceeded", "request canceled"), "an answer within the time limit",
        "see why the registry is slow or doesn't answer, or raise worker_pull_timeout; then run again"),
    (
        ("connection refused", "no such host", "no route", "unreachable", "connection reset", "eof", "dial tcp",
         "server misbehaving", "broken pipe", "500 internal", "502 bad", "503 service"),
        "a registry that this host reaches",
        "start the registry, or mend this host's way to it ({registry}: name service, firewall, proxy of the engine)"),
)
_OTHER = (
    "the image from its registry", "see the engine's log on this host (journalctl -u docker) and the registry's own")


def registry_of(reference: str) -> str:
    """The registry's part of an image's name, with its port; the public hub's name where there is none."""
    head, slash, _rest = reference.partition("/")
    return head if slash and (set(head) & {".", ":"} or head == "localhost") else "docker.io"


def registry_error(what: str, reference: str, said: str) -> DriftguardError:
    """The error for an image that a registry didn't give.

    :param what: what it is about: host, variant, release.
    :param said: the engine's words; untrusted, as a registry may have a part in them.
    """
    # Within the names there may be any of the words.
    words = said.lower()
    for name in (reference, reference.partition("@")[0], registry_of(reference), reference.rpartition("@")[2]):
        words = words.replace(name.lower(), "")
    expected, remedy = next(
        ((expected, remedy) for signs, expected, remedy in _CASES if any(sign in words for sign in signs)), _OTHER)
    return DriftguardError(
        what, expected, clean(" ".join(said.split()), MAX_SAID) or "no reason given",
        remedy.replace("{registry}", registry_of(reference)))
