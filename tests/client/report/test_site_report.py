"""The site's page: numbers by hand, pictures by their pixels, and nothing in it that could run or be fetched."""

import base64
import io
import json
import stat
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from PIL import Image

from client.data.prepare import prepare
from client.evaluation import CaseResult
from client.inference import segment
from client.metrics import dice
from client.models import find_model, home_models
from client.report.cases import table_of
from client.report.pictures import COLOURS, three
from client.site import site_of_home
from client.training import channels_last
from client.work.approval_record import Approval, Decision
from client.work.audit import Audit
from client.work.results import write_results
from common import cli
from common.bundle import name_of, write_bundle
from common.errors import ModelError
from common.figures import Figures, Point, Scores
from common.nets import build_net
from common.signing import Kind, sign
from common.study import Study
from common.wire import Schema

HOSTILE = "</style><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>"
STUDY = Study.model_validate(
    {"name": "s", "description": HOSTILE, "data": {"labels": ["a", "b"]}, "plan": {"patch": [8, 8, 8]},
     "net": {"name": "unet", "width": 2, "levels": 2}, "training": {"steps": 1}, "rounds": {"number": 2},
     "evaluation": {"validation": 0.2, "test": 0.4}}
)  # fmt: skip
FIGURES = Figures(
    round=2, rounds=2, sites=3, cases=40, test=Scores(sites=3, cases=9, dice=0.625, labels=(0.75, 0.5)),
    curve=(Point(round=1, dice=0.25), Point(round=2, dice=0.5)),
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A site with six cases and a model that came home; one case cannot be read."""
    home, random = tmp_path / "home", np.random.default_rng(3)
    for name in ("images", "labels"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for number in range(6):
        label = np.zeros((10, 9, 8), np.uint8)
        label[1:4, 2 : 4 + number % 3, 3:6], label[6:9, 3:6, 2:4] = 1, 2
        image = (random.normal(0, 1, label.shape) + 3 * label).astype(np.float32)
        for name, array in (("images", image), ("labels", label)):
            nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "data" / name / f"case-{number}.nii.gz")
    (tmp_path / "data" / "images" / "case-0.nii.gz").write_bytes(b"no scan")
    home.mkdir()
    (home / "site.yaml").write_text(yaml.safe_dump({"name": "oslo", "data": str(tmp_path / "data"), "device": "cpu"}))
    came(home, 1)
    return home


def came(home: Path, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    net = build_net(STUDY)
    flat = Schema.of(STUDY).pack(net.state_dict())
    card = write_bundle(home / "made", STUDY, f"run-{seed}", flat, FIGURES)
    target = home / "trainer" / "models" / name_of(STUDY, card.model)
    target.parent.mkdir(parents=True, exist_ok=True)
    (home / "made").rename(target)
    return channels_last(net.eval())


class Page(HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += " " if tag in ("td", "th") else ""

    def handle_data(self, data: str) -> None:
        self.text += data


def written(home: Path, *arguments: object) -> tuple[str, Page]:
    assert cli.run(["site", "report", "--home", str(home), *map(str, arguments)]) == 0
    path = home / "site-report.html"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return path.read_text(), Page(path.read_text())


def test_nothing_on_the_page_runs_or_is_fetched(home: Path) -> None:
    text, page = written(home)
    assert "default-src 'none'" in text
    assert {t for t, _ in page.tags} & {"script", "iframe", "object", "embed", "link", "form", "base", "a"} == set()
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "action", "style"):
            value = attributes.get(name) or ""
            assert value.startswith("data:image/png;base64,") if name == "src" and value else "url" not in value
    assert HOSTILE in page.text
    assert "@import" not in text
    assert "url(" not in text


def test_dice_on_the_page_is_that_of_the_masks(home: Path) -> None:
    """By hand: the newest model's masks of the test cases against the label files."""
    net = came(home, 2)
    config = site_of_home(home)
    data = prepare(STUDY, config, cache=home / "cache", home=home / "trainer" / "runs")
    assert len(data.test) > 1
    _, page = written(home, "--local", next((home / "trainer" / "models").glob("s-*")))
    for case in data.test:
        truth = np.asarray(nib.load(config.data / "labels" / f"{case.id}.nii.gz").dataobj)
        a, b = dice(segment([net], case, STUDY, torch.device("cpu")), truth.astype(np.uint8), 2)
        assert f"{case.id} · Dice a {a:.2f}, b {b:.2f}" in page.text
    assert "Your local model on the same cases" in page.text
    pictures = [a for t, a in page.tags if t == "img"]
    assert len(pictures) == 3 * len(data.test)


def test_findings_figures_and_results_are_told(home: Path) -> None:
    scored = {"case-1": (0.5, 0.25), "case-2": (1.0, float("nan"))}
    far = {"case-1": (12.5, float("nan")), "case-2": (3.0, 40.25)}
    results = [CaseResult(name, name, {"dice": dice, "hd95": far[name]}) for name, dice in scored.items()]
    path = home / "trainer" / "runs" / "results" / "run-1" / "round-00002-test.json"
    path.parent.mkdir(parents=True)
    write_results(path, STUDY, results)
    _, page = written(home)
    assert "case-0" in page.text  # it cannot be read
    assert "1 case is left out" in page.text
    # Means by label over the cases that have it: 0.75 and 0.25; their mean 0.5.
    row = " ".join(page.text.split())
    assert "This model on your test cases 2 0.75 0.25 0.50" in row
    assert "This model at all hospitals (mean over 3) 9 0.75 0.50 0.62" in row
    assert "Case Dice a Dice b HD95 a, mm HD95 b, mm case-1 0.50 0.25 12.50 – case-2 1.00 – 3.00 40.25" in row
    points = next(a["points"] for t, a in page.tags if t == "polyline")
    assert points == "0.0,112.5 560.0,75.0"


def test_empty_sections_say_so(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "site.yaml").write_text(yaml.safe_dump({"name": "oslo", "data": str(tmp_path), "device": "cpu"}))
    _, page = written(home)
    assert page.text.count("Nothing yet") == 5
    assert "Nothing has left this site." in page.text


def test_approvals_and_the_audit_log_are_told_in_words(home: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    signed = sign(Ed25519PrivateKey.generate(), Kind.STUDY, "x", STUDY.canonical())
    folder = home / "trainer" / "approvals"
    folder.mkdir(mode=0o700)
    said = Decision(what="approve", who="kari", uid=1, when=now, until=now + timedelta(days=9), rounds=5, why="<b>yes")
    approval = Approval(study=STUDY.digest(), name="s", signed=signed, seen=now, decisions=[said])
    (folder / f"{STUDY.digest()}.json").write_bytes(approval.canonical() + b"\n")
    (folder / f"{STUDY.digest()}.json").chmod(0o600)
    log = Audit(home / "trainer" / "audit.jsonl")
    log.append("approved", who="kari", study=STUDY.digest())
    log.append("paused", who="kari")
    text, page = written(home)
    assert "s: approved" in page.text
    assert "kari approved, until" in page.text
    assert "for 5 rounds, “<b>yes”" in page.text
    assert "<b>yes" not in text
    assert "All 3 lines follow on one another" in page.text
    raw = (home / "trainer" / "audit.jsonl").read_bytes()
    (home / "trainer" / "audit.jsonl").write_bytes(raw.replace(b'"kari"', b'"olaf"', 1))
    _, page = written(home)
    assert "The audit log was altered" in page.text


def test_a_damaged_model_is_said_and_the_page_is_still_written(home: Path) -> None:
    (weights,) = (home / "trainer" / "models").glob("*/weights.safetensors")
    raw = weights.read_bytes()
    weights.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    _, page = written(home)
    assert "damaged or altered" in page.text


def test_pictures_show_the_masks_where_they_are() -> None:
    """A block in the patient's right front, by the colour of the pixels."""
    image = np.zeros((20, 30, 5), np.float32)
    own, model = np.zeros(image.shape, np.uint8), np.zeros(image.shape, np.uint8)
    own[15:19, 25:29, 3] = 1
    model[1:4, 1:4, 3] = 2
    views = [np.asarray(Image.open(io.BytesIO(base64.b64decode(v)))) for v in three(image, own, model, (1.0, 1.0, 2.0))]
    assert all(v.shape == (220, 147, 3) for v in views)
    for view, colour, corner in ((views[1], COLOURS[0], (0, 0)), (views[2], COLOURS[1], (1, 1))):
        rows, columns = np.nonzero((view == np.array(colour)).all(axis=2))
        # Right and front (high indices in RAS+) stand left and up.
        assert (rows.mean() > 110, columns.mean() > 73) == (bool(corner[0]), bool(corner[1]))
    assert not views[0].any()


def test_means_leave_out_what_is_not_there() -> None:
    rows: list[dict[str, Any]] = [
        {"case": "x", "dice": {"a": 0.5, "b": None}},
        {"case": "y", "dice": {"a": 0.1, "b": None}},
    ]
    table = table_of(["a", "b"], rows)
    assert table is not None
    assert [case for case, _ in table.rows] == ["y", "x"]
    assert (table.means[0].value, table.means[1].of, table.overall) == (pytest.approx(0.3), 0, pytest.approx(0.3))


def test_model_list_and_show(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    came(home, 2)
    assert cli.run(["site", "model", "list", "--home", str(home), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["models"]
    assert {m["run"] for m in told} == {"run-1", "run-2"}
    assert told[0]["run"] == "run-2"
    name = told[0]["name"]
    assert cli.run(["site", "model", "show", name[:9], "--home", str(home)]) == 0
    shown = capsys.readouterr().out
    for part in (name, told[0]["model"], "run-2", "1 a, 2 b", "Dice 0.625", "Not a medical device"):
        assert part in shown
    assert find_model(home, name).name == name
    with pytest.raises(ModelError, match="may be"):
        find_model(home, "s-")
    (home / "trainer" / "models" / name / "weights.safetensors").write_bytes(b"x")
    assert [len(part) for part in home_models(home)] == [1, 1]
    assert cli.run(["site", "model", "list", "--home", str(home)]) == 1
    assert "damaged" in capsys.readouterr().err
