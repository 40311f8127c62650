"""A stage that is told a secret and is careless with it: in an event and in an error."""

from __future__ import annotations

import hashlib

from pydantic import Field, SecretStr, model_validator

from streampiped.errors import OptionError
from streampiped.records import Batch
from streampiped.stages.base import Stage, StageContext, StageOptions


class Inner(StageOptions):
    """A table of the options."""

    password: SecretStr = SecretStr("")


class CarelessOptions(StageOptions):
    """What a class of somebody's own may want."""

    token: str
    names: dict[str, str] = Field(default_factory=dict)
    hosts: list[Inner] = Field(default_factory=list)
    refuse: bool = False
    explode: bool = False

    @model_validator(mode="after")
    def _explode(self) -> CarelessOptions:
        if self.explode:
            raise KeyError(f"tcp://me:{self.token}@host")
        return self


class Careless(Stage):
    """Lets the first batch through and raises at the second one, once."""

    Options = CarelessOptions

    def __init__(self, options: CarelessOptions, context: StageContext) -> None:
        if options.refuse:
            raise OptionError(f"cannot reach tcp://me:{options.token}@host")
        self._token = options.token
        self._mark = context.directory / "raised"
        digest = hashlib.sha256(options.token.encode()).hexdigest()[:12]
        context.emit("stage_note", text=f"{digest} of {options.token}")

    def process(self, batch: Batch) -> Batch | None:
        if not self._mark.exists():
            self._mark.touch()
            raise ConnectionError(f"cannot reach tcp://me:{self._token}@host")
        return batch
