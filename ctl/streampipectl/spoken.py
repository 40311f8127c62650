"""What the declarations of the commands for typer share: options that many have, and how a call is told."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
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


Shared = Mapping[str, tuple[Any, Any]]
"""Options that several commands have: their annotation and their default, by name."""


def asks(command: str, shared: Shared) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """What typer is to know of a command whose function has its own options alone, and its help as a docstring: the
    `shared` ones, and where the daemon is, come behind them. When it is called the call is told."""
    more = {**shared, "socket": (Socket, None), "runtime_dir": (RuntimeDir, None)}.items()

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        def run(context: typer.Context, socket: str | None, runtime_dir: str | None, **options: Any) -> None:
            said(command, context, socket, runtime_dir, **options)

        kind = inspect.Parameter.KEYWORD_ONLY
        own = inspect.signature(function, eval_str=True).parameters.values()
        wanted = [inspect.Parameter("context", kind, annotation=typer.Context)]
        wanted += [parameter.replace(kind=kind) for parameter in own]
        wanted += [inspect.Parameter(name, kind, annotation=what, default=value) for name, (what, value) in more]
        run.__signature__ = inspect.Signature(wanted)  # type: ignore[attr-defined]  # what typer looks at first
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in wanted}
        run.__doc__ = function.__doc__
        return run

    return declare
