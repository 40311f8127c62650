"""Metrics over HTTP, in the service monitor's process: not the data path's, and not the supervisor's."""

from __future__ import annotations

from streampiped.errors import RpcError
from streampiped.host import Host
from streampiped.metrics import CONTENT_TYPE
from streampiped.runtime.http_server import PageServer, Unavailable
from streampiped.stages.base import Service

SERVED_BY = "service_monitor"
PATH = "/metrics"


def serve_metrics(process: Host, service: Service) -> PageServer | None:
    """The server, which has begun; None when this process is not the one, or nobody wants it."""
    listen = process.plan.metrics.listen
    if listen is None or process.spec.name != SERVED_BY:
        return None

    def page() -> str:
        try:
            return str(service.query("metrics", {}))
        except RpcError as error:
            raise Unavailable(str(error)) from None

    server = PageServer(
        process.loop,
        listen,
        PATH,
        CONTENT_TYPE,
        page,
        on_served=lambda: process.emit("metrics_served", listen=listen),
        on_refused=lambda reason: process.emit("metrics_refused", listen=listen, reason=reason),
    )
    server.start()
    return server
