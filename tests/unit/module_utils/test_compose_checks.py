# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would only fail, or lie, once the old containers are gone is refused before anything is written."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.compose_checks import (
    check_against_image,
    refuse_secrets,
)
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_spec import Service, read_services
from support.release_data import variant_image


def service(raw: Any = None) -> Service:
    return read_services("demo", {"extractor": raw}, {"memory": "64M"})["extractor"]


def refused(raw: Any, **image: Any) -> str:
    with pytest.raises(DriftguardError) as error:
        check_against_image("demo", service(raw), variant_image(**image))
    assert error.value.subject.startswith("fleet demo, service extractor, ")
    return str(error.value)


@pytest.mark.parametrize(("raw", "image"), [
    (None, {}), ({"volumes": ["data:/data"], "tmpfs": ["/tmp", "/run"]}, {}), (None, {"volumes": ["/data"]}),
    ({"command": ["x"]}, {"cmd": []}), ({"environment": {"PYTHONPATH": "/work/src:/data/lib"}}, {}),
    ({"volumes": ["data:/data"], "command": ["worker", "--data=/data/in"]}, {}),
    ({"command": ["worker", "--pidfile", "/tmp/pid", "--token", "/run/secrets/token"], "tmpfs": ["/tmp", "/run"]}, {}),
    ({"environment": {"NODE_OPTIONS": "--max-old-space-size=100"}}, {}),
    ({"volumes": ["data:/data"], "command": ["sh", "-c", "mkdir -p /data/in && exec worker --in=/data/in"]}, {}),
    ({"volumes": ["home:/home/worker"], "command": ["sh", "-c", "cd /work && exec node index.js"]}, {}),
])
def test_what_fits_its_image(raw: Any, image: dict[str, Any]) -> None:
    check_against_image("demo", service(raw), variant_image(**image))


@pytest.mark.parametrize(("raw", "image", "code"), [
    ({"volumes": ["data:/work"]}, {}, "/work"), ({"volumes": ["/srv/new:/work/src:ro"]}, {}, "/work"),
    ({"tmpfs": ["/work/cache"]}, {}, "/work"), ({"volumes": ["data:/etc"]}, {}, "/etc/driftguard"),
    ({"volumes": ["data:/usr/lib/python3"]}, {}, "/usr"), ({"volumes": ["data:/opt/venv"]}, {}, "/opt"),
    (None, {"volumes": ["/work"]}, "/work"), (None, {"volumes": ["/work/../app/src"]}, "/app"),
    ({"volumes": ["data:/code"]}, {"cmd": ["node", "/code/x.js"]}, "/code"),
    ({"volumes": ["data:/code"]}, {"entrypoint": ["/code/start"]}, "/code"),
    ({"volumes": ["data:/code"], "command": ["/code/start"]}, {}, "/code"),
    ({"volumes": ["data:/code"], "command": ["other"]}, {"cmd": ["/code/start"]}, "/code"),
    ({"command": ["/code/start"]}, {"volumes": ["/code"]}, "/code"),
    ({"volumes": ["data:/data"], "environment": {"PYTHONPATH": "/work:/data/lib"}}, {}, "/data/lib"),
    ({"volumes": ["data:/data"], "environment": {"LD_PRELOAD": "/data/x.so"}}, {}, "/data/x.so"),
    ({"tmpfs": ["/tmp"]}, {"working_dir": "/tmp"}, "/tmp"),
    ({"volumes": ["x:/srv/app"]}, {"cmd": ["/bin/sh", "-c", "exec python /srv/app/worker.py"]}, "/srv/app"),
    ({"volumes": ["x:/home"]}, {"cmd": ["/bin/sh", "-c", "cd /home/app && exec node index.js"]}, "/home/app"),
    ({"volumes": ["x:/home/app"]}, {"cmd": ["node", "home/app/x.js"], "working_dir": "/"}, "/home/app"),
    ({"volumes": ["x:/data"], "environment": {"NODE_OPTIONS": "--require /data/x.js"}}, {}, "/data/x.js"),
    ({"volumes": ["x:/home/app"], "environment": {"HOME": "/home/app"}}, {}, "/home/app/.local"),
    ({"volumes": ["x:/data/node_modules"]}, {}, "/data/node_modules"),
])
def test_no_mount_over_the_code(raw: Any, image: dict[str, Any], code: str) -> None:
    assert f"expected no mount over the code in {code};" in refused(raw, **image)


def test_a_service_needs_a_command() -> None:
    assert "key command: expected a command" in refused(None, cmd=[])


@pytest.mark.parametrize(("raw", "image", "said"), [
    ({"command": ["npx", "tsx", "worker.ts"]}, {}, "key command: expected the built program, without a development"),
    (None, {"cmd": ["nodemon", "x.js"]}, "key command"), (None, {"entrypoint": ["watchfiles"]}, "found watchfiles"),
    ({"environment": {"NODE_OPTIONS": "--import=tsx"}}, {}, "environment NODE_OPTIONS"),
])
def test_no_development_runner(raw: Any, image: dict[str, Any], said: str) -> None:
    assert said in refused(raw, **image)


SECRETS = {"token": "s3cret-token", "key": "-----BEGIN\nline\n-----END"}


@pytest.mark.parametrize(("raw", "place", "name"), [
    ({"environment": {"TOKEN": "s3cret-token"}}, "environment TOKEN", "token"),
    ({"environment": {"URL": "https://user:s3cret-token@host/"}}, "environment URL", "token"),
    ({"environment": {"KEY": "-----BEGIN\nline\n-----END\n"}}, "environment KEY", "key"),
    ({"command": ["worker", "--token", "s3cret-token"]}, "key command", "token"),
    ({"healthcheck": {"test": ["curl", "-H", "Bearer s3cret-token"]}}, "key healthcheck", "token"),
])
def test_no_secret_where_docker_inspect_shows_it(raw: Any, place: str, name: str) -> None:
    with pytest.raises(DriftguardError) as error:
        refuse_secrets("demo", [service(), service(raw)], SECRETS)
    assert f"service extractor, {place}: " in str(error.value)
    assert f"/run/secrets/{name}" in error.value.remedy
    assert not any(content in str(error.value) for content in SECRETS.values())


def test_a_secrets_name_is_no_secret() -> None:
    refuse_secrets(
        "demo", [service({"environment": {"TOKEN_FILE": "/run/secrets/token"}, "healthcheck": False})], SECRETS)
