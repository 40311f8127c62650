"""streampipectl's words about models."""

from __future__ import annotations

from typing import Any

import pytest

from streampipectl.render_model import list_text


@pytest.mark.parametrize(
    ("pinned", "end"), [(None, "which is a guess: nothing beats it"), ("mean", "which is a guess")]
)  # fmt: skip
def test_a_guess_that_is_pinned_is_not_called_unbeaten(pinned: str | None, end: str) -> None:
    """That nothing beats it is said where the test says so, and not where an operator wants it."""
    model: dict[str, Any] = {"stage": "trainer", "versions": [], "total": 0, "champion": "mean", "fallback": True}
    assert list_text(model | {"pinned": pinned}).endswith(end)
