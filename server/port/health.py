"""Is the coordinator well? Told on the loopback only: over HTTP (/health) and as grpc.health.v1."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.errors import FedscanError

HOST = "127.0.0.1"


class Health:
    """Two small listeners that ask `well` each time they are asked.

    Args:
        well: Whether the coordinator can serve its sites.
        http: Port of the HTTP listener, 0 for a free one.
        rpc: Port of the gRPC listener, 0 for a free one.

    Attributes:
        http_port: Where HTTP is served.
        rpc_port: Where gRPC is served.
    """

    def __init__(self, well: Callable[[], bool], http: int = 0, rpc: int = 0) -> None:
        try:
            self._http = _Listener((HOST, http), _Handler)
        except OSError as error:
            raise FedscanError(f"cannot listen for health on {HOST}:{http}: {error.strerror}") from None
        self._http.well = well
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.1,), daemon=True, name="health")
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="health")
        self._rpc = grpc.server(self._pool, options=(("grpc.so_reuseport", 0),), maximum_concurrent_rpcs=8)
        health_pb2_grpc.add_HealthServicer_to_server(_Servicer(well), self._rpc)
        try:
            self.rpc_port: int = self._rpc.add_insecure_port(f"{HOST}:{rpc}")
        except RuntimeError:
            self._http.server_close()
            raise FedscanError(f"cannot listen for health on {HOST}:{rpc}") from None
        self.http_port: int = self._http.server_address[1]

    def __enter__(self) -> Self:
        self._thread.start()
        self._rpc.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        self._rpc.stop(None).wait()
        self._pool.shutdown()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    well: Callable[[], bool]


class _Handler(BaseHTTPRequestHandler):
    timeout = 5
    server: _Listener

    def do_GET(self) -> None:
        if self.path != "/health":
            self.send_error(404)
            return
        well = self.server.well()
        body = b'{"status": "ok"}' if well else b'{"status": "not serving"}'
        self.send_response(200 if well else 503)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "fedscan"

    def log_message(self, format: str, *args: object) -> None:
        """Health checks are no news."""


class _Servicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    def __init__(self, well: Callable[[], bool]) -> None:
        self._well = well

    def Check(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in ("", "fedscan"):
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        status = health_pb2.HealthCheckResponse
        return status(status=status.SERVING if self._well() else status.NOT_SERVING)
