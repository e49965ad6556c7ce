# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images a host needs, what an image must be, and what is said when a registry doesn't give one."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.image_pull import Image, check, needed
from ansible_collections.driftguard.workers.plugins.module_utils.registry_errors import registry_error, registry_of
from ansible_collections.driftguard.workers.plugins.module_utils.release_info import Release

SHA = "0123456789abcdef0123456789abcdef01234567"
ID, DIGEST, OTHER = (f"sha256:{letter * 64}" for letter in "abc")
RELEASE = f"{SHA[:12]}.89abcdef0123"


def release(**change: Any) -> Release:
    def image(variant: str) -> dict[str, Any]:
        repository = "registry.example.org/shop" if variant == "base" else f"registry.example.org/shop-{variant}"
        digest = change.get("digest", DIGEST)
        identity = change.get("id", ID)
        return {
            "variant": variant, "image": f"{repository}@{digest}" if digest else identity, "id": identity,
            "digest": digest, "repository": repository, "tags": [], "size": 1, "entrypoint": [], "cmd": ["x"],
            "working_dir": "/", "uid": 1, "gid": 1, "guard": "sh", "guard_program": "/bin/sh", "volumes": [],
            "healthcheck": False}
    return Release.from_dict({
        "fleet": "shop", "release_id": RELEASE, "sha": SHA, "created": "2026-01-02T03:04:05Z",
        "variants": {name: image(name) for name in ("base", "ocr")}})


def wanted(**change: Any) -> Image:
    return needed("here", release(**change), {"a": {"variant": "base"}})[0]


def facts(**change: Any) -> dict[str, Any]:
    labels = {
        "io.driftguard.fleet": "shop", "io.driftguard.variant": "base", "io.driftguard.release": RELEASE,
        "org.opencontainers.image.revision": SHA}
    return {
        "Id": ID, "RepoDigests": [f"registry.example.org/shop@{DIGEST}"],
        "Config": {"Labels": {**labels, **change.pop("labels", {})}}, **change}


def test_what_a_hosts_services_use_is_needed() -> None:
    services = {"a": {"variant": "ocr"}, "b": {"variant": "ocr"}}
    assert [one.image.variant for one in needed("here", release(), services)] == ["ocr"]


def test_nothing_is_pulled_of_a_release_without_a_registry_or_one_that_is_not_built() -> None:
    assert needed("here", release(digest=None), {"a": {"variant": "base"}}) == []
    assert needed("here", None, {"a": {"variant": "base"}}) == []


@pytest.mark.parametrize("identity", [ID, DIGEST])
def test_a_classic_and_a_containerd_store_call_the_same_image_differently(identity: str) -> None:
    check(wanted(), facts(Id=identity))


def test_a_release_that_a_containerd_store_built_says_nothing_of_classic_ids() -> None:
    check(wanted(id=DIGEST), facts(Id=OTHER))


@pytest.mark.parametrize(("found", "named"), [
    (None, "name"),
    (facts(RepoDigests=None), "name"),
    (facts(RepoDigests=[f"registry.example.org/shop@{OTHER}"]), "name"),
    (facts(Id=OTHER), "id"),
    (facts(Config=None), "io.driftguard.fleet"),
    (facts(labels={"io.driftguard.fleet": "other"}), "io.driftguard.fleet"),
    (facts(labels={"io.driftguard.variant": "ocr"}), "io.driftguard.variant"),
    (facts(labels={"io.driftguard.release": "x"}), "io.driftguard.release"),
    (facts(labels={"org.opencontainers.image.revision": "x"}), "org.opencontainers.image.revision"),
])
def test_anything_else_is_refused(found: Any, named: str) -> None:
    with pytest.raises(DriftguardError, match=rf"expected {named} "):
        check(wanted(), found)


REFERENCE = f"registry.example.org:5000/401/timeout@{DIGEST}"


@pytest.mark.parametrize(("said", "remedy"), [
    ('Get "https://r/v2/": dial tcp 10.0.0.1:5000: connect: connection refused', "start the registry"),
    ('Get "https://r/v2/": dial tcp: lookup r on 10.0.0.1:53: no such host', "registry.example.org:5000: name service"),
    ('Get "https://r/v2/": net/http: TLS handshake timeout', "worker_pull_timeout"),
    ('Get "https://r/v2/": context deadline exceeded', "worker_pull_timeout"),
    ("x509: certificate signed by unknown authority", "/etc/docker/certs.d/registry.example.org:5000/ca.crt"),
    ("x509: certificate has expired or is not yet valid", "/etc/docker/certs.d/"),
    ("http: server gave HTTP response to HTTPS client", "insecure-registries"),
    ("unauthorized: authentication required", "worker_registry_password"),
    ("Head https://r/v2/a: no basic auth credentials", "worker_registry_password"),
    ("pull access denied for x, repository does not exist or may require 'docker login'", "worker_registry_password"),
    (f"manifest for {REFERENCE} not found: manifest unknown: manifest unknown", "push it again"),
    ("failed to register layer: write /x: no space left on device", "prune-workers.yml"),
    (f"manifest verification failed for digest {DIGEST}", "gives out something else"),
    ("received unexpected HTTP status: 503 Service Unavailable", "start the registry"),
    ('Get "https://registry.example.org:5000/v2/": something odd', "journalctl"),
    ("", "journalctl"),
    (REFERENCE, "journalctl"),
])
def test_each_way_to_fail_has_its_remedy(said: str, remedy: str) -> None:
    error = registry_error("host here", REFERENCE, said)
    assert remedy in error.remedy
    assert error.expected
    assert error.found


def test_what_a_registry_said_is_shown_as_one_line_of_some_length() -> None:
    assert registry_error("x", REFERENCE, "\x1b[31mred\n" + "a" * 9000).found.isprintable()
    assert len(registry_error("x", REFERENCE, "a" * 9000).found) < 600


@pytest.mark.parametrize(("reference", "registry"), [
    ("registry.example.org/a@x", "registry.example.org"), ("localhost/a", "localhost"), ("r:5000/a/b", "r:5000"),
    ("shop/a", "docker.io"), ("a@sha256:0", "docker.io")])
def test_the_registry_of_a_name(reference: str, registry: str) -> None:
    assert registry_of(reference) == registry
