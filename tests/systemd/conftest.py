"""One booted systemd for each test file of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.nspawn import Container, booted

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A running systemd that sees the checkout."""
    with booted(tmp_path_factory.mktemp("box"), shared=[REPOSITORY]) as container:
        yield container
