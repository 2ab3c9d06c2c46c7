"""Losses by name.

A loss is a callable `(*, options...) -> nn.Module`; the module maps logits `(B, K, *S)` and a label map `(B,
*S)` of int64 to a scalar, in fp32 or better. To add one: write a class here, with its card (`common/cards.py`), and
add a line to `common/names.py`; `tests/common/losses/test_every_loss.py` then asks of it what follows.

A label that is nowhere (in the batch, or in the item where a loss goes item by item) is never left out: its true
region is empty, nothing predicted is right, and whatever is predicted of it costs. So a patch without a structure
teaches that it is not there. In figures:

- overlap losses and clDice: the smoothing s stands in numerator and denominator, so that such a label costs 0 where
  nothing is predicted and goes to 1 elsewhere (focal Tversky: to 1, by its power);
- generalised Dice: it weighs as much as the rarest label that is there;
- boundary, Hausdorff: where there is no surface to measure from, every voxel counts as one voxel away from it;
- cross-entropy, focal: they look at each voxel's own class, so that nothing is to be ruled.

A voxel of the value IGNORE has no label (`data.ignore` of the study). It is in no sum and in no mean, its logits have a
gradient of 0 and do not change the loss; a batch without any labelled voxel costs 0. Where a loss looks at
neighbourhoods (distances, skeletons) such a voxel is outside of every label. Only the entropy term is the
other way round: it looks at these voxels and at no other.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from common.errors import StudyError
from common.names import LOSSES
from common.study import Study


def build_loss(study: Study, net: nn.Module) -> nn.Module:
    """The study's loss; also accepts the list of logits of a deeply supervised net.

    The outputs of such a net weigh what the study says, else what the net's paper says (`net.head_weights`), else as in
    nnU-Net.

    Raises:
        StudyError: The loss has class weights, but not one for each class.
    """
    from common.losses.deep_supervision import DeepSupervision

    for key, weights in _class_weights(study.loss.options, "loss"):
        if len(weights) != study.classes:
            raise StudyError(
                f"{key} has {len(weights)} numbers, but there are {study.classes} classes: the background "
                f"and {', '.join(study.data.labels)}"
            )
    heads = study.training.head_weights or getattr(net, "head_weights", None)
    return DeepSupervision(LOSSES.get(study.loss.name)(**study.loss.options), heads)


def _class_weights(options: Mapping[str, Any], where: str) -> Iterator[tuple[str, Sequence[float]]]:
    """All class weights in a loss' options and in those of its terms, each with its key."""
    if options.get("class_weights") is not None:
        yield f"{where}.class_weights", options["class_weights"]
    for number, term in enumerate(options.get("terms", ())):
        yield from _class_weights(term, f"{where}.terms.{number}")
