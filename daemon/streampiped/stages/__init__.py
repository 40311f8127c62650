"""the logic of each stage; no processes, no sockets."""
