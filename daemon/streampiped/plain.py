"""Text for a terminal whose encoding lacks some of it."""

from __future__ import annotations

from typing import Final

_ASCII: Final = str.maketrans("▁▂▃▄▅▆▇█…", ".:-=+*%#~")


def plain(text: str, encoding: str | None) -> str:
    """The text, with bars and ellipses in ASCII where `encoding` (None: nobody knows) has none.

    >>> plain("▁█ …", "ascii"), plain("▁█ …", "utf-8")
    ('.# ~', '▁█ …')
    """
    try:
        text.encode(encoding or "ascii")
    except UnicodeEncodeError:
        return text.translate(_ASCII)
    return text
