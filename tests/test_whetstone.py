"""Units against values worked outside the code, keys, decoding, batch-norm folding, the nets."""

import math

import numpy as np
import pytest
import torch

from models.whetstone import Decoder, StraightThrough, Unit, make_key
from models.whetstone_net import WhetstoneNet, layer_names, rebuild
from models.whetstone_params import WhetstoneParams

BRELU_X, SIGMOID_X = (0.0, 0.45, 0.502, 0.6, 1.2), (-0.3, -0.05, 0.0, 0.002, 0.1)
# Severa et al. 2019, computed with the mathematics of Python's standard library, to 7 digits
BRELU = {
    0: (0.0004995, 0.45005, 0.501998, 0.5999001, 1),
    0.25: (0, 0.4334221, 0.5026631, 0.6331558, 1),
    0.5: (0, 0.4001996, 0.503992, 0.6996008, 1),
    0.9: (0, 0.0049505, 0.519802, 1, 1),
    0.99: (0, 0, 0.6818182, 1, 1),
    1: (0, 0, 1, 1, 1),
}
SIGMOID = {
    0: (0.1709697, 0.4345948, 0.5, 0.5026313, 0.6286097),
    0.25: (0.108677, 0.4132076, 0.5, 0.5035072, 0.6685075),
    0.5: (0.0409186, 0.371513, 0.5, 0.5052571, 0.7410558),
    0.9: (2e-07, 0.0686357, 0.5, 0.5260548, 0.9945986),
    0.99: (0, 0, 0.5, 0.7226786, 1),
    1: (0, 0, 1, 1, 1),
}


def sharp_unit(kind, sharpness):
    unit = Unit(kind)
    unit.sharpen(sharpness)
    return unit


@pytest.mark.parametrize("sharpness", BRELU)
@pytest.mark.parametrize("kind, x, expected", [("brelu", BRELU_X, BRELU), ("sigmoid", SIGMOID_X, SIGMOID)])
def test_units_equal_the_published_formulas(kind, x, expected, sharpness):
    y = sharp_unit(kind, sharpness)(torch.tensor(x, dtype=torch.float64))
    np.testing.assert_allclose(y.numpy(), expected[sharpness], atol=6e-8)


def gradient(unit, x):
    x = torch.tensor(x, requires_grad=True)
    unit(x).sum().backward()
    return x.grad


@pytest.mark.parametrize("kind", ["brelu", "sigmoid"])
def test_gradients_are_zero_at_sharpness_1_and_there(kind):
    assert gradient(sharp_unit(kind, 1.0), [0.0, 0.3, 0.5, 0.9]).tolist() == [0, 0, 0, 0]


def test_gradients_below_1():
    # brelu: 1 / (w + .001) on the ramp. sigmoid: k / (4 (w + .001)) in its middle, k = 4 ln(2 + sqrt 3).
    assert gradient(sharp_unit("brelu", 0.5), [0.2, 0.4, 0.9]).tolist() == pytest.approx([0, 1 / 0.501, 0])
    steepest = math.log(2 + math.sqrt(3)) / 0.501
    assert gradient(sharp_unit("sigmoid", 0.5), [0.0]).tolist() == pytest.approx([steepest])


def test_straight_through_by_hand():
    x = torch.tensor([-0.01, 0.0, 0.49, 0.5, 1.0, 1.01], requires_grad=True)
    y = StraightThrough.apply(x, 0.5)
    (y * torch.arange(1.0, 7)).sum().backward()
    assert y.tolist() == [0, 0, 0, 1, 1, 1] and x.grad.tolist() == [0, 2, 3, 4, 5, 0]
    unit = Unit("ste")
    unit.sharpen(0.0)
    assert float(unit.sharpness) == 1


@pytest.mark.parametrize("overlapping", [True, False])
@pytest.mark.parametrize("n_classes, width", [(10, 10), (10, 45), (3, 100), (100, 250)])
def test_keys_are_distinct_and_of_equal_size(n_classes, width, overlapping):
    key = make_key(n_classes, width, overlapping, seed=3)
    assert key.shape == (n_classes, width)
    assert (key.sum(1) == width // n_classes).all() and width // n_classes > 0
    assert len({tuple(row) for row in key.tolist()}) == n_classes
    if not overlapping:
        assert key.sum(0).max() == 1
    assert torch.equal(key, make_key(n_classes, width, overlapping, seed=3))
    assert not torch.equal(key, make_key(n_classes, width, overlapping, seed=4))


def test_overlapping_keys_overlap():
    assert make_key(10, 40, True, 0).sum(0).max() > 1


@pytest.mark.parametrize("overlapping", [True, False])
def test_every_key_decodes_to_its_class(overlapping):
    key = make_key(10, 40, overlapping, seed=0)
    assert Decoder(key)(key).argmax(1).tolist() == list(range(10))


def test_decoding_by_hand():
    # (1, 0, 1) agrees with (1, 0, 0) in two places of three, 2 - 1 = 1; with (0, 1, 1) in one, 1 - 2 = -1.
    decoder = Decoder(torch.tensor([[1, 0, 0], [0, 1, 1]]))
    assert decoder(torch.tensor([[1.0, 0, 1], [0.5, 0.5, 0.5]])).tolist() == [[1, -1], [0, 0]]


def test_too_narrow_an_output_is_refused():
    with pytest.raises(ValueError, match="width must be at least the number of classes, 10, not 9"):
        make_key(10, 9, True, 0)


def small(**changes):
    sizes = {"conv1_features": 4, "conv2_features": 6, "conv3_features": 8, "dense_features": 24, "dense2_features": 20}
    return WhetstoneParams(**sizes | {"width": 40, "batch_norm": True} | changes)


def net_with_statistics(params, dtype=torch.float32):
    """A net whose batch norms have seen data, with factors of both signs."""
    net = WhetstoneNet(params, (8, 8, 1), 10, seed=1).to(dtype)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for norm in net.norms:
            norm.weight.normal_(0, 1, generator=generator)
            norm.bias.uniform_(0, 1, generator=generator)
            norm.running_mean.normal_(0, 0.2, generator=generator)
            norm.running_var.uniform_(0.05, 2, generator=generator)
    net.sharpen(1.0)
    return net.eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("network", ["dense", "conv"])
def test_folding_changes_no_output_bit(network, dtype):
    net = net_with_statistics(small(network=network), dtype)
    images = torch.randint(256, (1000, 8, 8, 1), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    x = net.pixels(images).to(dtype)
    with torch.no_grad():
        folded = net.folded()
        for name, before, after in zip(net.names, net.activities(x), folded.activities(x), strict=True):
            assert torch.equal(before, after), name
            assert 0.02 < before.mean() < 0.98, name
    assert not any("norms" in name for name in folded.state_dict())


def test_layers_and_sizes_by_hand():
    dense = WhetstoneNet(small(), (8, 8, 1), 10)
    assert [tuple(link.weight.shape) for link in dense.links] == [(24, 64), (20, 24), (40, 20)]
    assert dense.size() == 24 * 65 + 20 * 25 + 40 * 21
    conv = WhetstoneNet(small(network="conv"), (28, 28, 3), 10)  # 28, 14, 7, 3 pixels after pooling
    shapes = [(4, 3, 3, 3), (6, 4, 5, 5), (8, 6, 3, 3), (24, 8 * 3 * 3), (40, 24)]
    assert [tuple(link.weight.shape) for link in conv.links] == shapes
    assert layer_names(small(dense2_features=0)) == ["dense1", "output"]


@pytest.mark.parametrize("shape", [(3, 3, 1), (8, 8, 3), (32, 32, 3), (9, 5, 1)])
def test_the_convolutional_net_takes_images_of_any_size(shape):
    net = WhetstoneNet(small(network="conv"), shape, 10)
    net.sharpen(1.0)
    images = torch.zeros((2, *shape), dtype=torch.uint8)
    assert net(net.pixels(images)).shape == (2, 10)


def test_initial_weights_are_glorots():
    net = WhetstoneNet(small(dense_features=2000), (8, 8, 1), 10)
    limit = math.sqrt(6 / (64 + 2000))
    assert net.links[0].weight.abs().max().item() == pytest.approx(limit, rel=1e-3) and not net.links[0].bias.any()
    conv = WhetstoneNet(small(network="conv"), (8, 8, 1), 10)
    assert conv.links[1].weight.abs().max().item() == pytest.approx(math.sqrt(6 / ((4 + 6) * 25)), rel=0.02)


def test_batch_norm_means_what_keras_means():
    net = WhetstoneNet(small(bn_momentum_dense=0.95, bn_center=False, bn_scale=False), (8, 8, 1), 10)
    norm = net.norms[0]
    assert not norm.weight.requires_grad and not norm.bias.requires_grad and norm.eps == 1e-3
    norm.train()(torch.tensor([[1.0] * 24, [3.0] * 24]))  # mean 2: .95 * 0 + .05 * 2
    assert norm.running_mean[0].item() == pytest.approx(0.1)


def test_noise_is_added_while_training_alone():
    net = WhetstoneNet(small(noise_location="after_dense1", noise_std=0.5, batch_norm=False), (8, 8, 1), 10)
    x = torch.full((4000, 64), 0.5)
    with torch.no_grad():
        net.links[0].weight.zero_()
        net.links[0].bias.fill_(0.5)  # the ramp's middle: what comes out is the noise, clipped
        assert net.eval().activities(x)[0].std() == 0
        # the normal distribution with standard deviation .5: 68.3 % within .5 of the middle, where the ramp ends
        noisy = net.train().activities(x)[0]
    assert ((noisy > 0) & (noisy < 1)).float().mean().item() == pytest.approx(0.683, abs=0.01)


def test_sharpness_is_saved_with_the_net(tmp_path):
    net = net_with_statistics(small())
    net.sharpen([1.0, 0.5, 0.0])
    torch.save(net.saved(), tmp_path / "model.pt")
    again = rebuild(torch.load(tmp_path / "model.pt", weights_only=True))
    assert again.levels() == [1.0, 0.5, 0.0]
    x = torch.rand(5, 64)
    assert torch.equal(again(x), net(x))
