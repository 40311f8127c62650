"""The commands about models, as `interface.py` declares the others. Each function is a declaration alone: its own
options and its help; `asks` adds those that many have, and tells the call."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from streampipectl import values
from streampipectl.spoken import CHANGE_TIMEOUT, Json, Timeout, Wait, asks, checked

model = typer.Typer(
    help="Look at versions of the model, and decide which is served.", no_args_is_help=True, rich_markup_mode=None
)

Stage = Annotated[
    str | None, typer.Option("--stage", metavar="STAGE", help="Whose model; default: the one stage that has one.")
]
Version = Annotated[int | None, typer.Argument(parser=checked(values.version), metavar="VERSION")]
ANumber = Annotated[int, typer.Argument(parser=checked(values.version), metavar="VERSION")]
Member = Annotated[str, typer.Argument(metavar="MEMBER")]
Limit = Annotated[str, typer.Option(parser=checked(values.version_count), metavar="N", help="So many of the newest.")]
Output = Annotated[str | None, typer.Option("--output", metavar="FILE", help="Write it there, whole or not at all.")]
Kind = Annotated[
    str,
    typer.Option("--format", parser=checked(values.export_format), metavar="FORMAT", help="json, npz, skops, onnx."),
]
Model = Annotated[
    str | None,
    typer.Option("--model", parser=checked(values.version), metavar="VERSION", help="Default: what is served."),
]
Source = Annotated[
    str, typer.Option("--from", parser=checked(values.row_format), metavar="csv|jsonl|auto", help="What comes in.")
]
Target = Annotated[
    str, typer.Option("--to", parser=checked(values.row_format), metavar="csv|jsonl|auto", help="auto: as it comes in.")
]
AsIs = Annotated[bool, typer.Option("--as-is", help="The rows are as the model gets them, not as the stream has them.")]

LOOK: Final = {"stage": (Stage, None)}
CHANGE: Final = {"stage": (Stage, None), "timeout": (Timeout, CHANGE_TIMEOUT), "wait": (Wait, True)}


@model.command("list")
@asks("model list", LOOK)
def model_list(limit: Limit = str(values.VERSIONS), as_json: Json = False) -> None:
    """List the versions. Why each was made, who served from which row to which."""


@model.command("show")
@asks("model show", LOOK)
def model_show(version: Version = None, as_json: Json = False) -> None:
    """Show a version, or what is served now. Its members, who leads, what it has learned."""


@model.command("export")
@asks("model export", LOOK)
def model_export(version: Version = None, output: Output = None, kind: Kind = values.EXPORT_FORMAT) -> None:
    """Write a version, or what is served now. As a file that others can read."""


@model.command("promote")
@asks("model promote", CHANGE)
def model_promote(member: Member) -> None:
    """Serve this member from now on, until another one is better."""


@model.command("pin")
@asks("model pin", CHANGE)
def model_pin(member: Member) -> None:
    """Serve this member until it is unpinned, whoever is better. `current` is the one that is served."""


@model.command("unpin")
@asks("model unpin", CHANGE)
def model_unpin() -> None:
    """Let the best member be served again."""


@model.command("rollback")
@asks("model rollback", CHANGE)
def model_rollback(version: ANumber) -> None:
    """Make the model what it was in this version. It goes on learning from there."""


@asks("predict", LOOK)
def predict(
    version: Model = None, source: Source = values.ROW_FORMAT, target: Target = values.ROW_FORMAT, as_is: AsIs = False
) -> None:
    """Print rows from standard input with their predictions. CSV with a header, or an object of JSON per line."""
