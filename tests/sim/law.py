"""What must hold: at every change of what the outer world sees, at every start, and at the end.

The sinks' visible rows are exactly those of one committed epoch, every record of the sources up to its cut once and in
order, with the hashes that follow from the order; what was replayed stands once, right behind the cut of the epoch that
recorded the attempt which its stage survived, and every attempt before that was put aside. What has been promised is
never lost.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import msgpack

from sim.disk import Disk
from sim.stages import REPLAY, Node, Place, Verdict, changed_by, deaths, mark_of, mix, visible
from sim.verdicts import put_aside
from sim.world import ViolationError
from streampiped.core import protocol as p
from streampiped.core.epoch_commands import WriteManifest
from streampiped.errors import ExitCode

Way: TypeAlias = tuple[str, tuple[str, ...]]
"""Of a record: its source, and the stages behind that."""


@dataclass(frozen=True)
class Committed:
    """What a manifest says. `cut`: the records of each source before it."""

    cut: Mapping[str, int]
    changes: tuple[Mapping[str, Any], ...]
    finished: bool
    files: Mapping[str, str]


class Tale:
    """What the stages must have seen, from the rows that stand in a sink one after the other."""

    def __init__(
        self,
        poison: Collection[tuple[str, Place]],
        joins: Collection[str],
        turns: Mapping[str, Sequence[tuple[int, int]]],
    ) -> None:
        """`joins`: stages with several inputs, where a row's way goes on (`Span.via`). `turns`: the changes of each
        stage, as (rows that it had seen, number)."""
        self._turns = {stage: deque(due) for stage, due in turns.items()}
        self.given: Counter[Way] = Counter()
        """Records of a source that have come along a way, or were put aside on it."""
        self.seen: dict[str, int] = {}
        self.rows: Counter[str] = Counter()
        self._poison = poison
        self._joins = joins

    def through(self, path: Sequence[str], text: str) -> str:
        """A row on its way through these stages; what becomes of it."""
        for stage in path:
            self.turn(stage)
            self.rows[stage] += 1
            self.seen[stage] = mix(self.seen.get(stage, 0), text)
            text = f"{text}|{stage}:{self.seen[stage]:x}"
        return text

    def turn(self, stage: str) -> None:
        """Its changes come right behind the rows that it had seen."""
        due = self._turns.get(stage)
        while due and due[0][0] <= self.rows[stage]:
            self.seen[stage] = mix(self.seen.get(stage, 0), changed_by(due.popleft()[1]))

    def skip(self, way: Way, before: int) -> None:
        """The next records of a way, up to the position `before`, as far as they are put aside: the stages in front of
        the one that does not survive them have seen them."""
        source, path = way
        while self.given[way] < before:
            position = self.given[way]
            stop = self._stop(way, position)
            if stop is None:
                return
            self.given[way] += 1
            self.through(path[:stop], f"{source}/{position}")

    def _stop(self, way: Way, position: int) -> int | None:
        """Which of the stages on a way does not survive this record of it."""
        source, path = way
        via = ""
        for number, (sender, stage) in enumerate(pairwise((source, *path))):
            if stage in self._joins:
                via = f"{via}/{sender}" if via else sender
            if (stage, (via, source, position)) in self._poison:
                return number
        return None


class Law:
    """Watches one world. `poison`: the rows that a stage of it does not survive, as (stage, place)."""

    def __init__(self, nodes: Sequence[Node], disk: Disk, poison: Collection[tuple[str, Place]] = ()) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.sinks = [node.name for node in nodes if node.role == "sink"]
        self.sources = [node.name for node in nodes if node.role == "source"]
        self._disk = disk
        self._poison = poison
        self._joins = {node.name for node in nodes if len(node.inputs) > 1}
        self._turns: dict[str, list[tuple[int, int]]] = {}
        self._attempts: dict[int, Committed] = {}
        self._committed: dict[int, Committed] = {}
        self._promised = 0
        self._floor = 0
        self._asked: set[tuple[str, int]] = set()
        self._accepted: list[Mapping[str, Any]] = []
        self._orders: Counter[str] = Counter()
        """Operators' wishes for a stage that may still come about."""
        self._halted: set[str] = set()
        """Whoever has been stopped for certain."""
        self._paths = {sink: self._paths_to(sink) for sink in self.sinks}
        disk.on_change = self._on_change

    def _paths_to(self, name: str) -> list[Way]:
        """Every way of a record: (source, the stages behind it up to `name`)."""
        node = self.nodes[name]
        if node.role == "source":
            return [(name, ())]
        return [(source, (*path, name)) for each in node.inputs for source, path in self._paths_to(each)]

    # what the shell tells

    def begins(self, epoch: int | None, highest: int) -> None:
        """A life of the supervisor begins, from `epoch`."""
        if (epoch or 0) < self._promised:
            raise ViolationError(f"epoch {self._promised} was committed, and the next start finds {epoch}")
        if epoch is not None:
            self._commit(epoch)
        self._floor = highest
        self._asked.clear()

    def starts(self, stopped: Collection[str]) -> None:
        """Whoever begins knows which stops have been answered."""
        self._orders.clear()
        if forgotten := self._halted - set(stopped):
            raise ViolationError(f"the stop of {sorted(forgotten)} was answered and is forgotten")

    def ordered(self, event: p.Operate) -> None:
        """From now on nobody knows for certain who is stopped of those that are named."""
        for name in event.names or self.nodes:
            self._orders[name] += 1
            self._halted.discard(name)

    def answered(self, event: p.Operate, code: int) -> None:
        """What was not answered with OK may still come about."""
        if code == ExitCode.OK:
            names = event.names or tuple(self.nodes)
            self._orders.subtract(names)
            self._halted.update(name for name in names if event.verb == "stop" and not self._orders[name])

    def asked(self, stage: str, epoch: int) -> None:
        """A barrier is asked of a source."""
        if epoch <= self._floor or (stage, epoch) in self._asked:
            raise ViolationError(f"epoch number {epoch} is used twice")
        if any(epoch < other for _, other in self._asked):
            raise ViolationError(f"epoch {epoch} after a later one")
        self._asked.add((stage, epoch))

    def attempt(self, command: WriteManifest) -> None:
        """A manifest is about to be written."""
        if command.epoch in self._committed:
            raise ViolationError(f"epoch {command.epoch} is committed a second time")
        cut = {part.stage: part.position for part in command.parts if part.position is not None}
        files = {part.stage: part.file for part in command.parts}
        self._attempts[command.epoch] = Committed(cut, command.changes, command.finished, files)

    def promise(self, epoch: int) -> None:
        """Its manifest is durable."""
        self._promised = epoch
        self._commit(epoch)

    def _commit(self, epoch: int) -> None:
        """Its changes come behind what their stages have seen, and behind the rows that are given back before."""
        if epoch in self._committed:
            return
        manifest = self._committed[epoch] = self._attempts[epoch]
        given: Counter[str] = Counter()
        for change in manifest.changes:
            stage = change["stage"]
            if change["kind"] == REPLAY:
                given[stage] += sum(attempt > deaths(number) for number, attempt in change["rows"])
            else:
                rows = msgpack.unpackb(self._disk.read(manifest.files[stage]) or b"")[2]
                self._turn(stage, rows + given[stage], change["params"]["number"])

    def _turn(self, stage: str, rows: int, number: int) -> None:
        turns = self._turns.setdefault(stage, [])
        if any(number == other for _, other in turns):
            raise ViolationError(f"change {number} of {stage} is recorded twice")
        turns.append((rows, number))

    def restored(self, node: Node, epoch: int | None) -> None:
        """A stage says that it is what it was at `epoch`."""
        if node.role == "sink" and mark_of(self._disk, node.name) != (epoch or 0):
            raise ViolationError(
                f"{node.name} shows epoch {mark_of(self._disk, node.name)} after its restore of {epoch}"
            )

    def heard(self, who: str, epoch: int) -> None:
        """A stage is told that `epoch` is visible everywhere."""
        for sink in self.sinks:
            if mark_of(self._disk, sink) < epoch:
                raise ViolationError(f"{who} hears that epoch {epoch} is visible, and {sink} does not show it")

    def condemned(self, stage: str, rows: Collection[Verdict]) -> None:
        """These rows of a stage are put aside."""
        if innocent := [row for row in rows if not self._is_guilty(stage, *row)]:
            raise ViolationError(f"{stage} puts {innocent} aside, which it would have survived")

    def _is_guilty(self, stage: str, place: Place, attempt: int) -> bool:
        return attempt <= deaths(place[2]) if attempt else (stage, place) in self._poison

    def accepted(self, change: Mapping[str, Any]) -> None:
        """An operator was told that it is recorded."""
        self._accepted.append(change)

    # what the outer world sees

    def _on_change(self, path: str) -> None:
        directory, _, name = path.partition("/")
        if directory in self.sinks and (name == "mark" or name.isdigit()):
            self.check(directory)

    def check(self, sink: str) -> list[str]:
        """The visible rows, if they are right."""
        mark = mark_of(self._disk, sink)
        if mark and mark not in self._committed:
            raise ViolationError(f"{sink} shows epoch {mark}, which is not committed")
        try:
            rows = visible(self._disk, sink)
        except (ValueError, msgpack.UnpackException) as error:
            raise ViolationError(f"a visible file of {sink} is damaged") from error
        self._verify(sink, mark, rows)
        return rows

    def _verify(self, sink: str, mark: int, rows: Sequence[str]) -> None:
        cut = self._committed[mark].cut if mark else dict.fromkeys(self.sources, 0)
        replays = self._replays_before(mark)
        tale = Tale(self._poison, self._joins, self._turns)
        found: Counter[int] = Counter()
        for row in rows:
            name, *steps = row.split("|")
            path = tuple(step.partition(":")[0] for step in steps)
            source, _, position = name.partition("/")
            if source == REPLAY:
                found[int(position)] += 1
                self._check_place(int(position), replays, path, tale)
            else:
                tale.skip((source, path), int(position))
                if tale.given[source, path] != int(position):
                    raise ViolationError(f"{sink} shows {row} where {source}/{tale.given[source, path]} should stand")
                tale.given[source, path] += 1
            if (text := tale.through(path, name)) != row:
                raise ViolationError(f"{sink} shows {row} in epoch {mark}, after what stands before it comes {text}")
        wanted = {(source, path): cut[source] for source, path in self._paths[sink]}
        for way, count in wanted.items():
            tale.skip(way, count)
        if any(tale.given[way] != count for way, count in wanted.items()) or set(tale.given) - set(wanted):
            raise ViolationError(f"{sink} shows {dict(tale.given)} records of epoch {mark}, should be {wanted}")
        self._check_replays(sink, found, replays)

    def _attempts_before(self, mark: int) -> dict[tuple[int, int], tuple[int, str]]:
        """Number and attempt of a replayed row -> (the epoch that recorded it, the stage that it was given to)."""
        known: dict[tuple[int, int], tuple[int, str]] = {}
        for epoch, manifest in self._committed.items():
            for change in manifest.changes if epoch < mark else ():
                for number, attempt in change.get("rows", ()):
                    if before := known.get((number, attempt)):
                        raise ViolationError(f"change {change} is recorded twice, in epochs {before[0]} and {epoch}")
                    known[number, attempt] = epoch, change["stage"]
        return known

    def _replays_before(self, mark: int) -> dict[int, tuple[int, str]]:
        """The same of those that their stage survives, by number. After such an attempt nobody replays it again."""
        attempts = self._attempts_before(mark).items()
        return {number: found for (number, attempt), found in attempts if attempt > deaths(number)}

    def _check_place(
        self,
        number: int,
        replays: Mapping[int, tuple[int, str]],
        path: tuple[str, ...],
        tale: Tale,
    ) -> None:
        """A replayed row comes right behind the cut of its epoch."""
        if number not in replays:
            raise ViolationError(f"replayed row {number} is visible, and no epoch before has recorded it")
        epoch, stage = replays[number]
        if path[0] != stage:
            raise ViolationError(f"replayed row {number} was given to {path[0]}, should be {stage}")
        cut = self._committed[epoch].cut
        for source, way in self._paths[path[-1]]:
            if stage in way:
                tale.skip((source, way), cut[source])
                if (given := tale.given[source, way]) != cut[source]:
                    raise ViolationError(f"replayed row {number} after {given} records of {source}, not {cut}")

    def _check_replays(self, sink: str, found: Counter[int], replays: Mapping[int, tuple[int, str]]) -> None:
        upstream = {stage for _, path in self._paths[sink] for stage in path}
        wanted = {number for number, (_, stage) in replays.items() if stage in upstream}
        if dict(found) != dict.fromkeys(wanted, 1):
            raise ViolationError(f"{sink} shows the replayed rows {dict(found)}, should be {sorted(wanted)} once each")

    # the end

    def verdict(self, newest: int) -> dict[str, list[Any]]:
        """After the stream has finished: the rows of every sink, and the last state of every stage."""
        if newest not in self._committed:
            raise ViolationError(f"the manifest of epoch {newest} is there, and it was never committed")
        last = self._committed[newest]
        totals = {name: self.nodes[name].total for name in self.sources}
        if not last.finished or dict(last.cut) != totals:
            raise ViolationError(f"the last epoch {newest} has {dict(last.cut)} of {totals}, finished: {last.finished}")
        self._check_list()
        outcome: dict[str, list[Any]] = {sink: self.check(sink) for sink in self.sinks}
        if any(mark_of(self._disk, sink) != newest for sink in self.sinks):
            raise ViolationError(f"epoch {newest} is committed, and a sink does not show it")
        recorded = [change for manifest in self._committed.values() for change in manifest.changes]
        if lost := [change for change in self._accepted if change not in recorded]:
            raise ViolationError(f"operators were told that {lost} is recorded")
        for stage, file in last.files.items():
            data = self._disk.read(file)
            if data is None:
                raise ViolationError(f"{file} of the last epoch is gone")
            outcome[f"{stage}'s state"] = msgpack.unpackb(data)
        self._check_states(outcome)
        return outcome

    def _check_list(self) -> None:
        """Every replay that its stage has not survived was put aside, and nothing else of it."""
        wanted = {
            (stage, number, attempt)
            for (number, attempt), (_, stage) in self._attempts_before(max(self._committed) + 1).items()
            if attempt <= deaths(number)
        }
        found = {(name, place[2], n) for name in self.nodes for place, n in put_aside(self._disk, name) if n}
        if found != wanted:
            raise ViolationError(f"put aside of what was replayed: {sorted(found)}, should be {sorted(wanted)}")

    def _check_states(self, outcome: Mapping[str, list[Any]]) -> None:
        """The state of each stage is what follows from the rows that the sink has of it."""
        replays = self._replays_before(max(self._committed) + 1)
        for sink in self.sinks:
            tale = Tale(self._poison, self._joins, self._turns)
            behind = [node.name for node in self.nodes.values() if sink in node.inputs]
            for row in outcome[sink]:
                name, *steps = row.split("|")
                path = tuple(step.partition(":")[0] for step in steps)
                source, _, position = name.partition("/")
                if source == REPLAY:
                    self._check_place(int(position), replays, path, tale)
                else:
                    tale.skip((source, path), int(position))
                    tale.given[source, path] += 1
                tale.through(path, name)
                for stage in behind:
                    tale.through([stage], row)
            for source, path in self._paths[sink]:
                tale.skip((source, path), self.nodes[source].total)
            for stage in tale.rows:
                tale.turn(stage)
            for stage, value in tale.seen.items():
                _, found, rows, _ = outcome[f"{stage}'s state"]
                own = self._given_to(stage) if stage in behind else 0
                if rows != tale.rows[stage] + own or (found != value and not own):
                    raise ViolationError(
                        f"{stage} ends with {rows} rows and {found:x}, should be {value:x} after {tale.rows[stage]} "
                        f"that {sink} tells of and {own} replayed ones"
                    )

        for source in self.sources:
            found = 0
            for _, number in self._turns.get(source, ()):
                found = mix(found, changed_by(number))
            if outcome[f"{source}'s state"][1] != found:
                raise ViolationError(f"{source} is not what its changes make of it")

    @property
    def changed(self) -> bool:
        """Something was given back to the stream, or put aside."""
        return bool(self._poison) or any(manifest.changes for manifest in self._committed.values())

    def _given_to(self, stage: str) -> int:
        """Replayed rows that no sink shows, because they came into the stream behind it."""
        replays = self._replays_before(max(self._committed) + 1).values()
        return sum(given == stage for _, given in replays)
