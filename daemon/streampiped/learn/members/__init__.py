"""Predictors that compete: one contract (`base`), one kind a file."""
