"""The registry of models: which versions there are and why, who was served from where to where. Pure, append-only.

A version is the model as it was at a committed epoch, and has that epoch's number. Not every epoch makes one: something
has to have happened since the last (REASONS). What is known is a list of records, JSON-able, that only grows; a version
of a past that was left (an older epoch was restored) is withdrawn by a record and stays on the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from streampiped.errors import StateError

REASONS: Final = ("first", "champion", "drift", "promote", "rollback", "pin", "unpin", "rows")
"""The first one; another champion; a drift; what an operator did; so many rows since the last."""
ACTS: Final = ("promote", "rollback", "pin", "unpin")
LASTS: Final = 16  # a champion lasts when it has been served for this part of the rows since the last drift
DRIFTS_MAX: Final = 8  # versions by drift alone in the newest sixteenth of the stream


@dataclass(frozen=True, slots=True)
class Mark:
    """What of a model decides whether it is a version. `rows`: of the stream, before it; `crowns`, `drifts`: how often
    the champion has changed and a drift was found; `acts`: what operators did, the newest last, and `act_count` of them
    ever."""

    rows: int
    learned: int
    champion: str
    since: int
    """The row from which on the champion has been served."""
    crowns: int
    drifts: int
    act_count: int = 0
    acts: tuple[Mapping[str, Any], ...] = ()
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    calm_since: int = 0
    """The row of the last drift."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version. `restored`: the version that a rollback made the model from. `withdrawn`: it belongs to a past that
    was left."""

    version: int
    rows: int
    learned: int
    champion: str
    since: int
    reasons: tuple[str, ...]
    crowns: int
    drifts: int
    act_count: int
    restored: int | None
    metrics: Mapping[str, float | None]
    file: str
    bytes: int
    sha256: str
    withdrawn: bool = False


class Registry:
    """Built from records; `why` a model should be a version, `register` it, which versions keep their parameters."""

    def __init__(self, retain: int, every: int) -> None:
        """`retain`: the newest versions whose parameters are kept. `every`: so many rows after the last version there
        is another one, whatever happened."""
        self._retain = retain
        self._every = every
        self._versions: dict[int, Version] = {}

    @property
    def versions(self) -> tuple[Version, ...]:
        """Oldest first, the withdrawn ones too."""
        return tuple(self._versions[number] for number in sorted(self._versions))

    def newest(self, at_most: int | None = None) -> Version | None:
        """The newest one that counts, of an epoch up to `at_most`."""
        there = [v for v in self._versions.values() if not v.withdrawn and (at_most is None or v.version <= at_most)]
        return max(there, key=lambda v: v.version, default=None)

    def get(self, version: int) -> Version | None:
        return self._versions.get(version)

    def why(self, mark: Mark) -> tuple[str, ...]:
        """Why this model should be a version; (): nothing has happened since the last one, or nothing that lasts. All
        goes by rows, so that a stream that is repeated has the same versions. Two members that take turns every
        million rows would fill the list with both; so the longer the stream has been calm, the longer a champion has
        to be served before it makes a version. A drift that is left out for others makes a later one."""
        last = self.newest()
        if last is None or mark.rows < last.rows:
            return ("first",)
        told = {str(act["kind"]) for act in _since(mark, last)}
        seated = bool(told - {"unpin"})  # by the operator, whose doing it is then
        found = {
            "champion": mark.crowns != last.crowns
            and mark.champion != last.champion
            and not seated
            and mark.rows - mark.since >= (mark.rows - mark.calm_since) // LASTS,
            "drift": mark.drifts != last.drifts and self._drifts(mark.rows) < DRIFTS_MAX,
            **{act: act in told for act in ACTS},
            "rows": mark.rows - last.rows >= self._every,
        }
        return tuple(reason for reason in REASONS if found.get(reason))

    def register(self, epoch: int, mark: Mark, reasons: Sequence[str], file: Mapping[str, Any]) -> dict[str, Any]:
        """The record of a version whose parameters are saved: `file` has `file`, `bytes` and `sha256`."""
        last = self.newest()
        acts = _since(mark, last) if last is not None and mark.rows >= last.rows else mark.acts
        sums = [act["sha256"] for act in acts if act["kind"] == "rollback"]
        restored = [v.version for v in self.versions if sums and v.sha256 == sums[-1]]
        version = Version(
            epoch,
            mark.rows,
            mark.learned,
            mark.champion,
            mark.since,
            tuple(reasons),
            mark.crowns,
            mark.drifts,
            mark.act_count,
            restored[-1] if restored else None,
            dict(mark.metrics),
            **file,
        )
        return {"kind": "version", **asdict(version), "reasons": list(version.reasons)}

    def leave(self, epoch: int) -> dict[str, Any] | None:
        """`epoch` is the newest one: the record that withdraws what is of later ones, if there is any."""
        later = [v.version for v in self._versions.values() if v.version > epoch and not v.withdrawn]
        return {"kind": "withdrawn", "after": epoch, "versions": sorted(later)} if later else None

    def take(self, record: Mapping[str, Any]) -> None:
        """A record is on the list. The same version again changes nothing. StateError for what is no record."""
        try:
            if record["kind"] == "version":
                fields = {name: record[name] for name in Version.__dataclass_fields__}
                version = Version(**{**fields, "reasons": tuple(record["reasons"])})
                self._versions.setdefault(int(record["version"]), version)
            elif record["kind"] == "withdrawn":
                for number in record["versions"]:
                    self._withdraw(int(number))
            else:
                raise StateError(f"unknown record {record['kind']!r}")
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"no record of a registry: {error!r}") from error

    def keeps(self, pinned: bool) -> set[int]:
        """Versions whose parameters must stay: the newest ones, those that a rollback has gone to (whoever restores an
        epoch has to be able to do it again), and while a member is `pinned` the one that was made by that."""
        counting = [v for v in self.versions if not v.withdrawn]
        kept = {v.version for v in counting[-self._retain :]}
        kept |= {v.restored for v in self.versions if v.restored is not None}
        if pinned:
            kept |= {v.version for v in [v for v in counting if "pin" in v.reasons][-1:]}
        return kept

    def history(self) -> list[dict[str, Any]]:
        """Every version as plain values, oldest first, with the row up to which its champion was served (None: it still
        is, or it was withdrawn)."""
        rows: list[dict[str, Any]] = []
        term: tuple[int, str] | None = None
        since = until = None
        for version in reversed(self.versions):
            if not version.withdrawn and (version.since, version.champion) != term:
                since, until, term = version.since, since, (version.since, version.champion)
            ended = None if version.withdrawn else until
            rows.append({**asdict(version), "reasons": list(version.reasons), "until": ended})
        return rows[::-1]

    def _drifts(self, rows: int) -> int:
        """Versions by drift in the newest sixteenth of so many rows."""
        new = rows - rows // LASTS
        return sum(not v.withdrawn and "drift" in v.reasons and v.rows > new for v in self._versions.values())

    def _withdraw(self, number: int) -> None:
        found = self._versions.get(number)
        if found is not None:
            values = {name: getattr(found, name) for name in Version.__dataclass_fields__}
            self._versions[number] = Version(**{**values, "withdrawn": True})


def rebuilt(records: Iterable[Mapping[str, Any]], retain: int, every: int) -> Registry:
    """From the whole list."""
    registry = Registry(retain, every)
    for record in records:
        registry.take(record)
    return registry


def _since(mark: Mark, last: Version) -> tuple[Mapping[str, Any], ...]:
    """What operators did since the last version, as far as it is remembered."""
    new = max(0, mark.act_count - last.act_count)
    return mark.acts[len(mark.acts) - min(new, len(mark.acts)) :]
