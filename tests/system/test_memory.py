"""What a process of ours does with memory that it gives back."""

from __future__ import annotations

import subprocess
import sys

ROUNDS = 100
PROGRAM = f"""
import resource, sys
from streampiped.runtime.linux import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
state = bytes(600_000)  # so large that glibc maps it anew each time
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    copies = [bytearray(state) for _ in range(3)]
    del copies
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Pages that a fresh process takes from the kernel in ROUNDS rounds."""
    run = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(run.stdout)


def test_an_epoch_does_not_fetch_its_memory_page_by_page() -> None:
    """State of some hundred kilobytes that is built and dropped with every epoch costs page faults once, not again in
    every round."""
    assert faults("kept") < 1000
    assert faults("returned") > 10 * 1000


LETTING_GO = """
import re, numpy, sklearn.linear_model
from pathlib import Path
from streampiped.runtime.linux import let_go_of_files

def of_files():
    clean = written = 0
    for part in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())[1:]:
        rss, own = (int(re.search(rf"(?m)^{key}: +([0-9]+)", part)[1]) for key in ("Rss", "Anonymous"))
        if part.split(None, 5)[4] != "0":
            clean, written = clean + rss - own, written + own
    return clean, written

clean, written = of_files()
assert clean > 20_000, clean
let_go_of_files()
left, kept = of_files()
assert left < clean / 4, (clean, left)
assert abs(kept - written) < written / 10, (written, kept)
rows = numpy.linspace(0.0, 1.0, 60).reshape(20, 3)
assert numpy.linalg.svd(rows)[1][0] > 1.0
assert sklearn.linear_model.SGDRegressor(random_state=1).fit(rows, rows[:, 0]).predict(rows).shape == (20,)
"""


def test_pages_of_files_are_let_go_and_come_back() -> None:
    """What was read of a hundred libraries is no longer the process's, what was written into their pages is, and they
    work as before."""
    done = subprocess.run(
        [sys.executable, "-c", LETTING_GO], capture_output=True, text=True, timeout=120.0, check=False
    )
    assert done.returncode == 0, done.stderr
