"""Splits: sizes worked by hand, no sample in two parts, classes in proportion."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from loaders import digits
from setup_hpo import load_splits, pick_device, stratified


def test_digits_are_scikit_learns():
    data, reference = digits.load(), load_digits()
    assert data.x.shape == (1797, 8, 8) and data.x.dtype == np.uint8
    np.testing.assert_array_equal(np.round(data.x / 255 * 16), reference.images)
    np.testing.assert_array_equal(data.y, reference.target)


def test_split_sizes_and_disjointness():
    # 1797 samples: 20 % = 359 for test; of the 1438 left 2/9 = 320 for validation; 1118 to train.
    data = digits.load()
    numbered = np.arange(len(data.y))
    test, rest = stratified(data.y, 0.2, 0)
    validation, train = stratified(data.y[rest], 2 / 9, 0)
    parts = [test, rest[validation], rest[train]]
    assert [len(part) for part in parts] == [359, 320, 1118]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), numbered)
    assert [len(part.y) for part in load_splits("digits")] == [1118, 320, 359]


@pytest.mark.parametrize("fraction", [0.2, 2 / 9, 0.5])
def test_classes_in_proportion(fraction):
    y = np.repeat([0, 1, 2], [100, 30, 7])
    drawn, _ = stratified(y, fraction, seed=3)
    for label, size in zip((0, 1, 2), (100, 30, 7), strict=True):
        assert abs((y[drawn] == label).sum() - fraction * size) <= 1


def test_split_seed_leaves_the_outer_test_part_alone():
    first, second = load_splits("digits", split_seed=0), load_splits("digits", split_seed=1)
    np.testing.assert_array_equal(first.test.x, second.test.x)
    assert not np.array_equal(first.validation.x, second.validation.x)
    assert not np.array_equal(first.test.x, load_splits("digits", test_seed=1).test.x)


def test_unknown_dataset_names_the_choices():
    with pytest.raises(ValueError, match="unknown dataset 'digit'.*digits"):
        load_splits("digit")


def test_cuda_that_is_not_there_is_refused():
    import torch

    if torch.cuda.is_available():
        assert pick_device("auto") == "cuda"
    else:
        assert pick_device("auto") == "cpu"
        with pytest.raises(ValueError, match="no CUDA device"):
            pick_device("cuda")
