"""Lines of keys, and what can be saved of a text that is no TOML."""

from __future__ import annotations

from streampiped.toml_text import key_lines, parse

TEXT = '''\
# [commented]
[pipeline]  # the whole
name = "a = b"
text = """
[not_a_table]
not_a_key = 1
"""
"quoted" = 2
stages.inline.class = "x"

[ stages . "n" ]
list = [
  "a = 1",
  { b = 2 },
]
[[stages.n.rolling]]
window = 1
[[stages.n.rolling]]
window = 2
'''


def test_keys_and_tables_have_their_line() -> None:
    """Every table and key that begins a line is found there, nothing inside texts and comments."""
    assert key_lines(TEXT) == {
        "pipeline": 2,
        "pipeline.name": 3,
        "pipeline.text": 4,
        "pipeline.quoted": 8,
        "pipeline.stages.inline.class": 9,
        "stages.n": 11,
        "stages.n.list": 12,
        "stages.n.rolling[0]": 16,
        "stages.n.rolling[0].window": 17,
        "stages.n.rolling[1]": 18,
        "stages.n.rolling[1].window": 19,
    }


def _parsed(text: str) -> tuple[dict[str, object] | None, list[tuple[int | None, str, str]]]:
    told: list[tuple[int | None, str, str]] = []
    return parse(text, lambda line, key, right: told.append((line, key, right))), told


def test_right_text_is_only_parsed() -> None:
    """Nothing is told about TOML."""
    data, told = _parsed(TEXT)
    assert data is not None
    assert not told


def test_every_repeated_table_is_told() -> None:
    """Repeated tables are told one by one with their lines, and all first ones are kept."""
    data, told = _parsed("[a]\nx = 1\n[b]\n[a]\nx = 2\n[c]\ny = 3\n[b]\nz = 4\n")
    assert data == {"a": {"x": 1}, "b": {}, "c": {"y": 3}}
    assert told == [
        (4, "a", "the table is declared twice; the first is on line 1"),
        (8, "b", "the table is declared twice; the first is on line 3"),
    ]


def test_error_at_the_end_has_no_line() -> None:
    """An error that the parser cannot place is told without a line."""
    data, told = _parsed('a = """never closed')
    assert data is None
    assert [(line, key) for line, key, _ in told] == [(None, "")]
