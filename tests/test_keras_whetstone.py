"""The driver of the original Whetstone, with stand-ins for Keras, TensorFlow and the package in place of Python 3.7.

The stand-in of the sharpener has the arguments and the habits that the original's documentation and runs show: a fit
begins at sharpness 0, the first epoch sharpens nothing, and a fit ends where all layers are sharp.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import whetstone
from loaders import Data
from models.whetstone_params import WhetstoneParams
from setup_hpo import Splits

STAND_INS = {
    "tensorflow.py": """
from types import SimpleNamespace as Names
compat = Names(v1=Names(logging=Names(ERROR=0, set_verbosity=lambda level: None)))
ConfigProto, Session, set_random_seed = dict, lambda config: None, lambda seed: None
""",
    "keras/__init__.py": "",
    "keras/backend.py": "set_session = lambda session: None",
    "keras/utils.py": "import numpy\nto_categorical = lambda y, classes: numpy.eye(classes)[y]",
    "keras/layers.py": "BatchNormalization = Dense = lambda *sizes, **settings: None",
    "keras/optimizers.py": "Adadelta = RMSprop = lambda lr, rho, epsilon, decay: None",
    "keras/callbacks.py": """
class Callback:
    def on_train_begin(self, logs=None): pass
    def on_epoch_end(self, epoch, logs=None): pass
""",
    "keras/models.py": """
class Sequential:
    def add(self, layer): pass
    def compile(self, loss, optimizer, metrics): pass
    def evaluate(self, x, y, verbose): return [0.0, 0.5]
    def fit(self, x, y, batch_size, epochs, verbose, callbacks, initial_epoch=0):
        self.stop_training = False
        for each in callbacks:
            each.model = self
            each.on_train_begin()
        for epoch in range(initial_epoch, epochs):
            for each in callbacks:
                each.on_epoch_end(epoch)
            if self.stop_training:
                break
""",
    "whetstone/__init__.py": "",
    "whetstone/layers.py": "Spiking_BRelu, Softmax_Decode = lambda: None, lambda key: None",
    "whetstone/callbacks.py": """
from keras.callbacks import Callback
class ScheduledSharpener(Callback):
    def __init__(self, schedule=None, num_layers=None, start=None, duration=None, intermission=None,
                 bottom_up=True, verbose=False):
        self.layers, self.start, self.duration, self.pause = num_layers, start, duration, intermission
    def on_train_begin(self, logs=None):
        self.sharpness = [0.0] * self.layers
    def on_epoch_end(self, epoch, logs=None):
        for layer in range(self.layers):
            begin = self.start + layer * (self.duration + self.pause)
            if begin < epoch <= begin + self.duration:
                self.sharpness[layer] += 1 / self.duration
        if set(self.sharpness) == {1.0}:
            self.model.stop_training = True
""",
}


@pytest.fixture
def keras(tmp_path, monkeypatch):
    for name, content in STAND_INS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    part = Data(np.zeros((6, 2, 2, 1), np.uint8), np.arange(6) % 2, ("a", "b"))
    params = WhetstoneParams(dense_features=4, dense2_features=3, width=4, sh_start=1, sh_duration=1, sh_intermission=0)
    return whetstone.Keras(Path(sys.executable), params, Splits(part, part, part))


def test_the_original_keeps_its_sharpness_from_epoch_to_epoch(keras):
    assert keras.name == "original Whetstone, Keras 2.1.6"
    levels = []
    for _ in range(7):  # of which the original's own fit would be five
        assert keras.epoch() >= 0
        levels.append(keras.sharpness)
    assert levels == [[0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1]]
    assert keras.accuracy() == 0.5 and keras.process.returncode == 0


def test_a_net_that_is_not_sharp_is_no_result(keras):
    keras.epoch()
    with pytest.raises(RuntimeError, match=r"did not all become sharp: \[0.0, 0.0, 0.0\]"):
        keras.accuracy()
