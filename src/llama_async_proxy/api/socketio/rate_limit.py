"""A limit of so many a second."""

from __future__ import annotations

import asyncio
from collections import deque


class RateLimiter:
    """Lets one task go on at most `per_second` times in any second."""

    def __init__(self, per_second: int) -> None:
        self._times_s: deque[float] = deque(maxlen=per_second)

    async def turn(self) -> None:
        """Wait until the limit allows another turn."""
        loop = asyncio.get_running_loop()
        if len(self._times_s) == self._times_s.maxlen:
            await asyncio.sleep(self._times_s[0] + 1 - loop.time())
        self._times_s.append(loop.time())
