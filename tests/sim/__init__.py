"""The whole pipeline in one process, on a fake clock, under one seed: the real decisions around a simulated world.

world      the clock, what happens next, chance
disk       what is written, fsynced, renamed; what a power loss leaves
manifests  the epochs on that disk
verdicts   the rows that a stage leaves out
pipes      links that tear frames at any byte
stages     tiny stages whose output tells everything that they have seen
process    a stage's process: performs core/stage_side.py; `host` is what it may tell
launcher   what forks it
daemon     the supervisor: performs core/supervision.py
faults     what goes wrong, and what operators want, at which step
law        what must hold at every step, and at the end
schedule   one run; `run` makes many of them, and tells the story of one
mutations  broken rules, each of which the law must catch
"""
