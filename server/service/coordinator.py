"""One coordinator process on the network: listener, gate, Flower's Fleet API and health, started and stopped as one."""

import ssl
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from common.errors import FedscanError
from server.link import Fleet
from server.port.gate import Enrolled, Gate
from server.port.grid import LinkGrid
from server.port.health import Health
from server.port.listener import Limits, Server, bind, server_context
from server.port.refusals import Refusals

_START = 30  # seconds in which the listener must stand


@dataclass(frozen=True)
class LinkConfig:
    """How a coordinator is reached.

    Attributes:
        certificate: Its TLS certificate (PEM, with what leads to the CA).
        key: The certificate's key (PEM, not encrypted: a restart needs nobody).
        ca: The federation's own CA; nobody else's clients are let in.
        inbox: Folder for replies on their way; emptied at the start.
        host: The address that hospitals reach.
        port: Its port, 0 for a free one.
        health_http: Loopback port of /health, 0 for a free one.
        health_grpc: Loopback port of grpc.health.v1, 0 for a free one.
    """

    certificate: Path
    key: Path
    ca: Path
    inbox: Path
    host: str = "0.0.0.0"  # noqa: S104 - hospitals come from outside, with certificates
    port: int = 0
    health_http: int = 0
    health_grpc: int = 0
    limits: Limits = field(default_factory=Limits)


class ServerLink:
    """The coordinator's link to its sites, as a context manager.

    Args:
        config: How it is reached.
        enrolled: The sites, as they stand at any moment.

    Attributes:
        fleet: Nodes and tasks.
        grid: What the rounds ask.
        refusals: Whom it turned away.
        port: Where it listens.
        health: Where its health is told.
    """

    def __init__(self, config: LinkConfig, enrolled: Enrolled) -> None:
        self.refusals = Refusals()
        self._config = config
        self._context = server_context(config.certificate, config.key, config.ca)
        self._socket = bind(config.host, config.port)
        self.port: int = self._socket.getsockname()[1]
        self.fleet = Fleet(enrolled, config.inbox, self.refusals)
        self.grid = LinkGrid(self.fleet)
        gate = Gate(self.fleet.api, enrolled, self.fleet.holder, config.limits, self.refusals, config.inbox)
        self._server = Server(gate, self._context, config.limits, self.refusals)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True, name="link")
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._thread.start()
        self._stack.callback(self._stop)
        end = time.monotonic() + _START
        while not self._server.started:
            if time.monotonic() > end or not self._thread.is_alive():
                self._stack.close()
                raise FedscanError("the coordinator's listener did not start; the log says why")
            time.sleep(0.01)
        self.health = self._stack.enter_context(Health(self.well, self._config.health_http, self._config.health_grpc))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def well(self) -> bool:
        """Whether sites can be served."""
        return self._thread.is_alive() and self._server.started and not self._server.should_exit

    def renew(self) -> None:
        """Use the certificate that is on disk now, from the next connection on."""
        try:
            self._context.load_cert_chain(self._config.certificate, self._config.key)
        except (OSError, ssl.SSLError) as error:
            raise FedscanError(f"{self._config.certificate}: the new certificate cannot be used: {error}") from None

    def _stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()
        self.fleet.finish()
