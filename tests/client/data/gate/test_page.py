"""The page: whole, private, without anything from elsewhere, and with the right outlines."""

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.data.cache import store
from client.data.gate.codes import finding
from client.data.gate.page import Checked, first_sentence, render, write_page
from client.data.gate.thumbnails import COLOURS, SIDE, panels
from client.data.volume import CachedCase, Case
from common.study import Study
from tests.client.data.gate.made_up import body, case_of, meta_of

STUDY = Study.model_validate({
    "name": "gate", "description": "<script>alert(1)</script>", "data": {"labels": ["large", "small"]},
    "plan": {"patch": [8, 8, 8]}, "training": {"steps": 1},
})  # fmt: skip


@pytest.fixture
def checked(tmp_path: Path) -> Checked:
    cases: list[tuple[Case, CachedCase | None]] = []
    for number in range(3):
        image, truth = body(number)
        folder = tmp_path / "cache" / str(number)
        store(folder, {"image": image, "label": truth}, meta_of((image, truth)))
        case = case_of(number)
        cases.append((case, CachedCase(case.id, case.patient, folder, "", "")))
    cases.append((replace(case_of(3), images=(Path("<img src=x onerror=y>.nii"),)), None))
    findings = (finding("label-grid", "c03", "<img src=x onerror=y>.nii: elsewhere"),
                finding("mask-mirrored", "c01", "c01-mask.nii.gz: mirrored"),
                finding("few-cases", "", "3 patient(s)"))  # fmt: skip
    return Checked("north", STUDY, cases, findings, {"c00": "train", "c01": "train", "c02": "test"})


def test_what_it_says(checked: Checked) -> None:
    page = render(checked)
    assert "3 of 4 cases can be used" in page
    assert "1 case is left out; 1 case can be used but should be looked at by a person first." in page
    assert "stays at the site" in page
    assert page.index("does not lie on its image") < page.index("fits its image better")
    # The case with a warning stands before those without.
    assert page.index('alt="axial of c01"') < page.index('alt="axial of c00"')
    assert page.count("data:image/png;base64,") == 3 * 3


def test_it_needs_and_runs_nothing_else(checked: Checked) -> None:
    page = render(checked)
    assert "<script" not in page
    assert "<img src=x" not in page
    assert set(re.findall(r'(?:src|href)="([^"]{5})', page)) == {"data:"}
    assert "default-src 'none'" in page
    assert "@import" not in page
    assert "url(" not in page


def test_only_its_owner_reads_it(checked: Checked, tmp_path: Path) -> None:
    path = tmp_path / "gate.html"
    path.write_text("old")
    path.chmod(0o644)
    write_page(path, checked)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["gate.html"]


def test_sentences(checked: Checked) -> None:
    whole = replace(checked, cases=checked.cases[:3], findings=())
    assert first_sentence(whole, 3) == "No case is left out."
    assert first_sentence(checked, 0).startswith("No case can be used as it is")


def decoded(png: str) -> np.ndarray:  # type: ignore[type-arg]
    return np.array(Image.open(io.BytesIO(base64.b64decode(png))))


def test_radiologists_see_right_on_the_left_and_head_up() -> None:
    """A bright voxel block at the patient's right, front, head end of a RAS+ array."""
    image = np.zeros((1, 20, 20, 20), np.float32)
    image[:, 15:, 15:, 15:] = 1
    label = np.zeros((20, 20, 20), np.uint8)
    label[15:, 15:, 15:] = 1
    views = {name: decoded(png) for name, png in panels(image, label, (1, 1, 1))}
    assert list(views) == ["axial", "coronal", "sagittal"]
    for view in views.values():
        assert view.shape == (SIDE, SIDE, 3)
        assert view[10, 10].sum() > 400
        assert view[-10, -10].sum() == 0


def test_pixels_are_square_in_mm_and_outlined() -> None:
    image, label = np.random.default_rng(1).random((1, 40, 20)).astype(np.float32), np.zeros((40, 20), np.uint8)
    label[10:20, 5:10] = 2
    ((name, png),) = panels(image, label, (1.0, 4.0))
    picture = decoded(png)
    assert (name, picture.shape) == ("", (SIDE // 2, SIDE, 3))
    coloured = (picture == COLOURS[1]).all(axis=2)
    rows, columns = np.flatnonzero(coloured.any(axis=1)), np.flatnonzero(coloured.any(axis=0))
    assert (rows[0], rows[-1] + 1) == (SIDE // 2 * 10 // 40, SIDE // 2 * 20 // 40)
    assert (columns[0], columns[-1] + 1) == (SIDE * 5 // 20, SIDE * 10 // 20)
    # An outline, not an area.
    assert not coloured[(rows[0] + rows[-1]) // 2, (columns[0] + columns[-1]) // 2]
