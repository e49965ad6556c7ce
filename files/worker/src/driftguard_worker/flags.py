# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""Kill switches: fields of one hash in Redis, changed by the deployer's module ``worker_flag``.

Each is read by one service alone, so that there is one answer at a time; ``classification`` by the drainer.
"""

from __future__ import annotations

from redis.asyncio import Redis

from . import logs, names

__all__ = ["Flags"]

_VALUES = {b"true": True, b"false": False}


class Flags:
    """The fleet's kill switches.

    :param client: used by them alone, with time limits.
    """

    def __init__(self, client: Redis, fleet: str) -> None:
        self._client = client
        self._key = names.flags_key(fleet)
        self._log = logs.get("flags")
        self._strange: dict[str, bytes] = {}

    async def enabled(self, name: str, initial: bool) -> bool:
        """Whether a switch is on.

        :param initial: what it is set to if it has never been set; also what counts while it holds something else than
            ``true`` or ``false``.
        :raises redis.exceptions.RedisError: it can't be read.
        """
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.hsetnx(self._key, name, "true" if initial else "false")
            pipe.hget(self._key, name)
            _set, value = await pipe.execute()
        if value in _VALUES:
            self._strange.pop(name, None)
            return _VALUES[value]
        if self._strange.get(name) != value:
            self._log.error(
                "flag not understood",
                flag=name,
                expected="true or false",
                found=ascii(value[:40]),
                used=initial,
                remedy="set it with the module worker_flag",
            )
        self._strange[name] = value
        return initial
