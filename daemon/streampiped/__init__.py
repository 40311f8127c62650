"""streampipe's daemon: a supervisor, a fork server and one process per stage."""

__version__ = "0.1.0"
