# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""worker_compose: a revision is written whole, found again, predicted truly, and bad input leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.driftguard.workers.plugins.module_utils.compose_host import write_compose
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.host_record import HostRecords
from ansible_collections.driftguard.workers.plugins.module_utils.host_secrets import HostSecrets
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import Result
from ansible_collections.driftguard.workers.plugins.module_utils.revisions import Revisions
from support.containers import RELEASE_ID, SHA, FakeEngine
from support.release_data import release_data

PASSWORD = "redis-passw0rd"
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="secret files are given to the image's user, which takes root")


class Place:
    """A host's root directory, and the module's options."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fleet = root / "demo"
        self.options: dict[str, Any] = {
            "fleet": "demo", "root": str(root), "services": {"extractor": {"secrets": ["token"]}},
            "defaults": {"memory": "64M"},
            "placement": None, "host": "host1", "release": release_data(), "generation": 7, "run": "r1",
            "lock_wait": 0.0,
            "redis_url": "redis://redis:6379/0", "redis_password": PASSWORD, "networks": ["demo"], "production": True,
            "redis_user_per_release": False,
            "secrets": {"token": "s3cret-token", "unused": "nobody-wants-it"}}

    def compose(self, check_mode: bool = False, **options: Any) -> Result:
        engine: Any = FakeEngine()
        return write_compose({**self.options, **options}, check_mode, lambda: engine)

    def secret_file(self, content: str, uid: int = 10001) -> Path:
        """The one file of a secret that has this content."""
        (found,) = (path for path in (self.fleet / f"secrets/{uid}").iterdir() if path.read_text() == content)
        return found

    def named(self, number: int) -> set[Path]:
        """The secret files that a revision's compose file names."""
        document = yaml.safe_load((self.fleet / f"revisions/{number}/compose.yml").read_text())
        return {Path(secret["file"]) for secret in document["secrets"].values()}

    def sweep(self) -> None:
        """What worker_rollout does once a revision is settled."""
        HostSecrets(self.fleet).sweep(Revisions(self.fleet))

    def refused(self, **options: Any) -> str:
        """The message; nothing was written, in check mode or out of it."""
        before = self.files()
        with pytest.raises(DriftguardError) as error:
            self.compose(**options)
        with pytest.raises(DriftguardError) as predicted:
            self.compose(True, **options)
        assert self.files() == before
        assert str(predicted.value) == str(error.value)
        assert not any(secret in str(error.value) for secret in (PASSWORD, "s3cret-token"))
        return str(error.value)

    def files(self) -> dict[str, bytes]:
        """What was written, besides the lock and the number that keep other runs out."""
        found = {path.relative_to(self.root): path for path in self.root.rglob("*") if path.is_file()}
        return {str(name): path.read_bytes() for name, path in found.items() if "state" not in name.parts}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@AS_ROOT
def test_a_revision_is_written_with_its_modes(place: Place) -> None:
    result = place.compose()
    assert result.changed
    assert (result.values["revision"], result.values["previous"]) == (7, None)
    marked = re.compile(r"(redis_password|token)\.[0-9a-f]{16}")
    assert sorted(marked.sub(r"\1.<mark>", name) for name in place.files()) == [
        "demo/revisions/7/compose.yml", "demo/revisions/7/release.json", "demo/secrets/.key",
        "demo/secrets/10001/redis_password.<mark>", "demo/secrets/10001/token.<mark>"]
    modes = {
        marked.sub(r"\1", path.name): (path.stat().st_mode & 0o7777, path.stat().st_uid)
        for path in place.fleet.rglob("*")}
    assert modes["7"] == modes["secrets"] == modes["10001"] == (0o700, 0)
    assert modes["compose.yml"] == modes["release.json"] == modes[".key"] == (0o600, 0)
    assert modes["token"] == modes["redis_password"] == (0o400, 10001)


@AS_ROOT
def test_no_secret_leaves_its_file(place: Place) -> None:
    result = place.compose()
    said = json.dumps(result.values) + result.before + result.after
    rest = b"".join(content for name, content in place.files().items() if "/secrets/" not in name)
    for secret in (PASSWORD, "s3cret-token", "nobody-wants-it"):
        assert secret not in said
        assert secret.encode() not in rest
    assert b"nobody-wants-it" not in b"".join(place.files().values())


@AS_ROOT
def test_a_release_logs_in_as_its_own_user(place: Place) -> None:
    place.compose(redis_user_per_release=True)
    (number,) = Revisions(place.fleet).numbers()
    document = yaml.safe_load((place.fleet / f"revisions/{number}/compose.yml").read_text())
    url = document["services"]["extractor"]["environment"]["REDIS_URL"]
    assert url == f"redis://demo.{RELEASE_ID}@redis:6379/0"


def test_a_second_user_in_the_url_is_refused(place: Place) -> None:
    said = place.refused(redis_user_per_release=True, redis_url="redis://me@redis:6379/0")
    assert "worker_redis_url" in said


def test_a_second_run_changes_nothing_and_a_prediction_is_what_the_run_does(place: Place) -> None:
    predicted = place.compose(True)
    assert place.files() == {}
    done = place.compose()
    assert (predicted.changed, predicted.values["revision"]) == (done.changed, done.values["revision"])
    before = place.files()
    for check_mode in (True, False):
        again = place.compose(check_mode, generation=8)
        assert (again.changed, again.values["revision"], again.values["changed_secrets"]) == (False, 7, [])
    assert place.files() == before


@AS_ROOT
def test_another_configuration_is_another_revision_and_the_old_one_is_found_again(place: Place) -> None:
    place.compose()
    changed = place.compose(generation=9, defaults={"memory": "65M"})
    assert (changed.changed, changed.values["revision"]) == (True, 9)
    back = place.compose(generation=10)
    assert (back.changed, back.values["revision"]) == (False, 7)


@AS_ROOT
def test_a_lost_generation_takes_no_number_twice(place: Place) -> None:
    place.compose(generation=9)
    assert place.compose(generation=None, defaults={"memory": "65M"}).values["revision"] == 10


@AS_ROOT
def test_a_run_that_was_overtaken_writes_nothing(place: Place) -> None:
    """What is left of a killed run must not leave its secrets on the host."""
    place.compose(generation=8, run="r2")
    before = place.files()
    for run, generation in (("r1", 7), ("r3", 8)):
        with pytest.raises(DriftguardError, match="state/fence: expected"):
            place.compose(run=run, generation=generation, redis_password="an older one")
    assert place.files() == before


def test_two_runs_do_not_write_at_once(place: Place) -> None:
    with HostRecords(place.root, "demo").lock("the other", 0.0):
        with pytest.raises(DriftguardError, match="run the other"):
            place.compose(generation=None)
        assert place.compose(True).changed
    assert place.files() == {}


@AS_ROOT
def test_a_changed_secret_is_a_new_revision_that_says_only_its_name(place: Place) -> None:
    place.compose()
    result = place.compose(generation=8, secrets={"token": "n3w-s3cret-token"})
    assert (result.changed, result.values["changed_secrets"], result.values["revision"]) == (True, ["token"], 8)
    assert "# secret token: written" in result.after
    assert place.secret_file("n3w-s3cret-token") in place.named(8)


@AS_ROOT
def test_a_changed_secret_is_predicted(place: Place) -> None:
    place.compose()
    changed: dict[str, Any] = {"generation": 8, "secrets": {"token": "n3w-s3cret-token"}}
    predicted, done = place.compose(True, **changed), place.compose(**changed)
    assert (predicted.changed, predicted.values, predicted.after) == (True, done.values, done.after)
    assert not place.compose(True, **changed).changed


@AS_ROOT
def test_two_revisions_have_two_files_and_a_bad_secret_leaves_the_old_one_alone(place: Place) -> None:
    place.compose()
    old = place.secret_file("s3cret-token")
    inode = old.stat().st_ino
    place.compose(generation=8, secrets={"token": "a-bad-secret"})
    assert (old.read_text(), old.stat().st_ino) == ("s3cret-token", inode)
    bad, password = place.secret_file("a-bad-secret"), place.secret_file(PASSWORD)
    assert (place.named(7), place.named(8)) == ({old, password}, {bad, password})
    # Rolled back: revision 7 is found again as it was, and settling it costs revision 8 nothing.
    back = place.compose(generation=9)
    assert (back.changed, back.values["revision"], back.values["changed_secrets"]) == (False, 7, [])
    place.sweep()
    assert all(path.exists() for path in place.named(7) | place.named(8))


@AS_ROOT
def test_killed_between_secret_and_revision(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is a file that no revision names: the same run again takes it, any other one's sweep removes it."""
    place.compose()
    before = place.files()

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    changed: dict[str, Any] = {"generation": 8, "secrets": {"token": "n3w-s3cret-token"}}
    for again in (False, True):
        with monkeypatch.context() as patched:
            patched.setattr(Revisions, "write", killed)
            with pytest.raises(KeyboardInterrupt):
                place.compose(**changed)
        assert len(place.files()) == len(before) + 1
        if not again:
            place.sweep()
            assert place.files() == before
    predicted, done = place.compose(True, **changed), place.compose(**changed)
    for result in (predicted, done):
        assert (result.changed, result.values["revision"], result.values["changed_secrets"]) == (True, 8, [])
    place.sweep()
    assert place.secret_file("n3w-s3cret-token") in place.named(8)


@AS_ROOT
def test_revisions_of_the_older_layout_keep_their_files(place: Place) -> None:
    """The file was named by its secret alone and written in place; a later run must leave it as it is."""
    place.compose()
    compose_file = place.fleet / "revisions/7/compose.yml"
    for path in place.named(7):
        older = path.with_suffix("")
        path.rename(older)
        compose_file.write_text(compose_file.read_text().replace(str(path), str(older)))
    before = place.files()
    result = place.compose(generation=8)
    assert (result.changed, result.values["revision"]) == (True, 8)
    place.sweep()
    assert {name: content for name, content in place.files().items() if name in before} == before
    shutil.rmtree(compose_file.parent)
    place.sweep()
    assert set((place.fleet / "secrets/10001").iterdir()) == place.named(8)


@AS_ROOT
@pytest.mark.parametrize("spoil", [
    Path.unlink, lambda path: path.chmod(0o440), lambda path: os.chown(path, 4, 4),
    lambda path: path.write_text("another-one"),
])
def test_a_spoiled_file_is_written_again_under_the_same_revision(place: Place, spoil: Any) -> None:
    place.compose()
    path = place.secret_file("s3cret-token")
    spoil(path)
    for check_mode in (True, False):
        result = place.compose(check_mode, generation=8)
        assert (result.changed, result.values["revision"], result.values["changed_secrets"]) == (True, 7, ["token"])
    facts = path.stat()
    assert (path.read_text(), facts.st_uid, facts.st_mode & 0o7777) == ("s3cret-token", 10001, 0o400)
    assert not place.compose(generation=9).changed


@AS_ROOT
def test_a_user_gets_the_secrets_of_its_own_services_and_a_sweep_leaves_them(place: Place) -> None:
    """A file that the compose file doesn't name would be swept and written again at every run."""
    services = {"extractor": {"secrets": ["token"]}, "ocr": {"variant": "ocr"}}
    place.compose(services=services)
    found = {str(path.relative_to(place.fleet / "secrets").with_suffix("")) for path in place.named(7)}
    assert found == {"0/redis_password", "10001/redis_password", "10001/token"}
    before = place.files()
    place.sweep()
    assert place.files() == before
    for check_mode in (True, False):
        assert not place.compose(check_mode, services=services, generation=8).changed
    assert place.files() == before


@AS_ROOT
def test_names_with_dots(place: Place) -> None:
    secrets = {"token": "s3cret-token", "token.0123456789abcdef": "an0ther-secret", "a.b": "a-third-secret"}
    services = {"extractor": {"secrets": list(secrets)}}
    place.compose(secrets=secrets, services=services)
    place.sweep()
    assert len(place.named(7)) == len(secrets) + 1
    for name, content in secrets.items():
        assert place.secret_file(content).name.rpartition(".")[0] == name
    assert not place.compose(secrets=secrets, services=services, generation=8).changed


@AS_ROOT
def test_the_diff_is_against_what_was_proved(place: Place) -> None:
    place.compose()
    revisions = Revisions(place.fleet)
    assert place.compose(generation=8, defaults={"memory": "65M"}).before == ""
    revisions.settle(revisions.load(7), 7)
    result = place.compose(True, generation=9, defaults={"memory": "66M"})
    assert result.before == (place.fleet / "revisions/7/compose.yml").read_text()
    assert result.values["previous"] == 7


@AS_ROOT
def test_some_services_of_the_proved_release(place: Place) -> None:
    assert "or a proved revision on this host" in place.refused(release=None)
    place.compose()
    revisions = Revisions(place.fleet)
    revisions.settle(revisions.load(7), 7)
    again = place.compose(release=None)
    assert (again.changed, again.values["desired"]["release"]) == (False, release_data())


def test_a_release_that_is_not_built_yet_is_predicted(place: Place) -> None:
    result = place.compose(True, release={"release_id": RELEASE_ID, "sha": SHA})
    assert result.changed
    assert "image: (known after the build)" in result.after.replace('"', "")
    assert result.values["desired"]["services"]["extractor"]["spec"] is None
    with pytest.raises(DriftguardError, match="release"):
        place.compose(release={"release_id": RELEASE_ID, "sha": SHA})


@pytest.mark.parametrize(
    "release", [{}, {"sha": SHA}, {"sha": "x", "release_id": RELEASE_ID}, {"variants": {}, "sha": 5}]
)
def test_a_prediction_needs_a_commit(place: Place, release: Any) -> None:
    with pytest.raises(DriftguardError, match="option release"):
        place.compose(True, release=release)


@pytest.mark.parametrize(("options", "said"), [
    ({"fleet": "../x"}, "worker_fleet"), ({"services": {}}, "worker_fleet_services"),
    ({"placement": ["nobody"]}, "'nobody'"),
    ({"services": {"extractor": {"variant": "gpu"}}}, "a variant of the release (base, ocr); found gpu"),
    ({"services": {"extractor": {"secrets": ["nobody"]}}}, "key secrets"),
    ({"services": {"extractor": {"volumes": ["x:/work"]}}}, "no mount over the code"),
    ({"release": release_data("other")}, "a release of fleet demo; found one of fleet other"),
    ({"redis_url": f"redis://:{PASSWORD}@redis/0"}, "a URL without a password"),
    ({"redis_url": "redis"}, "option redis_url"),
    ({"redis_url": "redis://x/0\nA=b"}, "option redis_url"), ({"host": "a\nb"}, "option host"),
    ({"host": ""}, "option host"),
    ({"host": "\ud800"}, "option host"), ({"networks": ["${X}"]}, "worker_networks"),
    ({"networks": ["host"]}, "user-defined"),
    ({"secrets": {"token": "short"}}, "secret token"), ({"secrets": {"../token": "long-enough"}}, "worker_secrets"),
    ({"secrets": {"token": "lone \ud800 surrogate"}}, "secret token"), ({"root": "relative"}, "worker_root"),
    ({"services": {"extractor": {"environment": {"URL": f"redis://:{PASSWORD}@x"}}}}, "environment URL"),
])
def test_bad_input_is_named_and_leaves_nothing(place: Place, options: dict[str, Any], said: str) -> None:
    assert said in place.refused(**options)


def test_without_an_engine_nothing_is_written(place: Place) -> None:
    def connect() -> Any:
        raise DriftguardError("Docker Engine", "an engine", "none", "start it")

    with pytest.raises(DriftguardError, match="Docker Engine"):
        write_compose(place.options, False, connect)
    assert place.files() == {}
