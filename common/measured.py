"""What is measured in a study, as reports of either side say it."""

from typing import Any

from common.cards import card_of
from common.metrics import stated
from common.names import METRICS
from common.study import Study


def measured(study: Study) -> list[dict[str, Any]]:
    """Name, title, unit, ideal and range of each of the study's metrics, Dice first."""
    pictures = study.plan.size is not None
    return [
        {"name": name, "title": card_of(METRICS.get(name)).title, **stated(metric, pictures)}
        for name, metric in study.metrics().items()
    ]
