"""The size of a net and of its training step against arithmetic."""

from common.nets.describe import activation_memory, net_size
from common.study import Study


def study(net: object, batch: int = 2, patch: tuple[int, ...] = (16, 16)) -> Study:
    return Study.model_validate(
        {
            "name": "s",
            "data": {"labels": ["a"], "dimensions": len(patch)},
            "plan": {"patch": patch},
            "training": {"steps": 1, "batch": batch},
            "net": net,
        }
    )


def test_net_size_is_the_published_one_and_takes_no_memory():
    size = net_size(study({"name": "dynunet", "size": "large"}, patch=(64, 64, 64)))
    assert (size.parameters, size.buffers, size.bytes_fp32) == (31_190_954, 0, 124_763_816)


def test_running_statistics_are_counted_apart():
    none = net_size(study({"name": "unet", "width": 4, "levels": 2, "norm": "none"}))
    batch = net_size(study({"name": "unet", "width": 4, "levels": 2, "norm": "batch"}))
    # Six normalised convolutions with 4, 4, 8, 8, 4 and 4 channels: mean and variance each, and a counter.
    assert batch.buffers == 2 * 32 + 6
    assert batch.parameters - none.parameters == 2 * 32


def test_activation_memory_of_a_two_level_unet_by_hand():
    n = 2 * 16 * 16
    image, first, pooled, indices = n, 2 * 2 * n, 2 * n / 4, 2 * 2 * n / 4
    bottom, joined, last = 2 * 4 * n / 4, 4 * n, 2 * 2 * n
    net = 4 * (image + first + pooled + indices + bottom + joined + last)
    # The loss keeps softmax, log-softmax, the one-hot labels and the int64 labels, of two classes; which voxels have
    # a label, a byte each, too.
    loss = 4 * (3 * 2 * n + 2 * n) + n
    found = activation_memory(study({"name": "unet", "width": 2, "levels": 2, "norm": "none"}))
    assert abs(found - (net + loss)) < 200


def test_activation_memory_grows_with_the_batch():
    two, four = (activation_memory(study("dynunet", batch=b, patch=(32, 32, 16))) for b in (2, 4))
    assert abs(four / two - 2) < 0.001
