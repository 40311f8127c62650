"""What the declarations of the commands for typer share: options that many have, and how a call is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

from streampipectl import values
from streampipectl.grammar import Call

T = TypeVar("T")


def checked(convert: Callable[[str], T]) -> Callable[[Any], T]:
    """A converter whose ValueError becomes typer's usage error (exit code 2). typer also passes defaults
    through."""

    def parser(text: Any) -> T:
        try:
            return convert(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    parser.__name__ = convert.__name__
    return parser


_SOCKET = "The daemon's control socket."
_RUNTIME_DIR = "The daemon's runtime directory; default: $STREAMPIPE_RUNTIME_DIR, /run/streampipe, ./var/run."
Socket = Annotated[str | None, typer.Option("--socket", metavar="PATH", help=_SOCKET)]
RuntimeDir = Annotated[str | None, typer.Option("--runtime-dir", metavar="DIR", help=_RUNTIME_DIR)]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON, for programs.")]
Stages = Annotated[list[str] | None, typer.Argument(metavar="STAGE", help="Default: the whole pipeline.")]
Timeout = Annotated[
    str,
    typer.Option(parser=checked(values.duration), metavar="TIME", help="Then exit with 8; the change goes on."),
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done, or only ask for it.")]
CHANGE_TIMEOUT = f"{values.CHANGE_TIMEOUT_S:g}s"
parsed: list[Call] = []
"""What was asked for, once typer has understood it."""


def said(command: str, context: typer.Context, socket: str | None, runtime_dir: str | None, **options: Any) -> None:
    """Where the daemon is may stand before or behind the command; behind it wins."""
    where = {"socket": socket or context.obj["socket"], "runtime_dir": runtime_dir or context.obj["runtime_dir"]}
    parsed.append(Call(command, {**where, **options}))
