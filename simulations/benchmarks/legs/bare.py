"""Bare TLS of the same bytes: what the loopback, TLS and Python's HTTP can do when nothing else is done.

A uvicorn server (mutual TLS 1.3) and one httpx client per site, each in a process: in a round each client fetches an
update in pieces of 5 MiB, as Flower cuts tensors, and sends as many back. Nothing is hashed, stored or decoded.
"""

import common.quiet  # noqa: F401

import asyncio
import multiprocessing
import ssl
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from threading import BrokenBarrierError
from typing import Any

import httpx
import numpy as np
import uvicorn

from server.port.listener import server_context
from simulations.benchmarks.legs.certificates import Certificates, Pair
from simulations.benchmarks.legs.measured import Measured, processor_seconds
from simulations.benchmarks.legs.processes import BenchmarkError, free_port

PIECE = 5 << 20
_PATIENCE = 120  # seconds

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


def measure(folder: Path, parameters: int, sites: int, rounds: int) -> Measured:
    """Seconds of each round after the first, from the first byte asked for to the last one taken.

    Raises:
        BenchmarkError: A process failed.
    """
    certificates, port = Certificates(folder / "certificates", sites), free_port()
    made = multiprocessing.get_context("spawn")
    barrier, nbytes = made.Barrier(sites + 1), 4 * parameters
    processes = [made.Process(target=_serve, args=(certificates.server, certificates.authority, port, nbytes))]
    processes += [
        made.Process(target=_be_a_site, args=(pair, certificates.authority, port, nbytes, rounds + 1, barrier))
        for pair in certificates.sites
    ]
    for process in processes:
        process.start()
    try:
        marks, cpu = list[float](), list[float]()
        for _ in range(rounds + 2):
            barrier.wait(_PATIENCE)
            marks.append(time.monotonic())
            cpu.append(processor_seconds(p.pid or 0 for p in processes))
    except BrokenBarrierError:
        raise BenchmarkError("bare TLS: a process failed; its error is above") from None
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return Measured([after - before for before, after in pairwise(marks[1:])], (cpu[-1] - cpu[1]) / rounds)


def sizes(nbytes: int) -> list[int]:
    """Bytes of each piece."""
    return [min(PIECE, nbytes - at) for at in range(0, nbytes, PIECE)]


def _serve(own: Pair, authority: Path, port: int, nbytes: int) -> None:
    rng = np.random.default_rng(0)
    pieces = [rng.bytes(n) for n in sizes(nbytes)]

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        answer = b""
        if scope["method"] == "GET":
            answer = pieces[int(scope["path"].rpartition("/")[2])]
        else:
            while (await receive()).get("more_body"):
                pass
        headers = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    config = uvicorn.Config(app, host="127.0.0.1", port=port, http="h11", lifespan="off", log_level="warning",
                            access_log=False, ssl_certfile=own.certificate, ssl_keyfile=own.key)  # fmt: skip
    config.load()
    config.ssl = server_context(own.certificate, own.key, authority)
    asyncio.run(uvicorn.Server(config).serve())


def _be_a_site(own: Pair, authority: Path, port: int, nbytes: int, rounds: int, barrier: Any) -> None:
    context = ssl.create_default_context(cafile=authority)
    context.load_cert_chain(own.certificate, own.key)
    with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=context, timeout=60) as client:
        _wait_for(client)
        barrier.wait(_PATIENCE)
        for _ in range(rounds):
            pieces = [client.get(f"/{i}").raise_for_status().content for i in range(len(sizes(nbytes)))]
            for i, piece in enumerate(pieces):
                client.post(f"/{i}", content=piece).raise_for_status()
            barrier.wait(_PATIENCE)


def _wait_for(client: httpx.Client) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            client.get("/0").raise_for_status()
            return
        except httpx.TransportError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
