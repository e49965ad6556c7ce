# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What worker_compose does: one host's compose file, rendered and written as a revision."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Mapping, Optional

from .compose_checks import refuse_secrets
from .compose_render import REDIS_PASSWORD, Rendered, Surroundings, render, secret_owners
from .engine import Engine
from .errors import DriftguardError
from .fleet_spec import Service, network_names, placed, read_services
from .fleet_values import Unfit, shown
from .host_record import HostRecords
from .host_secrets import HostSecrets, read_secrets
from .module_base import Result
from .names import RELEASE_PATTERN, SHA_PATTERN
from .redis_url import parse_redis_url, passwords_in
from .redis_user_plan import url_for_user
from .release_info import Release, VariantImage
from .revisions import Revisions, release_json

MAX_HOST = 253  # as registrations.py reads it back


def write_compose(
    options: Mapping[str, Any], check_mode: bool, connect: Callable[[], Engine] = Engine.connect,
) -> Result:
    """Render and, out of check mode, write the revision.

    :param options: the module's options.
    :param connect: connects to this host's engine, once the options are known to be right.
    :raises DriftguardError: a bad spec, a missing variant, no engine, another run at work here; nothing was written.
    """
    fleet, root = options["fleet"], Path(options["root"]) / options["fleet"]
    services = placed(fleet, read_services(fleet, options["services"], options["defaults"]), options["placement"])
    _check_place(fleet, options["host"], root, options["redis_url"])
    raw = _raw_release(fleet, options["release"], Revisions(root))
    release = _release(fleet, raw, check_mode)
    images = _images(fleet, services, release)
    secrets, store = _secrets(options, services), HostSecrets(root)
    around = Surroundings(
        fleet=fleet, host=options["host"], root=str(root), sha=str(raw["sha"]), redis_url=_url(options, raw),
        production=options["production"], networks=_networks(fleet, options["networks"]),
        start_interval=connect().has_start_interval, secret_marks=store.marks(secrets, write=False))
    # A first pass without writing anything: bad input must not even leave a key behind.
    rendered = render(around, services, images)
    here = HostRecords(Path(options["root"]), fleet)
    # A run that a later one has overtaken must not write its older secrets.
    with nullcontext() if check_mode else here.turn(options["generation"], options["run"], options["lock_wait"]):
        if not check_mode:
            marks = store.marks(secrets, write=True)
            if marks != around.secret_marks:
                around = replace(around, secret_marks=marks)
                rendered = render(around, services, images)
        stale = store.stale(secrets, around.secret_marks, secret_owners(around, services, images))
        return _write(options, Revisions(root), rendered, raw, (store, secrets, stale), check_mode)


def _write(
    options: Mapping[str, Any], revisions: Revisions, rendered: Rendered, release: Mapping[str, Any], secrets: Any,
    check_mode: bool,
) -> Result:
    store, values, stale = secrets
    content = release_json(dict(release), rendered.services)
    current = revisions.current()
    number = revisions.find(rendered.text, content)
    is_new = number is None
    number = revisions.next_number(options["generation"] or 1) if number is None else number
    if not check_mode:
        # First the files, then the revision that names them: it must never name what isn't there.
        store.write(values, stale)
        if is_new:
            revisions.write(number, rendered.text, content)
    changed_secrets = sorted({file.name for file in stale})
    return Result(
        changed=is_new or bool(stale),
        values={
            "revision": number, "directory": str(revisions.root / "revisions" / str(number)), "previous": current,
            "desired": {"release": dict(release), "services": rendered.services},
            "changed_secrets": changed_secrets,
        },
        before=revisions.compose_text(current),
        after=rendered.text + "".join(f"# secret {name}: written\n" for name in changed_secrets),
        header=f"compose.yml of fleet {options['fleet']} on {options['host']}")


def _raw_release(fleet: str, given: Optional[Mapping[str, Any]], revisions: Revisions) -> Mapping[str, Any]:
    if given is not None:
        return Release.from_dict(given).to_dict() if given.get("variants") else given
    current = revisions.current()
    if current is None:
        raise DriftguardError(
            f"fleet {fleet}, option release", "a release, or a proved revision on this host whose release goes on",
            "neither",
            "deploy the whole fleet first, without worker_services")
    return revisions.load(current).release.to_dict()


def _release(fleet: str, raw: Mapping[str, Any], check_mode: bool) -> Optional[Release]:
    """The release, or None for one that is only predicted: its images are known after the build."""
    if check_mode and not raw.get("variants"):
        _check_prediction(fleet, raw)
        return None
    release = Release.from_dict(raw)
    if release.fleet != fleet:
        raise DriftguardError(
            f"release {release.release_id}", f"a release of fleet {fleet}", f"one of fleet {release.fleet}",
            "hand over this fleet's release")
    return release


def _check_prediction(fleet: str, raw: Mapping[str, Any]) -> None:
    known = (RELEASE_PATTERN, raw.get("release_id")), (SHA_PATTERN, raw.get("sha"))
    if not all(isinstance(value, str) and pattern.match(value) for pattern, value in known):
        raise DriftguardError(
            f"fleet {fleet}, option release", "what worker_image returned, at least its release_id and sha", shown(raw),
            "hand over its result, also in check mode")


def _secrets(options: Mapping[str, Any], services: Mapping[str, Service]) -> dict[str, str]:
    """The secrets that this host's services use; the others have no business here."""
    secrets = read_secrets(options["fleet"], options["secrets"], options["redis_password"])
    refuse_secrets(options["fleet"], services.values(), secrets)
    used = {REDIS_PASSWORD}.union(*(service.secrets for service in services.values()))
    return {name: content for name, content in secrets.items() if name in used}


def _networks(fleet: str, raw: Any) -> tuple[str, ...]:
    try:
        return network_names(raw)
    except Unfit as error:
        raise DriftguardError(
            f"fleet {fleet}, worker_networks", str(error), shown(raw),
            "mend worker_networks in the inventory") from error


def _url(options: Mapping[str, Any], release: Mapping[str, Any]) -> str:
    url = str(options["redis_url"])
    if not options["redis_user_per_release"]:
        return url
    return url_for_user(options["fleet"], url, str(release["release_id"]))


def _check_place(fleet: str, host: str, root: Path, url: str) -> None:
    if not host.isprintable() or not 0 < len(host) <= MAX_HOST:
        raise DriftguardError(
            f"fleet {fleet}, option host", f"a name of 1 to {MAX_HOST} printable characters", shown(host),
            "rename the host in the inventory: workers register with that name")
    if not root.is_absolute():
        raise DriftguardError(f"fleet {fleet}, worker_root", "an absolute path", str(root), "write the whole path")
    if passwords_in(url):
        raise DriftguardError(
            f"fleet {fleet}, worker_redis_url", "a URL without a password, since it becomes an environment variable",
            "one with a password",
            "move the password to worker_redis_password (in a vault): the workers get it as a file")
    parse_redis_url(url)


def _images(fleet: str, services: Mapping[str, Service], release: Optional[Release]) -> dict[str, VariantImage]:
    if release is None:
        return {}
    for service in services.values():
        if service.variant not in release.variants:
            raise DriftguardError(
                f"fleet {fleet}, service {service.name}, key variant",
                f"a variant of the release ({', '.join(sorted(release.variants))})",
                service.variant, "mend the variant, or add it to worker_image_variants")
    used = {service.variant for service in services.values()}
    return {name: image for name, image in release.variants.items() if name in used}
