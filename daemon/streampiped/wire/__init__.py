"""bytes <-> messages; pure, no I/O."""
