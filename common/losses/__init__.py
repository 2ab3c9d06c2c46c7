"""Losses by name.

A loss is a callable `(*, options...) -> nn.Module`; the module maps logits `(B, K, *S)` and a label map `(B,
*S)` of int64 to a scalar. To add one: write a file here and add a line to `common/names.py`.
"""

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

    weights = study.loss.options.get("class_weights")
    if weights is not None and len(weights) != study.classes:
        raise StudyError(
            f"loss.class_weights has {len(weights)} numbers, but there are {study.classes} classes: the background "
            f"and {', '.join(study.data.labels)}"
        )
    heads = study.training.head_weights or getattr(net, "head_weights", None)
    return DeepSupervision(LOSSES.get(study.loss.name)(**study.loss.options), heads)
