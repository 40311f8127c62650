"""The law has teeth: every broken rule is caught, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from sim.daemon import Daemon
from sim.mutations import MUTATIONS, Mutation, calm, caught, with_process
from sim.process import Process

EACH = pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.rule.replace(" ", "_"))


@EACH
def test_broken_rule_is_caught(mutation: Mutation) -> None:
    """With this rule of the protocol broken, the law does not hold within a bounded number of schedules."""
    assert caught(mutation) is not None, f"{mutation.most} schedules, and none notices: {mutation.rule}"


@EACH
def test_undisturbed_stream_shows_what_the_table_says(mutation: Mutation) -> None:
    """Where nothing goes wrong the law holds with this rule broken, but in the topologies that the table excepts."""
    assert calm(mutation) == set(mutation.calm)


# what is no broken rule


class Harmless(Process):
    def leave(self) -> None:
        """Asked twice is asked."""
        super().leave()
        super().leave()


class Mistaken(Daemon):
    def _save(self, path: str, data: bytes) -> Iterator[None]:
        raise AttributeError(path)


def test_harmless_change_is_not_caught() -> None:
    """The law says nothing about a change that breaks no rule."""
    assert caught(Mutation("none", with_process(Harmless), most=50)) is None


@pytest.mark.parametrize("look", [caught, calm])
def test_mistake_of_a_mutation_is_not_caught(look: Callable[[Mutation], object]) -> None:
    """A mutation that only fails of itself is an error of the test and no finding of the law."""
    with pytest.raises(AttributeError, match="manifest"):
        look(Mutation("a mistake", Mistaken, most=100))
