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
