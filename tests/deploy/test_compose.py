"""The compose files, judged by an implementation of the Compose specification, and what they take from each process."""

import json
from typing import Any

import compose_spec
import pytest
import yaml

from tests.deploy import composed

GIVEN = {"FEDSCAN_SCANS": "/srv/scans"}
FILES = ("compose.server.yaml", "compose.site.yaml", "compose.site.gpu.yaml")


def site() -> dict[str, dict[str, Any]]:
    return composed.services_of("compose.site.yaml", GIVEN)


@pytest.mark.parametrize("name", FILES)
def test_the_specification_takes_it(name: str) -> None:
    # Anchors and merge keys are YAML's, and PyYAML's to resolve.
    compose = compose_spec.PyCompose.from_json(json.dumps(yaml.safe_load(composed.text_of(name, GIVEN))))
    compose.validate()
    assert set(compose.service_names()) == set(composed.services_of(name, GIVEN))


def test_the_judge_finds_what_is_wrong() -> None:
    wrong = composed.text_of(FILES[0]).replace("read_only: true", "read_olny: true")
    with pytest.raises(ValueError, match="read_olny"):
        compose_spec.PyCompose.from_json(json.dumps(yaml.safe_load(wrong)))


def test_the_folder_of_the_scans_must_be_named() -> None:
    with pytest.raises(KeyError, match="FEDSCAN_SCANS"):
        composed.text_of("compose.site.yaml")


@pytest.mark.parametrize("name", FILES[:2])
def test_every_service_is_restricted(name: str) -> None:
    for service in composed.services_of(name, GIVEN).values():
        assert service["user"] == "10001:10001"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "cap_add", "devices", "pid", "userns_mode", "env_file"} & set(service)
        assert service["ipc"] == "private"
        assert all(v["bind"] == {"create_host_path": False} for v in service["volumes"] if v["type"] == "bind")


def test_trainer_has_scans_and_no_network_link_the_reverse() -> None:
    trainer, link = site()["trainer"], site()["link"]
    assert trainer["network_mode"] == "none"
    assert "networks" not in trainer
    assert "network_mode" not in link
    assert not [s for s in site().values() if "ports" in s]
    assert composed.mounts_of(trainer)["/data"] == ("/srv/scans", False)
    assert [m for m in composed.mounts_of(link) if m.startswith("/data")] == []


def test_they_share_one_folder_and_see_no_key_of_each_other() -> None:
    trainer, link = (composed.mounts_of(site()[name]) for name in ("trainer", "link"))
    both = {target for target in trainer if target in link}
    assert {t for t in both if trainer[t][1] or link[t][1]} == {"/site/shared"}
    assert both == {"/site/shared", "/site/site.yaml", "/site/federation.json"}
    assert set(trainer) - both == {"/site/trainer", "/site/cache", "/site/operators", "/data"}
    assert set(link) - both == {"/site/link", "/site/certificates"}


def test_the_server_sees_no_offline_key() -> None:
    server = composed.services_of("compose.server.yaml")["server"]
    hidden = [v["target"] for v in server["volumes"] if v["type"] == "tmpfs"]
    assert hidden == ["/coordinator/offline"]
    assert server["ports"] == ["8443:8443"]


def test_who_sees_all_keys_has_no_network_and_does_not_stay() -> None:
    for name in FILES[:2]:
        setup = composed.services_of(name, GIVEN)["setup"]
        assert setup["network_mode"] == "none"
        assert setup["profiles"] == ["setup"]
        assert "/data" not in composed.mounts_of(setup)


@pytest.mark.parametrize(
    ("name", "service", "check"),
    [
        ("compose.site.yaml", "trainer", ["site", "status", "--check", "trainer"]),
        ("compose.site.yaml", "link", ["site", "status", "--check", "link"]),
        ("compose.server.yaml", "server", ["server", "status"]),
    ],
)
def test_health_is_asked_of_the_process_itself(name: str, service: str, check: list[str]) -> None:
    found = composed.services_of(name, GIVEN)[service]
    assert found["healthcheck"]["test"] == ["CMD", "fedscan", *check]
    assert found["restart"] == "unless-stopped"
    assert found["command"][-2:] == ["--log", "json"]
