"""clDice against MONAI, and skeletons that can be seen."""

import monai.losses
import pytest
import torch

from common.losses.overlap import DiceLoss
from common.losses.skeleton import ClDiceLoss, soft_skeleton


@pytest.mark.parametrize("size", [(12, 14), (8, 9, 10)])
@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("smooth", [1.0, 1e-3])
def test_cldice_is_monais(size, iterations, smooth, sample):
    logits, target = sample(2, size)
    # The last smoothing is only MONAI's.
    theirs = monai.losses.SoftclDiceLoss(
        iter_=iterations, smooth_nr=smooth, smooth_dr=smooth, smooth=1e-12, include_background=False,
        to_onehot_y=True, softmax=True,
    )  # fmt: skip
    ours = ClDiceLoss(iterations=iterations, smooth=smooth, batch=False)
    torch.testing.assert_close(ours(logits, target), theirs(logits, target[:, None]))


def test_labels_are_averaged_and_batches_summed(sample):
    logits, target = sample(3, (12, 14))
    one = [
        ClDiceLoss()(torch.stack((1 - p, p), 1).log(), (target == k).long())
        for k, p in enumerate(torch.softmax(logits, 1).unbind(1))
    ]
    torch.testing.assert_close(ClDiceLoss()(logits, target), (one[1] + one[2]) / 2)
    torch.testing.assert_close(ClDiceLoss(background=True)(logits, target), sum(one) / 3)
    side_by_side = torch.cat(list(logits), dim=-1)[None], torch.cat(list(target), dim=-1)[None]
    assert ClDiceLoss()(logits, target) != ClDiceLoss(batch=False)(logits, target)
    # Summed over the batch it is nearly one image with the items side by side, but for the seam.
    torch.testing.assert_close(ClDiceLoss()(logits, target), ClDiceLoss()(*side_by_side), rtol=0.1, atol=0)


def test_the_skeleton_of_a_bar_is_its_middle_line():
    bar = torch.zeros(1, 1, 9, 20)
    bar[..., 2:7, 3:17] = 1
    skeleton = soft_skeleton(bar, 3)[0, 0]
    assert skeleton.unique().tolist() == [0, 1]
    # Five voxels wide: the middle row, but for what erosion took off its ends.
    assert skeleton[4, 5:15].tolist() == [1] * 10
    assert skeleton[:, 8:12].sum().item() == 4
    line = torch.zeros(1, 1, 5, 6, 7)
    line[..., 2, 3, 1:6] = 1
    assert torch.equal(soft_skeleton(line, 2), line)


def test_a_gap_costs_more_than_a_rough_edge():
    """Four pixels missing: Dice sees no difference, clDice does."""
    target = torch.zeros(1, 11, 40, dtype=torch.int64)
    target[0, 4:7] = 1
    logits = 40 * torch.nn.functional.one_hot(target, 2).movedim(-1, 1).double()
    gap, rough = logits.clone(), logits.clone()
    gap[0, :, 4:7, 20] = gap[0, :, 4:7, 20].flip(0)
    for column in (10, 20, 30):
        rough[0, :, 4, column] = rough[0, :, 4, column].flip(0)
    torch.testing.assert_close(DiceLoss()(gap, target), DiceLoss()(rough, target))
    assert ClDiceLoss()(gap, target) > 2 * ClDiceLoss()(rough, target)
