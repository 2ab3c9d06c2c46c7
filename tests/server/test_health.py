"""Health, asked over both protocols."""

import urllib.error
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.errors import FedscanError
from server.port.health import Health

STATUS = health_pb2.HealthCheckResponse


def http(health: Health, path: str = "/health") -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{health.http_port}{path}", timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def rpc(health: Health, service: str = "") -> int:
    with grpc.insecure_channel(f"127.0.0.1:{health.rpc_port}") as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status)


def test_both_listeners_say_how_it_is_at_the_moment() -> None:
    well = [True]
    with Health(lambda: well[0]) as health:
        assert http(health) == 200
        assert rpc(health) == rpc(health, "fedscan") == STATUS.SERVING
        well[0] = False
        assert http(health) == 503
        assert rpc(health) == STATUS.NOT_SERVING
        assert http(health, "/") == http(health, "/health/../etc") == 404
        with pytest.raises(grpc.RpcError) as found:
            rpc(health, "another")
        assert found.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_port_in_use_is_said() -> None:
    with Health(lambda: True) as health:
        with pytest.raises(FedscanError, match=str(health.http_port)):
            Health(lambda: True, http=health.http_port)
        with pytest.raises(FedscanError, match=str(health.rpc_port)):
            Health(lambda: True, rpc=health.rpc_port)
