"""One booted systemd for each test file of this folder, and streampipe installed on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.nspawn import Container, booted
from support.service import install, shared_directories


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A running systemd that sees the checkout and the environment that runs these tests."""
    with booted(tmp_path_factory.mktemp("box"), shared=shared_directories()) as container:
        yield container


@pytest.fixture(scope="module")
def installed(box: Container) -> Container:
    """The same after `make install`."""
    install(box)
    return box
