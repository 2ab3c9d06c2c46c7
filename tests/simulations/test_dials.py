"""Phantoms whose dials are turned, against closed forms (counts, the power curve) and the same phantoms without."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.documents import Document
from common.errors import StudyError
from common.seeds import generator
from common.study import load_study
from simulations.anatomy import LIVER, Ellipsoid, Patient
from simulations.config import simulated_sites
from simulations.dials import STILL, Dials, is_one_of
from simulations.phantom import make_phantom
from simulations.scanner import Scanner, scan

Pictures = dict[tuple[int, str], np.ndarray]


def made(folder: Path, dials: Dials = STILL, sites: int = 4, cases: int = 8) -> tuple[Pictures, Pictures]:
    """Images and label maps by hospital (from 1) and file name."""
    homes = make_phantom(folder, sites=sites, cases=cases, dimensions=2, difference=0, dials=dials)
    return tuple(
        {
            (number, file.name): np.asarray(Image.open(file))
            for number, home in enumerate(homes, start=1)
            for file in sorted((home / kind).iterdir())
        }
        for kind in ("imagesTr", "labelsTr")
    )  # type: ignore[return-value]


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pictures, Pictures]:
    return made(tmp_path_factory.mktemp("usual"))


def with_kidneys(labels: Pictures, hospital: int) -> int:
    return sum(bool((label == 2).any()) for (home, _), label in labels.items() if home == hospital)


@pytest.mark.parametrize("share", [0, 0.1, 0.25, 1 / 3, 0.5, 0.9, 1])
def test_a_share_is_exact_however_many_there_are(share: float) -> None:
    for n in range(50):
        assert sum(is_one_of(share, i) for i in range(n)) == int(share * n + 1e-9)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_rarity_takes_kidneys_from_every_second_hospital(
    tmp_path: Path, usual: tuple[Pictures, Pictures], share: float
) -> None:
    _, labels = made(tmp_path, Dials(rarity=share))
    assert [with_kidneys(usual[1], hospital) for hospital in (1, 2, 3, 4)] == [8, 8, 8, 8]
    assert [with_kidneys(labels, hospital) for hospital in (1, 2, 3, 4)] == [8, 8 - 8 * share, 8, 8 - 8 * share]


def test_the_patients_of_a_rare_organ_are_the_same_without_it(tmp_path: Path, usual: tuple[Pictures, Pictures]) -> None:
    images, labels = made(tmp_path, Dials(rarity=1))
    for key, label in labels.items():
        before = usual[1][key]
        elsewhere = before != 2  # a kidney may have covered a little of the liver
        np.testing.assert_array_equal(label[elsewhere], before[elsewhere])
        here = images[key[0], key[1].replace(".png", "_0000.png")]
        there = usual[0][key[0], key[1].replace(".png", "_0000.png")]
        assert (key[0] % 2 == 1) == np.array_equal(here, there)


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_wrong_labels_are_as_many_as_asked_and_at_the_last_hospital(
    tmp_path: Path, usual: tuple[Pictures, Pictures], share: float
) -> None:
    images, labels = made(tmp_path, Dials(wrong_labels=share))
    wrong = [key for key, label in labels.items() if not np.array_equal(label, usual[1][key])]
    assert len(wrong) == 8 * share
    assert {hospital for hospital, _ in wrong} == {4}
    for key in wrong:
        np.testing.assert_array_equal(labels[key] == 1, usual[1][key] == 2)
        np.testing.assert_array_equal(labels[key] == 2, usual[1][key] == 1)
    assert all(np.array_equal(image, usual[0][key]) for key, image in images.items())


def test_contrast_bends_the_grey_values_alone(tmp_path: Path, usual: tuple[Pictures, Pictures]) -> None:
    images, labels = made(tmp_path, Dials(contrast=1))
    assert all(np.array_equal(label, usual[1][key]) for key, label in labels.items())
    changed = {
        hospital for (hospital, name), image in images.items() if image.tobytes() != usual[0][hospital, name].tobytes()
    }
    assert changed == {2, 3, 4}


def test_contrast_is_the_exponent_of_the_signal() -> None:
    none = np.zeros((1, 3), np.float32)
    organ = Patient((Ellipsoid(LIVER, (0, 0, 0), (60, 60, 60)),), none, none, np.zeros(1, np.float32), lesion=0.5)
    for site, exponent in ((0, 1), (1, np.e), (2, 1 / np.e), (3, np.sqrt(np.e))):
        by = Dials(contrast=1).at(site, 4).scanner(Scanner())
        inside = scan(organ, by, 2, generator(1)).image[18:28, 18:28]
        # The liver's signal is 0.65 of the brightest tissue, which is stored as 1000; texture, bias and noise.
        assert inside.mean() == pytest.approx(1000 * 0.65**exponent, rel=0.12)


def test_dials_add_to_the_difference() -> None:
    assert Dials(contrast=0.5).at(1, 4).scanner(Scanner(gamma=0.25, noise=0.1)) == Scanner(gamma=0.75, noise=0.1)


def test_other_dials_are_another_phantom(tmp_path: Path) -> None:
    make_phantom(tmp_path, sites=1, cases=1, dimensions=2)
    with pytest.raises(StudyError, match="other settings"):
        make_phantom(tmp_path, sites=1, cases=1, dimensions=2, dials=Dials(wrong_labels=1))


def test_a_study_turns_them(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: test\ndata: {labels: [liver, kidneys], dimensions: 2}\nplan: {patch: [32, 32]}\ntraining: {steps: 1}\n"
        "sites: {make: phantom, number: 2, cases: 4, contrast: 0.5, rarity: 1, wrong_labels: 0.5}\n"
    )
    sites = simulated_sites(Document.read(path), load_study(path), None, tmp_path / "work")
    labels = [[np.asarray(Image.open(f)) for f in sorted((s.data / "labelsTr").iterdir())] for s in sites]
    # Without kidneys and with the numbers exchanged in every second case, the liver is 2 there.
    assert [sorted(set(np.unique(label).tolist())) for label in labels[1]] == [[0, 1], [0, 2], [0, 1], [0, 2]]
    assert sites[1].data.parent.name == "2d-2x4-difference-1-seed-1-contrast-0.5-rarity-1-wrong_labels-0.5"


@pytest.mark.parametrize("dial", ["contrast: 3", "rarity: 1.1", "wrong_labels: -1"])
def test_a_dial_has_its_bounds(tmp_path: Path, dial: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: test\ndata: {labels: [liver, kidneys], dimensions: 2}\nplan: {patch: [32, 32]}\ntraining: {steps: 1}\n"
        f"sites: {{make: phantom, {dial}}}\n"
    )
    with pytest.raises(StudyError, match=rf"study\.yaml:5: sites\.{dial.partition(':')[0]}: "):
        simulated_sites(Document.read(path), load_study(path), None, tmp_path / "work")
