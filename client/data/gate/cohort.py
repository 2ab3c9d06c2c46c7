"""Whether a site has enough patients for the three parts into which they are divided."""

from typing import Literal

from client.data.gate.codes import finding
from client.data.split import targets
from client.data.volume import Finding
from common.study import Study

# Patients in a part below which its mean says more about them than about the model.
FEWEST = 3


def check_cohort(patients: int, study: Study, use: Literal["train", "test"]) -> list[Finding]:
    """`few-cases`: a part of the split has fewer than `FEWEST` patients.

    Args:
        patients: With at least one usable case.
        study: Its shares.
        use: The site's; at a `test` site everybody is test.
    """
    if use == "test":
        parts = {"test": patients}
    else:
        shares = {"train": 1.0, "validation": study.evaluation.validation, "test": study.evaluation.test}
        parts = {part: n for part, n in targets(patients, study.evaluation).items() if shares[part] > 0}
    small = [f"{number} for {part}" for part, number in parts.items() if number < FEWEST]
    if not small:
        return []
    return [finding("few-cases", "", f"{patients} patient(s) with usable cases: {', '.join(small)}")]
