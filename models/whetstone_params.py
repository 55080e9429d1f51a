"""WhetstoneParams: the hyperparameters of the objective `whetstone`; the defaults learn scikit-learn's digits.

The names and the meaning of optimiser and batch-norm parameters are Keras', as in Parsa et al. Their paper leaves open
the pooling, the output neurons, the batch size and where exactly the noise goes; here that is ours: 2 x 2 after each
convolution, `width`, `batch_size`, and before the batch norm. It imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.params import MOST_BITS, Range, check, check_bits

POSITIVE = Range(0, above=True)
FRACTION = Range(0, 1)
SIZE = Range(1, 65_536)


@dataclass(frozen=True)
class WhetstoneParams:
    """A net, its sharpening and its training. Raises ValueError for a value out of its range."""

    network: str = "dense"  # dense: dense1, dense2, output | conv: conv1, conv2, conv3, dense1, output
    activation: str = "brelu"  # brelu (bounded ReLU) | sigmoid | ste (a step from the first epoch, straight-through)
    dense_features: int = 128  # neurons of dense1
    dense2_features: int = 64  # neurons of dense2, in the dense net alone; 0 = no such layer
    width: int = 100  # output neurons, at least as many as classes
    overlapping: bool = False  # classes may share output neurons
    conv1_filter: int = 3  # side of the filters [pixels]
    conv2_filter: int = 5  # the same
    conv3_filter: int = 3  # the same
    conv1_features: int = 64  # number of filters
    conv2_features: int = 256  # the same
    conv3_features: int = 512  # the same
    weight_bits: int = 0  # of each weight while training and after it, 2 to 16; 0 = floating point
    # Batch norm, after every layer of weights
    batch_norm: bool = False
    bn_momentum_conv: float = 0.95  # part of the running mean and variance that stays in an update, convolutions
    bn_momentum_dense: float = 0.95  # the same, dense layers
    bn_epsilon: float = 1e-3  # added to the variance
    bn_center: bool = True  # learn an offset
    bn_scale: bool = True  # learn a factor
    # Noise while training
    noise_location: str = "none"  # none | after_dense1 (added to its sums)
    noise_std: float = 0.2  # standard deviation, in units of the sums
    # Sharpening
    sharpener: str = "scheduled"  # scheduled | uniform | simple | adaptive
    sh_start: int = 15  # before it begins [epochs]
    sh_duration: int = 5  # that a layer takes, or with uniform all of them [epochs]
    sh_intermission: int = 1  # between two layers, scheduled [epochs]
    sh_steps: int = 4  # simple: steps from 0 to 1, one an epoch
    sh_bottom_up: bool = True  # simple and adaptive: layer by layer, else all at once
    sh_rate: float = 0.25  # adaptive: rise of the sharpness per epoch
    sh_critical_rate: float = 0.126  # adaptive: the same from sh_critical on
    sh_critical: float = 0.75  # adaptive: sharpness
    sh_first_rate: float = 1.0  # adaptive, bottom-up: factor of the first layer's rate
    sh_patience: int = 1  # adaptive: epochs without improvement before it goes on
    sh_increase: float = 0.15  # adaptive: relative rise of the training loss that pauses
    sh_decrease: float = 0.15  # adaptive: relative fall of it that is an improvement
    # Training
    optimizer: str = "rmsprop"  # rmsprop | adadelta | adam
    lr: float = 2e-3  # learning rate; Adadelta wants about 1
    rho: float = 0.9  # part of the averages of squares that stays in an update; Adam has its own
    epsilon: float = 1e-7  # added to the root of the mean square, with Adadelta under both roots
    decay: float = 0.0  # the rate of update t is lr / (1 + decay t)
    batch_size: int = 32  # samples per update
    epochs: int = 0  # at most; 0 = to the end of the sharpening. A net cut off before is forced to sharpness 1
    autocast: bool = False  # train with bfloat16 products; scored with float32
    deterministic: bool = False  # refuse operations that do not repeat themselves (matters on cuda)
    silent_fraction: float = 0.5  # silent: a hidden layer puts out nothing for more of the samples; 1 = never

    def __post_init__(self) -> None:
        check(self, CHOICES, RANGES)
        check_bits("weight_bits", self.weight_bits)


CHOICES = {
    "network": ("dense", "conv"),
    "activation": ("brelu", "sigmoid", "ste"),
    "noise_location": ("none", "after_dense1"),
    "sharpener": ("scheduled", "uniform", "simple", "adaptive"),
    "optimizer": ("rmsprop", "adadelta", "adam"),
}
RANGES = {
    "dense_features": SIZE,
    "dense2_features": Range(0, 65_536),
    "width": SIZE,
    "conv1_filter": Range(1, 31),
    "conv2_filter": Range(1, 31),
    "conv3_filter": Range(1, 31),
    "conv1_features": SIZE,
    "conv2_features": SIZE,
    "conv3_features": SIZE,
    "weight_bits": Range(0, MOST_BITS),
    "bn_momentum_conv": FRACTION,
    "bn_momentum_dense": FRACTION,
    "bn_epsilon": POSITIVE,
    "noise_std": Range(0),
    "sh_start": Range(1),
    "sh_duration": Range(1),
    "sh_intermission": Range(0),
    "sh_steps": Range(1),
    "sh_rate": POSITIVE,
    "sh_critical_rate": POSITIVE,
    "sh_critical": FRACTION,
    "sh_first_rate": POSITIVE,
    "sh_patience": Range(0),
    "sh_increase": POSITIVE,
    "sh_decrease": POSITIVE,
    "lr": Range(0, 1e30, above=True),  # torch multiplies it as a float32
    "rho": FRACTION,
    "epsilon": POSITIVE,
    "decay": Range(0),
    "batch_size": Range(2),  # a batch of one has no variance
    "epochs": Range(0),
    "silent_fraction": FRACTION,
}
