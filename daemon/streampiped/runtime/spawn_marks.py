"""What supervisor and launcher must agree on to find the processes of a run."""

from __future__ import annotations

from typing import Final

MARK: Final = "STREAMPIPE_RUN"
"""In the environment of the launcher and so of every descendant: which run it belongs to."""
WARDEN: Final = "warden"
"""The short name of the launcher's warden."""
