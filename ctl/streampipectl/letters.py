"""The commands about dead letters: `streampipectl dlq ...`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from streampipectl import render_letters
from streampipectl.changes import carry_out
from streampipectl.client import Client
from streampipectl.output import dumped, say, width
from streampiped.errors import ExitCode, RpcError, StateError
from streampiped.wire.letters import unpack

PAGE: Final = 1000  # the daemon's limit; it also ends a page when its records get large


def listed(path: str, stage: str | None, status: str, limit: int, as_json: bool) -> int:
    client = Client(path)
    found = list(_letters(client, stage, status, whole=False, limit=limit))
    total = max(client.call("dead_letters", _asked(stage, status, limit=1))["total"], len(found))
    if as_json:
        say(dumped({"letters": found, "total": total}, indent=2))
    else:
        say(render_letters.list_text(found, total, width()))
    return int(ExitCode.OK)


def show(path: str, letter: int, as_json: bool) -> int:
    client = Client(path)
    found = _readable(_completed(client, client.call("dead_letter", {"id": letter})))
    say(dumped(found, indent=2) if as_json else render_letters.letter_text(found))
    return int(ExitCode.OK)


def export(path: str, stage: str | None, status: str) -> int:
    client = Client(path)
    for letter in _letters(client, stage, status, whole=True):
        say(dumped(_readable(_completed(client, letter))))
    return int(ExitCode.OK)


def replay(path: str, letters: tuple[int, ...], every: bool, stage: str | None, timeout: float, wait: bool) -> int:
    chosen = _chosen("replay", letters, every, stage)
    params = {**chosen, "timeout": timeout, "wait": wait}
    return carry_out(path, "replay", params, render_letters.decided_text)


def drop(path: str, letters: tuple[int, ...], every: bool, stage: str | None) -> int:
    chosen = _chosen("drop", letters, every, stage)
    say(render_letters.decided_text(Client(path).call("drop", chosen)))
    return int(ExitCode.OK)


def _chosen(verb: str, letters: tuple[int, ...], every: bool, stage: str | None) -> dict[str, Any]:
    """The daemon would refuse it too, in words for programs."""
    if bool(letters) == every or (letters and stage is not None):
        raise RpcError(f"dlq {verb}: give either numbers of letters or --all, with --stage if you like", ExitCode.USAGE)
    return {"ids": list(letters), "all": every, "stage": stage}


def _letters(
    client: Client, stage: str | None, status: str, whole: bool, limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """Page after page, so that neither side ever holds all of them."""
    after, left = 0, limit
    while left is None or left > 0:
        asked = _asked(stage, status, limit=PAGE if left is None else min(left, PAGE), after=after, whole=whole)
        page = client.call("dead_letters", asked)["letters"]
        if not page:
            return
        yield from page
        after = page[-1]["id"]
        left = None if left is None else left - len(page)


def _asked(stage: str | None, status: str, **more: Any) -> dict[str, Any]:
    return {"stage": stage, "status": None if status == "all" else status, **more}


def _completed(client: Client, letter: dict[str, Any]) -> dict[str, Any]:
    """With the rest of a record that is too long for one answer."""
    record, whole = letter["record"], letter.pop("record_bytes")
    while len(record) < whole:
        record += client.call("dead_letter", {"id": letter["id"], "offset": len(record)})["record"]
    return {**letter, "record": record}


def _readable(letter: dict[str, Any]) -> dict[str, Any]:
    """With the record as JSON can have it; null when its bytes are damaged, which no other letter should suffer for."""
    try:
        record = {name: _json(value) for name, value in unpack(letter["record"]).items()}
    except StateError:
        return {**letter, "record": None}
    return {**letter, "record": record}


def _json(value: Any) -> Any:
    """As the jsonl sink writes it: no number is null, an infinity its word."""
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return None if value != value else value


ACTIONS: Final[Mapping[str, Callable[..., int]]] = {
    "list": listed,
    "show": show,
    "export": export,
    "replay": replay,
    "drop": drop,
}
