"""A model as plain numbers for use elsewhere: no numpy, no pickle. docs/components/trainer.md has the formulas."""

from __future__ import annotations

from typing import Any

from streampiped.learn.portable import to_plain
from streampiped.learn.rivals import Rivals


def export(pool: Rivals[Any]) -> dict[str, Any]:
    """`streampipe-model/1`: the champion, its parameters where they are plain numbers, and all that it has learned
    (arrays as dtype, shape and little-endian bytes)."""
    champion = pool.champion
    return {
        "format": "streampipe-model/1",
        "champion": champion.name,
        "kind": champion.member.kind,
        "parameters": champion.member.parameters(),
        "frame": to_plain(pool.frame_state()),
        "state": to_plain(champion.state()),
        "rows_learned": pool.learned,
    }
