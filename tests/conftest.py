"""Puts tests/ on the import path, so that every test finds tests/support."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

# A shell that runs us in the background ignores SIGINT, and so would every process that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What takes longest comes first, so that no worker is left with a long file when the others have done.
_ORDER = ("sim", "systemd", "system", "tidy", "stages", "pure")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Orders the tests by their folder, in each as they stand."""
    items.sort(key=lambda item: _ORDER.index(item.path.parent.name))
