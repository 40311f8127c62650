"""Secrets that options name and do not contain: `password = { credential = "mqtt" }`.

systemd's LoadCredential= gives the service a directory, $CREDENTIALS_DIRECTORY, that nobody else can read
(systemd.exec(5)). A stage's process reads the file there when it makes the options of its class; so does the check of a
configuration, in a process that is thrown away. What travels as the plan, and what anybody is shown of it, has the name
alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, quote_plus

from pydantic import BaseModel, ValidationError

from streampiped.errors import OptionError, StreampipeError

VARIABLE: Final = "CREDENTIALS_DIRECTORY"
BESIDE: Final = "credentials"
"""The directory beside the configuration file that is looked into without systemd: by `check`, in the foreground."""
KEY: Final = "credential"
NAME: Final = re.compile(r"(?!\.\.?$)[A-Za-z0-9_.-]{1,255}")
MASK: Final = "********"
SECRET_CHARS_MIN: Final = 4  # with fewer, the mask would be all over every text, and tell by its places what it hides
LINE_CHARS_MIN: Final = 8  # of a line of a secret that is masked alone; shorter ones are words

Loc = tuple[int | str, ...]
ModelT = TypeVar("ModelT", bound=BaseModel)


class CredentialError(OptionError):
    """Credentials that cannot be had. `missing`: where in the options, as pydantic says it, and what would be right."""

    def __init__(self, missing: list[tuple[Loc, str]]) -> None:
        self.missing = missing
        super().__init__("; ".join(f"{'.'.join(map(str, loc))} {right}" for loc, right in missing))


class MaskedError(StreampipeError):
    """An error that quoted a secret, with a mask in its place; its traceback is a note."""


class Credentials:
    """Makes options out of what is written, and knows afterwards which texts nobody may be shown."""

    def __init__(self, config_file: str | Path, environ: Mapping[str, str] = os.environ) -> None:
        self._directory = Path(environ.get(VARIABLE) or Path(config_file).absolute().parent / BESIDE)
        self._secrets: set[str] = set()

    def options(self, model: type[ModelT], written: Mapping[str, Any]) -> ModelT:
        """The options as their class wants them. A table `{ credential = "NAME" }` is a secret exactly where the class
        wants text; elsewhere (a table of columns, one of them named so) it stays what it is. Raises pydantic's
        ValidationError and `CredentialError`."""
        data = dict(written)
        try:
            return model.model_validate(data)
        except ValidationError as error:
            wanted = [i for i in error.errors(include_url=False) if i["type"] == "string_type" and is_name(i["input"])]
            if not wanted:
                raise
        found: dict[int, str] = {}
        missing: list[tuple[Loc, str]] = []
        for item in wanted:
            try:
                found[id(item["input"])] = self._read(item["input"][KEY])
            except OptionError as error:
                missing.append((item["loc"], str(error)))
        if missing:
            raise CredentialError(missing)
        return model.model_validate(_replaced(data, found))

    def masked(self, text: str) -> str:
        """The text without any secret that was read here: an error may quote the address that it could not reach."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, MASK)
        return text

    @contextlib.contextmanager
    def masking(self) -> Iterator[None]:
        """What is raised inside and would show a secret is told again as a `MaskedError`."""
        try:
            yield
        except (Exception, SystemExit) as error:
            told = "".join(traceback.format_exception(error))
            text = f"{type(error).__name__}: {error}"
            if self.masked(told) == told and self.masked(text) == text:
                raise
            again = MaskedError(self.masked(text))
            again.add_note(self.masked(told))
            raise again from None

    def masked_fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The same of every text in the fields, however deep."""
        return {name: self._masked_value(value) for name, value in fields.items()} if self._secrets else dict(fields)

    def _masked_value(self, value: Any) -> Any:
        match value:
            case str():
                return self.masked(value)
            case dict():
                return {self._masked_value(key): self._masked_value(inner) for key, inner in value.items()}
            case list() | tuple():
                return [self._masked_value(inner) for inner in value]
            case _:
                return value

    def _read(self, name: str) -> str:
        """The text of the file, without the line end that an editor leaves."""
        if NAME.fullmatch(name) is None:
            raise OptionError("should name a credential with letters, digits, '_', '-' and '.'")
        path = self._directory / name
        given = f"a service is given it by LoadCredential={name}:FILE in a drop-in"
        try:
            text = path.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise OptionError(f"{path} should be UTF-8 text") from None
        except OSError as error:
            raise OptionError(f"{path} cannot be read: {error.strerror}; {given}") from None
        if not text:
            raise OptionError(f"{path} is empty")
        if len(text.strip()) < SECRET_CHARS_MIN:
            raise OptionError(
                f"{path} has fewer than {SECRET_CHARS_MIN} characters, which could not be kept out of what is shown"
            )
        self._secrets |= set(_forms(text))
        return text


def _forms(secret: str) -> Iterator[str]:
    """How it may stand in a text: as it is, quoted by Python, JSON or a URL, and each line of a longer one (a key)."""
    for text in (secret, *(line for line in secret.splitlines() if len(line) >= LINE_CHARS_MIN)):
        yield text
        yield repr(text)[1:-1]
        yield json.dumps(text)[1:-1]
        yield json.dumps(text, ensure_ascii=False)[1:-1]
        yield quote(text)
        yield quote(text, safe="")
        yield quote_plus(text)


def is_name(value: Any) -> bool:
    """It has the form `{ credential = "NAME" }`."""
    return isinstance(value, dict) and value.keys() == {KEY} and isinstance(value[KEY], str)


def _replaced(value: Any, found: Mapping[int, str]) -> Any:
    """A copy with these objects replaced. By identity: an equal table elsewhere may be what it seems."""
    if id(value) in found:
        return found[id(value)]
    if isinstance(value, dict):
        return {key: _replaced(inner, found) for key, inner in value.items()}
    return [_replaced(inner, found) for inner in value] if isinstance(value, list) else value
