"""Not more than so many a second."""

from __future__ import annotations

import asyncio
from collections import deque


class RateLimiter:
    """For one task: `turn` returns when another one may go, at most `per_second` in any second."""

    def __init__(self, per_second: int) -> None:
        self._went_at_s: deque[float] = deque(maxlen=per_second)

    async def turn(self) -> None:
        loop = asyncio.get_running_loop()
        if len(self._went_at_s) == self._went_at_s.maxlen:
            await asyncio.sleep(self._went_at_s[0] + 1 - loop.time())
        self._went_at_s.append(loop.time())
