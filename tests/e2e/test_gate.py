"""Who may come in, and what gets in; every refusal is a line in the log."""

import json
import secrets
import socket
import ssl
import time
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.message_pb2 import PullObjectRequest
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES

from common import wire
from server.port.gate import ROUTES

HOST = "127.0.0.1"
# Every route of Flower's app: those with a protobuf body from its own table, and the others by name.
EVERY_ROUTE = sorted({path for _, path in PROTOBUF_REQUEST_TYPES} | {"/docs", "/openapi.json", "/health", "/",
                     "/v1/runtime/responses", "/v1/fleet/pull-messages/", "//v1/fleet/pull-messages"})  # fmt: skip


def headers(keys, instance: str = "0" * 32) -> dict[str, str]:
    key = b64encode(public_key_to_bytes(keys.node.public_key())).decode()
    return {"flwr-public-key": key, "fedscan-instance": instance, "content-type": "application/protobuf"}


def refusals(caplog) -> list[dict]:
    return [json.loads(r.getMessage()) for r in caplog.records if r.name == "fedscan.gate"]


def handshake_fails(world, context: ssl.SSLContext) -> bool:
    try:
        with world.client(None, context) as client:
            client.post("/v1/fleet/pull-messages")
    except httpx.TransportError:
        return True
    return False


def test_every_route_but_the_fleet_s_eight_is_closed(world, caplog) -> None:
    keys = world.enrol("oslo")
    with world.start(), world.client(keys) as client:
        found = {path: client.post(path, headers=headers(keys)).status_code for path in EVERY_ROUTE}
        got = {path: client.get(path, headers=headers(keys)).status_code for path in EVERY_ROUTE}
    # 409: the node was never activated; that answer is the gate's, and comes after who asks was established.
    expected = {path: 404 if path not in ROUTES else 409 for path in EVERY_ROUTE}
    expected["/v1/fleet/activate-node"] = 401  # Flower's: no signature
    assert found == expected
    assert set(got.values()) == {404}
    assert {line["refused"] for line in refusals(caplog)} == {"oslo", keys.sha256}


def test_without_a_certificate_no_route_answers(world) -> None:
    world.enrol("oslo")
    with world.start():
        plain = ssl.create_default_context(cafile=world.authority.path)
        assert handshake_fails(world, plain)
        for path in EVERY_ROUTE:
            with pytest.raises(httpx.TransportError), world.client(None) as client:
                client.post(path)


def test_strangers_do_not_pass_tls(world, tmp_path: Path, caplog) -> None:
    keys = world.enrol("oslo")
    foreign = type(world.authority)(tmp_path / "foreign")
    with world.start() as link:
        own = world.tls(keys)
        own.maximum_version = ssl.TLSVersion.TLSv1_2
        assert handshake_fails(world, own)
        expired = world.enrol("late", end=keys_end(-1))
        for pem, secret, _ in (
            foreign.issue("oslo"),
            (expired.certificate, expired.secret, ""),
            world.authority.issue("another-server", server=True),
        ):
            context = ssl.create_default_context(cafile=world.authority.path)
            context.load_cert_chain(pem, secret)
            assert handshake_fails(world, context)
        with pytest.raises(httpx.TransportError):
            httpx.post(f"http://{HOST}:{link.port}/v1/fleet/pull-messages")
        # A server of another authority is no coordinator: the site's own check.
        context = ssl.create_default_context(cafile=foreign.path)
        context.load_cert_chain(keys.certificate, keys.secret)
        assert handshake_fails(world, context)
        assert not handshake_fails(world, world.tls(keys))
    assert {line["where"] for line in refusals(caplog)} >= {"connection"}


def keys_end(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def test_a_certificate_is_bound_to_one_enrolled_node_key(world, caplog) -> None:
    keys, other = world.enrol("oslo"), world.enrol("bergen")
    stranger = world.enrol("nobody")
    del world.enrolment.records[stranger.sha256]
    with world.start():
        for certificate, key in ((keys, other), (other, keys), (stranger, stranger), (stranger, keys)):
            with world.client(certificate) as client:
                for path in sorted(ROUTES):
                    assert client.post(path, headers=headers(key)).status_code == 403
        with world.client(keys) as client:
            for wrong in ("", "!", "a,b"):
                bad = headers(keys) | {"flwr-public-key": wrong}
                assert client.post("/v1/fleet/pull-messages", headers=bad).status_code == 403
            twice = [*headers(keys).items(), ("flwr-public-key", headers(other)["flwr-public-key"])]
            assert client.post("/v1/fleet/pull-messages", headers=twice).status_code == 403
    assert {line["refused"] for line in refusals(caplog)} == {"oslo", "bergen", stranger.sha256}


def test_a_site_revoked_in_mid_life_is_out_at_its_next_request(world) -> None:
    keys, other = world.enrol("oslo"), world.enrol("bergen")
    with world.start() as link:
        site, left = world.site(keys).activate(), world.site(other).activate()
        assert set(link.fleet.online()) == {"oslo", "bergen"}
        site.poll()
        world.revoke(keys)
        for call in (site.poll, site.activate, lambda: site.pull_object("0" * 64)):
            with pytest.raises(httpx.HTTPStatusError, match="403"):
                call()
        assert set(link.fleet.online()) == set(link.fleet.sites()) == {"bergen"}
        left.poll()


def test_a_certificate_that_ends_while_its_connection_lives_is_refused(world) -> None:
    keys = world.enrol("oslo", end=keys_end(1))
    with world.start():
        site = world.site(keys).activate()
        site.poll()
        record = world.enrolment.records[keys.sha256]
        world.enrolment.records[keys.sha256] = type(record)(record.name, record.node_key, keys_end(-0.001))
        with pytest.raises(httpx.HTTPStatusError, match="403"):
            site.poll()


def test_a_site_enrolled_while_the_server_runs_comes_in(world) -> None:
    with world.start() as link:
        site = world.site(world.enrol("oslo")).activate()
        site.poll()
        assert set(link.fleet.online()) == {"oslo"}


def test_a_second_process_with_one_identity_is_refused_while_the_first_lives(world, caplog) -> None:
    keys = world.enrol("oslo")
    with world.start():
        first, second = world.site(keys).activate(), world.site(keys)
        with pytest.raises(httpx.HTTPStatusError, match="412"):
            second.activate()
        second.node = first.node
        for call in (second.poll, second.deactivate, lambda: second.pull_object("0" * 64)):
            with pytest.raises(httpx.HTTPStatusError, match="409"):
                call()
        first.poll()
        first.activate()  # the same process may say again that it is there
        first.deactivate()
        second.activate()
        second.poll()
        with pytest.raises(httpx.HTTPStatusError, match="409"):
            first.poll()
    assert any("another process" in line["why"] for line in refusals(caplog))


def test_a_signature_is_needed_and_is_the_node_s_own(world) -> None:
    keys = world.enrol("oslo")
    with world.start(), world.client(keys) as client:
        site = world.site(keys).activate()
        body = PullMessagesRequest(node=site.node).SerializeToString()
        asked = client.post("/v1/fleet/pull-messages", headers=headers(keys, site.instance), content=body)
        assert asked.status_code == 401
        site.node.node_id += 1  # another site's node
        with pytest.raises(httpx.HTTPStatusError, match="401"):
            site.poll()


def test_a_giant_body_is_refused_and_memory_stays_flat(world) -> None:
    keys = world.enrol("oslo")
    with world.start() as link, world.client(keys) as client:
        site = world.site(keys).activate()
        known = headers(keys, site.instance)
        peak_memory()
        before = peak_memory()
        block = secrets.token_bytes(1 << 20)

        def chunked():
            for _ in range(300):
                yield block

        for path in ("/v1/fleet/push-object", "/v1/fleet/push-messages", "/v1/fleet/activate-node"):
            with connect(world, keys) as raw:
                raw.sendall(request(path, known, 10**9))
                assert raw.recv(12) == b"HTTP/1.1 413"
            try:
                status = client.post(path, headers=known, content=chunked()).status_code
            except httpx.TransportError:
                status = 413  # the server hung up while this end was still sending
            assert status == 413
        assert peak_memory() - before < 64 << 20
        odd = known | {"content-encoding": "gzip"}
        assert client.post("/v1/fleet/push-object", headers=odd, content=b"x").status_code == 415
        assert link.refusals.count >= 4
        site.poll()


def peak_memory() -> int:
    """Bytes: the most that this process (both ends are in it) held since the last call."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def connect(world, keys, buffer: int | None = None) -> ssl.SSLSocket:
    raw = socket.socket()
    raw.settimeout(20)
    if buffer is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    raw.connect((HOST, world.link.port))
    return world.tls(keys).wrap_socket(raw, server_hostname=HOST)


def request(path: str, known: dict[str, str], length: int) -> bytes:
    lines = "".join(f"{k}: {v}\r\n" for k, v in known.items())
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: {length}\r\n\r\n".encode()


def closed(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_who_is_too_slow_is_closed(world, caplog) -> None:
    keys = world.enrol("oslo")
    with world.start(idle=1, body=1, handshake=1):
        site = world.site(keys).activate()
        silent = socket.create_connection((HOST, world.link.port), timeout=20)  # never speaks TLS
        idle, header, body = (connect(world, keys) for _ in range(3))
        header.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        body.sendall(request("/v1/fleet/push-object", headers(keys, site.instance), 9) + b"1")
        for connection in (silent, idle, header, body):
            assert closed(connection, 15)
            connection.close()
        site.close()
    whys = {line["why"] for line in refusals(caplog)}
    assert "too slow" in whys
    assert any("body was not there" in why for why in whys)


def test_a_flood_of_half_open_connections_keeps_nobody_out(world, caplog) -> None:
    keys = world.enrol("oslo")
    with world.start(handshakes=8, connections=64):
        flood = [socket.create_connection((HOST, world.link.port), timeout=20) for _ in range(40)]
        start = time.monotonic()
        site = world.site(keys).activate()
        site.poll()
        assert time.monotonic() - start < 15
        assert sum(closed(connection, 0.2) for connection in flood) >= 30
        for connection in flood:
            connection.close()
    assert any("unfinished handshakes" in line["why"] for line in refusals(caplog))


def test_one_certificate_gets_no_more_than_its_connections(world, caplog) -> None:
    keys, other = world.enrol("oslo"), world.enrol("bergen")
    with world.start(per_site=4):
        flood = [connect(world, keys) for _ in range(8)]
        time.sleep(0.5)
        assert sum(closed(connection, 0.2) for connection in flood) == 4
        world.site(other).activate().poll()
        for connection in flood:
            connection.close()
    assert any("of one certificate" in line["why"] for line in refusals(caplog))


def test_too_many_requests_are_refused(world) -> None:
    keys = world.enrol("oslo")
    with world.start(rate=0.5), world.client(keys) as client:
        site = world.site(keys).activate()  # takes the one that is there

        def ask() -> int:
            return client.post("/v1/fleet/pull-object", headers=headers(keys, site.instance)).status_code

        assert 429 in [ask() for _ in range(10)]
        time.sleep(2.1)
        assert ask() == 401  # through to Flower, which wants a signature


def test_large_headers_are_refused(world) -> None:
    keys = world.enrol("oslo")
    with world.start(), world.client(keys) as client:
        large = headers(keys) | {"x-large": "x" * 40_000}
        assert client.post("/v1/fleet/pull-messages", headers=large).status_code in (400, 431)
        with connect(world, keys) as endless:
            endless.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\n")
            with pytest.raises(OSError):  # noqa: PT011, PT012 - any of them may be the one
                for i in range(10_000):
                    endless.sendall(b"x-%d: 1\r\n" % i)
                    time.sleep(0.0001)
        world.site(keys).activate().poll()


def ask_for_much(world, keys, floats: int = 1_300_000) -> bytes:
    """A signed request whose answer has four bytes per float."""
    site = world.site(keys).activate()
    values = {"float32": np.random.default_rng(0).standard_normal(floats).astype("float32")}
    content = RecordDict({"arrays": wire.record(values)})
    node = world.link.fleet.sites()[keys.name]
    world.link.grid.push_messages([Message(content, dst_node_id=node, message_type="train")])
    message = site.pull(confirm=False)
    (chunk,) = message.content["arrays"]["float32"].children
    body = PullObjectRequest(node=site.node, run_id=site.run, object_id=chunk).SerializeToString()
    moment = datetime.now(UTC).isoformat()
    signature = b64encode(sign_message(keys.node, moment.encode())).decode()
    signed = headers(keys, site.instance) | {"flwr-timestamp": moment, "flwr-signature": signature}
    return request("/v1/fleet/pull-object", signed, len(body)) + body


def wait_for(caplog, why: str) -> bool:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if any(line["why"] == why for line in refusals(caplog)):
            return True
        time.sleep(0.1)
    return False


def test_a_slow_reader_is_cut_off(world, caplog) -> None:
    keys = world.enrol("oslo")
    with world.start(idle=1):
        ask = ask_for_much(world, keys)
        with connect(world, keys, buffer=4096) as reader:
            reader.sendall(ask)
            assert reader.recv(12) == b"HTTP/1.1 200"
            assert wait_for(caplog, "too slow")


def test_who_asks_on_without_reading_is_cut_off(world, caplog) -> None:
    keys = world.enrol("oslo")
    with world.start():
        # An answer that is handed over in one piece: a larger one would keep the next request waiting.
        ask = ask_for_much(world, keys, floats=60_000)
        with connect(world, keys, buffer=4096) as reader:
            reader.sendall(60 * ask)
            assert wait_for(caplog, "asks on without reading")
