"""Which parameters of the net are not trained."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from common.errors import StudyError
from common.study_training import Training


def frozen(settings: Training, parameters: Iterable[str]) -> frozenset[str]:
    """Those of `parameters`, the names of a whole net, that keep the values with which the run begins.

    Raises:
        StudyError: A pattern fits none of them, or nothing is left to train.
    """
    names = list(parameters)
    for pattern in settings.freeze:
        if not any(fnmatchcase(name, pattern) for name in names):
            some = ", ".join(names[:3])
            raise StudyError(f"training.freeze: {pattern} fits no parameter of the net; they are named {some}, ...")
    found = frozenset(n for n in names if any(fnmatchcase(n, pattern) for pattern in settings.freeze))
    if names and len(found) == len(names):
        raise StudyError("training.freeze: nothing of the net is left to train")
    return found
