"""Units of what is reported."""

import pytest

from common.measured import measured
from common.study import Study

BASE = {"name": "toy", "data": {"labels": ["lung"], "dimensions": 2}, "training": {"steps": 1}}


@pytest.mark.parametrize(
    ("plan", "unit"),
    [({"size": [32, 32], "patch": [32, 32]}, "px"), ({"spacing": [1, 1], "patch": [32, 32]}, "mm")],
    ids=["pictures", "spacing"],
)
def test_distances_of_pictures_without_a_size_are_in_pixels(plan: dict[str, list[int]], unit: str) -> None:
    found = {m["name"]: m["unit"] for m in measured(Study.model_validate(BASE | {"plan": plan}))}
    assert found == {"dice": "", "hd95": unit}
