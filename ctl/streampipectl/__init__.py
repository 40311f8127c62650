"""The operator's tool: a blocking client of the control socket."""
