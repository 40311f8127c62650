"""The law has teeth: every broken rule is caught."""

from __future__ import annotations

import pytest

from sim.mutations import MUTATIONS, Mutation, caught


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.rule.replace(" ", "_"))
def test_broken_rule_is_caught(mutation: Mutation) -> None:
    """With this rule of the protocol broken, the law does not hold within a bounded number of schedules."""
    assert caught(mutation) is not None, f"{mutation.most} schedules, and none notices: {mutation.rule}"
