"""How the numbers in a site's label files become the study's labels."""

import numpy as np
import pytest
from pydantic import ValidationError

from client.data.labels import label_map
from client.site import SiteConfig
from common.errors import StudyError
from common.labels import IGNORE

TWO = label_map(["a", "b"], {})


def rules(**labels: object) -> dict[str, object]:
    return dict(SiteConfig.model_validate({"name": "s", "data": "x", "labels": labels}).labels)


def test_label_rules() -> None:
    stored = np.array([0, 1, 2, 3, 4, 200, 255])
    values = label_map(["a", "b"], rules(a=[3, 4], b=255))  # type: ignore[arg-type]
    np.testing.assert_array_equal(values.apply(stored), [0, 0, 0, 1, 1, 0, 2])
    assert values.unknown(stored) == [1, 2, 200]
    grey = label_map(["lung"], rules(lung={"from": 128}))  # type: ignore[arg-type]
    np.testing.assert_array_equal(grey.apply(stored), [0, 0, 0, 0, 0, 1, 1])
    assert grey.unknown(stored) == []
    default = label_map(["a", "b", "c"], {"c": 9})
    np.testing.assert_array_equal(default.apply(np.array([0, 1, 2, 9])), [0, 1, 2, 3])


@pytest.mark.parametrize("word", ["unlabeled", "Unlabelled", " unlabelled"])
def test_a_slip_in_unlabelled_is_no_name(word: str) -> None:
    with pytest.raises(ValidationError, match="write `unlabelled`"):
        rules(lung=word)
    with pytest.raises(ValidationError, match="write `unlabelled`"):
        rules(lung=["Lung*", word])


def test_voxels_that_nobody_labelled() -> None:
    stored = np.array([0, 1, 2, 200, 255])
    values = label_map(["a", "b"], {}, ignore=255)
    np.testing.assert_array_equal(values.apply(stored), [0, 1, 2, 0, IGNORE])
    assert values.unknown(stored) == [200]
    below = label_map(["a"], {}, ignore=-1)
    np.testing.assert_array_equal(below.apply(np.array([-1.0, 0.0, 1.0])), [IGNORE, 0, 1])
    # Without the study's word it is an unknown value.
    assert TWO.unknown(stored) == [200, 255]
    for labels, ignore in (({}, 2), ({"a": {"from": 128}}, 255)):
        with pytest.raises(StudyError, match=rf"stored value {ignore} belongs to .* and to data.ignore"):
            label_map(["a", "b"], rules(**labels), ignore)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "message"),
    [({"anteror": 1}, "Did you mean 'anterior'"), ({"posterior": 1}, "1 belongs to anterior and to posterior"),
     ({"anterior": {"from": 1}, "posterior": 7}, "belongs to")],
)  # fmt: skip
def test_rules_that_contradict_the_study_or_themselves(labels: dict[str, object], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        label_map(["anterior", "posterior"], rules(**labels))  # type: ignore[arg-type]
