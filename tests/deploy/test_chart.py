"""The Helm chart: rendered by Helm's own engine, judged by Kubernetes' schemas, and what it promises."""

from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

CHART = Path(__file__).parents[2] / "deploy" / "helm"
VERSIONS = ("1.27", "1.30", "1.33")
CHOICES: dict[str, dict[str, Any]] = {
    "default": {},
    "setup": {"setup": True},
    "all": {
        "image": {"repository": "registry.example.org/fedscan-server", "digest": f"sha256:{'a' * 64}"},
        "imagePullSecrets": [{"name": "pull"}],
        "service": {"type": "ClusterIP", "port": 443, "annotations": {"a": "b"}},
        "storage": {"size": "1Ti", "storageClass": "fast"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
    },
}


def rendered(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    with helm_python.Chart.load(str(CHART)) as chart:
        texts = chart.render(values, name="fed", namespace="trials")
    found = [d for name, t in texts.items() if name.endswith(".yaml") for d in yaml.safe_load_all(t) if d]
    return {d["kind"]: d for d in found}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("choice", CHOICES)
def test_kubernetes_takes_it(choice: str, version: str) -> None:
    documents = rendered(CHOICES[choice])
    assert set(documents) == {"StatefulSet", "Service", "NetworkPolicy"}
    for document in documents.values():
        kubernetes_validate.validate(document, version, strict=True)


def test_the_judge_finds_what_is_wrong() -> None:
    service = rendered({})["Service"]
    service["spec"]["prots"] = service["spec"].pop("ports")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, VERSIONS[0], strict=True)


@pytest.mark.parametrize("wrong", [{"replicas": 3}, {"service": {"port": "8443"}}, {"image": {"digest": "latest"}}])
def test_values_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(helm_python.HelmError):
        rendered(wrong)


@pytest.mark.parametrize("choice", CHOICES)
def test_the_pod_is_restricted(choice: str) -> None:
    # Kubernetes' Pod Security Standard "restricted" (v1.30), and a read-only root.
    pod = rendered(CHOICES[choice])["StatefulSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    own, whole = container["securityContext"], pod["securityContext"]
    assert (whole["runAsNonRoot"], whole["runAsUser"], whole["runAsGroup"]) == (True, 10001, 10001)
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert own["readOnlyRootFilesystem"] is True
    assert (own["allowPrivilegeEscalation"], own["privileged"]) == (False, False)
    assert pod["automountServiceAccountToken"] is False
    assert {key for key in pod if key.startswith("host")} == set()
    assert [set(v) - {"name"} for v in pod["volumes"]] == [{"emptyDir"}]


def test_one_port_in_and_nothing_out() -> None:
    documents = rendered({})
    policy = documents["NetworkPolicy"]["spec"]
    assert (policy["policyTypes"], policy["egress"]) == (["Ingress", "Egress"], [])
    assert policy["ingress"] == [{"ports": [{"port": "fleet", "protocol": "TCP"}]}]
    labels = documents["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"] == documents["Service"]["spec"]["selector"] == labels
    (port,) = documents["StatefulSet"]["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert port["name"] == documents["Service"]["spec"]["ports"][0]["targetPort"]


def test_health_is_asked_for_except_while_keys_are_made() -> None:
    (container,) = rendered({})["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    asked = {"command": ["fedscan", "server", "status"]}
    assert (container["livenessProbe"]["exec"], container["readinessProbe"]["exec"]) == (asked, asked)
    (waiting,) = rendered({"setup": True})["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    assert "livenessProbe" not in waiting
