# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation's worker of one's own, deployed by the collection, and deployed again while it has jobs to do."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import statistics
import threading
import time
from collections import Counter
from typing import Any, Callable, Iterator

import bullmq
import docker
import pytest
from support.fleet import PROJECT, Fleet, FleetRedis, some_fleet, wait_for

APPLICATION = PROJECT / "tests" / "apps" / "pricing"
JOBS = 10_000
BATCH = 50
SERVICES: dict[str, Any] = {"pricing": {"replicas": 4, "concurrency": 4, "memory": "192M"}}


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory, fleet_redis: FleetRedis, reference_image: str
) -> Iterator[Fleet]:
    with some_fleet(tmp_path_factory.mktemp("shop"), fleet_redis, reference_image, SERVICES, APPLICATION) as made:
        defaults = made.variables["worker_service_defaults"]
        defaults.update({"stop_grace_period": "30s", "drain_time": "20s"})
        del defaults["healthcheck"]
        yield made


class Traffic:
    """Adds offers until it is enough, watches what is published and how much is done."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.added = 0
        self.done: list[tuple[float, int]] = []
        self.published: list[tuple[float, dict[str, Any]]] = []
        self.stops: list[float] = []
        self.enough = threading.Event()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._add, self._watch, self._events)]

    def __enter__(self) -> Traffic:
        self._subscription = self.fleet.redis.client.pubsub(ignore_subscribe_messages=True)
        self._subscription.subscribe(f"{self.fleet.name}:release:events")
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        for thread in self._threads[:2]:
            thread.join(30)

    def _add(self) -> None:
        async def add() -> None:
            redis = self.fleet.redis
            connection = {"host": "127.0.0.1", "port": redis.port, "password": redis.password}
            queue = bullmq.Queue("offers", {"connection": connection, "prefix": self.fleet.name})
            while not (self.enough.is_set() and self.added >= JOBS) and not self._over.is_set():
                lines = [{"quantity": 2, "price": 3.5}]
                options = {"attempts": 5, "removeOnComplete": True}
                await queue.addBulk([{"name": "offer", "data": {"lines": lines}, "opts": options}] * BATCH)
                self.added += BATCH
                # As fast as is asked for: the deployments have to take place under load until the end.
                await asyncio.sleep(0.3)
            await queue.close()

        asyncio.run(add())

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            self.done.append((time.time(), self.priced()))
            message = self._subscription.get_message(timeout=0.01)
            if message:
                self.published.append((time.time(), json.loads(message["data"])))

    def _events(self) -> None:
        engine = docker.from_env()
        told: dict[str, float] = {}
        own = {"label": f"com.docker.compose.project={self.fleet.project}"}
        for event in engine.events(decode=True, filters={"type": "container", **own}):
            moment = event["timeNano"] / 1e9
            if event["Action"] == "kill" and event["Actor"]["Attributes"].get("signal") == "15":
                told[event["Actor"]["ID"]] = moment
            elif event["Action"] == "die" and event["Actor"]["ID"] in told:
                self.stops.append(moment - told.pop(event["Actor"]["ID"]))

    @property
    def adding(self) -> bool:
        """Whether offers are still being added."""
        return self._threads[0].is_alive()

    def priced(self) -> int:
        """How many prices there are."""
        return int(self.fleet.redis.client.llen(f"{self.fleet.name}:priced:wait"))

    def prices(self) -> list[dict[str, Any]]:
        """All of them."""
        client = self.fleet.redis.client
        with client.pipeline(transaction=False) as pipe:
            for job in client.lrange(f"{self.fleet.name}:priced:wait", 0, -1):
                pipe.hget(f"{self.fleet.name}:priced:{job}", "data")
            return [json.loads(row) for row in pipe.execute()]

    def stale(self) -> list[dict[str, Any]]:
        """What was started by a release after it was known that it may not."""
        found = []
        ends = [moment for moment, _record in self.published[1:]] + [float("inf")]
        for (start, record), end in zip(self.published, ends, strict=True):
            allowed = {release["releaseId"] for release in record["allowed"]}
            window = (price for price in self.prices() if start < price["admittedAt"] / 1e6 < end)
            found += [price for price in window if price["release"] not in allowed]
        return found

    def rates(self) -> list[float]:
        """Jobs a second, each over about two seconds."""
        every = self.done[::20]
        return [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(every)]


def kill_one(fleet: Fleet) -> str:
    """``kill -9`` of a worker, as when it runs out of memory; the engine starts it again. The container's id."""
    container = random.choice(fleet.containers())
    before = container.attrs["RestartCount"]
    own = [row for row in container.top()["Processes"] if "python" in " ".join(row)]
    os.kill(int(own[0][1]), signal.SIGKILL)

    def again() -> bool:
        container.reload()
        return bool(container.attrs["RestartCount"] > before and container.attrs["State"]["Running"])

    wait_for(again, "the engine to start it again", 30)
    return str(container.id)


def test_deployed_under_load(shop: Fleet, record_property: Callable[[str, object], None]) -> None:
    """Three times, and back once; a worker is killed before each."""
    shop.deploy().must_pass()
    with Traffic(shop) as traffic:
        wait_for(lambda: traffic.priced() > BATCH, "the first prices", 30)
        for _again in range(3):
            kill_one(shop)
            shop.commit()
            shop.deploy().must_pass()
        kill_one(shop)
        shop.play("rollback-workers.yml").must_pass()
        traffic.enough.set()
        wait_for(lambda: not traffic.adding, "all offers to be added", 200)
        wait_for(lambda: traffic.priced() >= traffic.added, "all offers to be priced", 120)
        rates = traffic.rates()
    prices = traffic.prices()
    assert len({price["offer"] for price in prices}) == len(prices) == traffic.added >= JOBS
    assert len({price["release"] for price in prices}) == 4
    assert len(traffic.published) >= 8
    assert traffic.stale() == []
    assert shop.redis.client.llen(f"{shop.name}:offers-dead:wait") == 0
    assert len(traffic.stops) >= 16
    told = {
        "jobs a second, median": statistics.median(rates), "jobs a second, least over two": min(rates),
        "drain, median": statistics.median(traffic.stops), "drain, longest": max(traffic.stops),
    }
    for name, value in told.items():
        record_property(name, round(value, 2))
    print(" · ".join(f"{name} {value:.2f}" for name, value in told.items()))


def states(fleet: Fleet) -> Counter[str]:
    """What its workers say of themselves."""
    client = fleet.redis.client
    members = client.zrange(f"{fleet.name}:workers", 0, -1)
    return Counter(client.hget(f"{fleet.name}:worker:{member}:version", "state") or "gone" for member in members)


def test_a_parked_worker_that_the_engine_restarts_parks_again_without_a_job(shop: Fleet) -> None:
    """As on a host that the deployer can't reach: its own record still allows what the fleet's no longer does."""
    if not shop.containers():
        shop.deploy().must_pass()
    client, key = shop.redis.client, f"{shop.name}:release"
    before = str(client.get(key))
    record = json.loads(before)
    other = {"releaseId": "a" * 12 + ".222222222222", "sha": "a" * 40}
    client.set(key, json.dumps({**record, "target": other, "allowed": [other]}))
    client.publish(f"{key}:events", "")
    wait_for(lambda: states(shop)["fenced"] == 4, "all workers to be fenced", 30)
    priced = client.llen(f"{shop.name}:priced:wait")

    async def add() -> None:
        connection = {"host": "127.0.0.1", "port": shop.redis.port, "password": shop.redis.password}
        queue = bullmq.Queue("offers", {"connection": connection, "prefix": shop.name})
        await queue.add("offer", {"lines": []}, {})
        await queue.close()

    asyncio.run(add())
    again = f"{shop.name}:worker:pricing:{kill_one(shop)[:12]}"
    wait_for(lambda: client.get(f"{again}:starts") == "2", "the killed worker to register again", 30)
    wait_for(lambda: client.hget(f"{again}:version", "state") == "fenced", "it to be fenced", 30)
    assert client.llen(f"{shop.name}:offers:wait") == 1
    assert client.llen(f"{shop.name}:priced:wait") == priced
    # The fleet expects another release by now: on this host everything is stale, and says so.
    shop.verify().must_fail("[STALE]", "[RECORD]")
    client.set(key, before)
    client.publish(f"{key}:events", "")
    wait_for(lambda: client.llen(f"{shop.name}:priced:wait") == priced + 1, "the offer to be priced", 30)
    wait_for(lambda: states(shop)["running"] == 4, "all workers to go on", 30)
