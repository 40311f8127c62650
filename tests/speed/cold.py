"""What it costs to be woken seldom: the same few calls take longer the more has run on the CPU since the last time.

    PYTHONPATH=daemon:ctl:tests python -m speed.cold

Microseconds on the CPU per frame, by frames per second: of a stage that only passes frames of 8,192 rows on, the middle
ones of five, and of a process that only waits for 64 bytes in a pipe, by uvloop, and writes them into another. Nothing
else is to run on the machine meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from typing import Final

import uvloop

from speed.contest import run
from speed.work import Work

RATES: Final = (33, 66, 240, 480)
"""Frames per second."""
SECONDS: Final = 3.0
ROWS: Final = 8192
PASSES: Final = 5
WARM: Final = 5  # frames before the clock is read
FRAME: Final = bytes(64)


def of_stage(rate: int) -> float:
    """Of one of the stages in the middle."""
    work = Work(records=int(rate * SECONDS) * ROWS, passes=PASSES, rate=float(rate * ROWS), batch=ROWS, linger=1.0)
    parts = run("streampipe", work).parts
    frames = work.records / ROWS
    return statistics.median(parts[f"pass{place}"] for place in range(2, PASSES)) / frames * 1e6


def of_process(rate: int) -> float:
    """Of a process without anything of ours."""
    (give, taken), (back, given) = os.pipe(), os.pipe()
    answer, said = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(taken)
        os.close(back)
        uvloop.run(_pass_on(give, given, said))
        os._exit(0)
    os.close(give)
    os.close(given)
    at = time.monotonic()
    for _ in range(WARM + int(rate * SECONDS)):
        os.write(taken, FRAME)
        os.read(back, len(FRAME))
        at += 1.0 / rate
        time.sleep(max(0.0, at - time.monotonic()))
    os.close(taken)
    os.waitpid(pid, 0)
    found = float(os.read(answer, 64))
    for each in (back, answer, said):
        os.close(each)
    return found


async def _pass_on(give: int, given: int, said: int) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    count, began = 0, 0.0

    def readable() -> None:
        nonlocal count, began
        if not (frame := os.read(give, len(FRAME))):
            loop.remove_reader(give)
            ended.set()
            return
        os.write(given, frame)
        count += 1
        if count == WARM:
            began = time.process_time()

    os.set_blocking(give, False)
    loop.add_reader(give, readable)
    await ended.wait()
    os.write(said, str((time.process_time() - began) / (count - WARM) * 1e6).encode())


def main() -> None:
    print("frames/s  a stage, us  a bare process, us")
    for rate in RATES:
        print(f"{rate:8d}  {of_stage(rate):11.0f}  {of_process(rate):18.1f}", flush=True)


if __name__ == "__main__":
    main()
