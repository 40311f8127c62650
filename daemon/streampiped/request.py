"""What an operator wants, on its way through the decisions."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from streampiped.errors import RpcError


@dataclass(frozen=True, slots=True)
class Request:
    """Answered late, perhaps, and once for good."""

    late: asyncio.Future[str]
    """It takes longer than the operator wants to wait, and why."""
    answer: asyncio.Future[tuple[int, str]]
    """How it ended."""

    async def ended(self) -> str:
        """What there is to say; RpcError when it did not come about."""
        code, text = await self.answer
        if code:
            raise RpcError(text, code)
        return text
