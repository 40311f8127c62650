"""A saved model as a file of other programs: `python -m streampiped.model_export onnx|skops < MODEL.npz > FILE`.

A process of its own, begun by `streampipectl model export`: what it imports is heavy, and neither the tool nor the
trainer should carry it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from streampiped.errors import ExitCode, StateError, StreampipeError
from streampiped.learn.class_pool import ClassPool
from streampiped.learn.export.class_convert import classes_to_onnx, classes_to_skops
from streampiped.learn.export.convert import to_onnx, to_skops
from streampiped.learn.npz import from_npz
from streampiped.stages.base import StageContext
from streampiped.stages.model_versions import FORMAT
from streampiped.stages.trainer import Trainer, TrainerOptions

KINDS: Final[Mapping[str, tuple[Callable[..., bytes], Callable[..., bytes]]]] = {
    "onnx": (to_onnx, classes_to_onnx),
    "skops": (to_skops, classes_to_skops),
}
"""Of numbers, of classes."""


def converted(data: bytes, kind: str) -> bytes:
    """The model of an npz file as a file of this kind. StreampipeError when that cannot be."""
    state = from_npz(data)
    if state.get("format") != FORMAT:
        raise StateError(f"a file of format {state.get('format')!r}, should be {FORMAT}")
    options = TrainerOptions.model_validate(state["options"])
    with tempfile.TemporaryDirectory() as directory:
        context = StageContext("trainer", seed=int(state["seed"]), directory=Path(directory))
        pool = Trainer(options, context).saved_pool(state)
    return KINDS[kind][isinstance(pool, ClassPool)](pool, state["features"], options.target)


def main() -> int:
    kind = sys.argv[1] if len(sys.argv) == 2 else ""
    if kind not in KINDS:
        print(f"give one of {', '.join(KINDS)}", file=sys.stderr)
        return int(ExitCode.USAGE)
    try:
        data = converted(sys.stdin.buffer.read(), kind)
    except (StreampipeError, ValueError) as error:
        print(error, file=sys.stderr)
        return int(ExitCode.REFUSED)
    sys.stdout.buffer.write(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
