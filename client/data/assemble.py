"""The images of a case as the one array that a study wants: training, evaluation and prediction come through here."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from client.data import preprocess
from client.data.preprocess import Grids
from client.data.readers import read
from client.data.volume import Source, Volume
from common.study import Study
from common.study_plan import Plan


def channels_of(sources: Sequence[Source], study: Study) -> list[Volume]:
    """Each source as the study sees it: a slice as a picture, grey that was saved as colour as grey.

    Raises:
        DataError: A source cannot be read.
    """
    images = [flat(read(source), study.data.dimensions) for source in sources]
    if len(study.data.channels) == len(images) == 1:
        images = [one_channel(images[0])]
    return images


def joined(images: Sequence[Volume]) -> Volume:
    """Images of one grid as one, channel after channel."""
    return Volume(np.concatenate([v.array for v in images]), images[0].affine)


def on_plan(image: Volume, plan: Plan) -> tuple[NDArray[np.float32], Grids]:
    """`image` `(C, *S)` as the net sees it; its own grid and the plan's."""
    own, wanted = preprocess.grid(image.array.shape[1:], image.affine), preprocess.plan_grid(image, plan)
    normal = preprocess.normalise(image.array.astype(np.float32, copy=False), plan.intensity)
    return preprocess.resample(normal, own, wanted), {"own": own, "plan": wanted}


def flat(volume: Volume, dimensions: int) -> Volume:
    """A volume of one slice as the picture that a 2D study needs."""
    if dimensions == 2 and volume.array.ndim == 4 and volume.array.shape[3] == 1:
        return Volume(volume.array[..., 0], volume.affine)
    return volume


def one_channel(volume: Volume) -> Volume:
    """Grey that was saved as colour: equal channels become one."""
    first = volume.array[:1]
    return Volume(first, volume.affine) if (volume.array == first).all() else volume
