"""What a stage gives must be a batch that its readers can take (docs/specs/stage.md, rules 9 and 16).

A wrong one is its author's failure, told where it was made, and not that of the innocent who would read it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from streampiped.errors import OutputError
from streampiped.records import ROWS_MAX, Batch, Block

KEPT: Final = "rows keep the spans that they came with, as Batch.with_columns and Batch.select see to"
BUILT: Final = "Batch.build makes all of it fit"


def check_output(batch: Batch, sources: Collection[str]) -> None:
    """OutputError unless rows, spans, blocks and schema go together, and every span is of one of `sources`. Looks at no
    value: 0.3 us for a span and two blocks."""
    rows, schema = batch.rows, batch.schema
    told = 0
    for span in batch.spans:
        if span.source not in sources or span.start < 0 or span.count < 0:
            raise _wrong(batch, f"has a span of no source of this pipeline: {span}", f"{KEPT}; {sorted(sources)}")
        told += span.count
    if told != rows:
        raise _wrong(batch, f"has spans of {told}", KEPT)
    if not 0 <= rows <= ROWS_MAX or batch.sequence < 0:
        raise _wrong(batch, "has a number that no batch has", f"0 to {ROWS_MAX} rows, sequence from 0 on")
    floats, ints = batch.floats, batch.ints
    if not (_fits(floats, rows, schema.floats) and _fits(ints, rows, schema.ints)):
        has = ", ".join(f"{block.rows} rows of {len(block.names)} {kind}" for block, kind in _kinds(batch))
        says = f"{len(schema.floats)} float columns and {len(schema.ints)} int columns, in the schema's order"
        raise _wrong(batch, f"has blocks of {has}, which is not what its schema says: {says}", BUILT)
    for name in schema.texts:
        if name not in batch.texts or len(batch.texts[name]) != rows:
            raise _wrong(batch, f"has {len(batch.texts.get(name, ()))} texts of the column {name!r}", BUILT)


def _fits(block: Block, rows: int, names: tuple[str, ...]) -> bool:
    return block.rows == rows and (block.names is names or block.names == names)


def _kinds(batch: Batch) -> tuple[tuple[Block, str], tuple[Block, str]]:
    return (batch.floats, "float columns"), (batch.ints, "int columns")


def _wrong(batch: Batch, what: str, right: str) -> OutputError:
    return OutputError(f"the result, batch {batch.sequence} of {batch.rows} rows, {what}. Right would be: {right}")
