"""decisions; pure, no clock and no I/O."""
