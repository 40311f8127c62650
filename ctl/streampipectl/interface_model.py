"""The commands about models, as `interface.py` declares the others."""

from __future__ import annotations

from typing import Annotated

import typer

from streampipectl import values
from streampipectl.spoken import CHANGE_TIMEOUT, Json, RuntimeDir, Socket, Timeout, Wait, checked, said

model = typer.Typer(
    help="Look at the versions of the model, take one along, and decide which is served.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Stage = Annotated[
    str | None, typer.Option("--stage", metavar="STAGE", help="Whose model; default: the one stage that has one.")
]
Version = Annotated[int | None, typer.Argument(parser=checked(values.version), metavar="VERSION")]
ANumber = Annotated[int, typer.Argument(parser=checked(values.version), metavar="VERSION")]
Member = Annotated[str, typer.Argument(metavar="MEMBER")]


@model.command("list")
def model_list(
    context: typer.Context,
    stage: Stage = None,
    limit: Annotated[
        str, typer.Option(parser=checked(values.version_count), metavar="N", help="So many of the newest.")
    ] = str(values.VERSIONS),
    as_json: Json = False,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """List the versions: why each was made, who served from which row to which."""
    said("model list", context, socket, runtime_dir, stage=stage, limit=limit, as_json=as_json)


@model.command("show")
def model_show(
    context: typer.Context,
    version: Version = None,
    stage: Stage = None,
    as_json: Json = False,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Show one version, or what is served now: its members, who leads, what it has learned."""
    said("model show", context, socket, runtime_dir, version=version, stage=stage, as_json=as_json)


@model.command("export")
def model_export(
    context: typer.Context,
    version: Version = None,
    output: Annotated[
        str | None, typer.Option("--output", metavar="FILE", help="Write it there, whole or not at all.")
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            "--format", parser=checked(values.export_format), metavar="FORMAT", help="json, npz, skops, onnx."
        ),
    ] = values.EXPORT_FORMAT,
    stage: Stage = None,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Write one version, or what is served now, as a file that others can read."""
    said("model export", context, socket, runtime_dir, version=version, output=output, kind=kind, stage=stage)


@model.command("promote")
def model_promote(
    context: typer.Context,
    member: Member,
    stage: Stage = None,
    timeout: Timeout = CHANGE_TIMEOUT,
    wait: Wait = True,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Serve this member from now on, until another one is better."""
    options = {"member": member, "stage": stage, "timeout": timeout, "wait": wait}
    said("model promote", context, socket, runtime_dir, **options)


@model.command("pin")
def model_pin(
    context: typer.Context,
    member: Member,
    stage: Stage = None,
    timeout: Timeout = CHANGE_TIMEOUT,
    wait: Wait = True,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Serve this member (`current`: the one that is served) until it is unpinned, whoever is better."""
    options = {"member": member, "stage": stage, "timeout": timeout, "wait": wait}
    said("model pin", context, socket, runtime_dir, **options)


@model.command("unpin")
def model_unpin(
    context: typer.Context,
    stage: Stage = None,
    timeout: Timeout = CHANGE_TIMEOUT,
    wait: Wait = True,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Let the best member be served again."""
    said("model unpin", context, socket, runtime_dir, stage=stage, timeout=timeout, wait=wait)


@model.command("rollback")
def model_rollback(
    context: typer.Context,
    version: ANumber,
    stage: Stage = None,
    timeout: Timeout = CHANGE_TIMEOUT,
    wait: Wait = True,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Make the model what it was in this version; it goes on learning from there."""
    options = {"version": version, "stage": stage, "timeout": timeout, "wait": wait}
    said("model rollback", context, socket, runtime_dir, **options)


def predict(
    context: typer.Context,
    stage: Stage = None,
    version: Annotated[
        str | None,
        typer.Option("--model", parser=checked(values.version), metavar="VERSION", help="Default: what is served."),
    ] = None,
    source: Annotated[
        str, typer.Option("--from", parser=checked(values.row_format), metavar="csv|jsonl|auto", help="What comes in.")
    ] = values.ROW_FORMAT,
    target: Annotated[
        str,
        typer.Option("--to", parser=checked(values.row_format), metavar="csv|jsonl|auto", help="auto: as it comes in."),
    ] = values.ROW_FORMAT,
    as_is: Annotated[
        bool, typer.Option("--as-is", help="The rows are as the model gets them, not as the stream has them.")
    ] = False,
    socket: Socket = None,
    runtime_dir: RuntimeDir = None,
) -> None:
    """Predict rows from standard input, CSV with a header or JSON lines, and print them with the predictions."""
    options = {"stage": stage, "version": version, "source": source, "target": target, "as_is": as_is}
    said("predict", context, socket, runtime_dir, **options)
