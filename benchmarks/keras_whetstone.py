"""The other side of `benchmarks.whetstone --keras-python PATH`: the original Whetstone, in a Python 3.7 of its own.

    pip install keras==2.1.6 tensorflow==1.15.5 "protobuf<3.21" "h5py<3" "numpy<1.19" "setuptools<60"
    pip install --no-deps git+https://github.com/SNL-NERL/Whetstone      # version 0.9.2; GPL-3.0

It reads arrays and settings from the folder that it is given, then for each line "epoch" on its input trains one and
answers with one line of JSON. All epochs belong to one fit(): at the beginning of a fit the original's sharpeners put
their state back to 0. Only Keras' and whetstone's public names are used.
"""

import json
import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
MOST_EPOCHS = 10**6  # of the fit, which ends with the input


def main(folder):
    """Answer until the input ends."""
    import numpy as np
    import tensorflow as tf

    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    from keras import backend
    from keras.utils import to_categorical

    one_thread = tf.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    backend.set_session(tf.Session(config=one_thread))
    data = np.load(os.path.join(folder, "data.npz"))
    with open(os.path.join(folder, "settings.json")) as file:
        settings = json.load(file)
    np.random.seed(settings["seed"])
    tf.set_random_seed(settings["seed"])
    classes = int(data["y_train"].max()) + 1
    model, sharpener = build(settings, data["key"], data["x_train"].shape[1])
    y_train, y_test = (to_categorical(data[name], classes) for name in ("y_train", "y_validation"))
    answer({"ready": "original Whetstone, Keras 2.1.6"})
    turns = in_turns(sharpener, data["x_validation"], y_test)
    if turns.next():
        model.fit(
            data["x_train"], y_train, batch_size=settings["batch_size"], epochs=MOST_EPOCHS, verbose=0,
            callbacks=[sharpener, turns],
        )  # fmt: skip


def build(settings, key, inputs):
    """Return a compiled Keras model and the sharpening callback."""
    from keras.layers import BatchNormalization, Dense
    from keras.models import Sequential
    from keras.optimizers import Adadelta, RMSprop
    from whetstone.callbacks import ScheduledSharpener
    from whetstone.layers import Softmax_Decode, Spiking_BRelu

    model = Sequential()
    for index, size in enumerate(settings["sizes"]):
        model.add(Dense(size, **({"input_shape": (inputs,)} if index == 0 else {})))
        if settings["batch_norm"]:
            model.add(BatchNormalization(momentum=settings["bn_momentum_dense"], epsilon=settings["bn_epsilon"]))
        model.add(Spiking_BRelu())
    model.add(Softmax_Decode(key))
    kind = {"adadelta": Adadelta, "rmsprop": RMSprop}[settings["optimizer"]]
    optimizer = kind(**{name: settings[name] for name in ("lr", "rho", "epsilon", "decay")})
    model.compile(loss="categorical_crossentropy", optimizer=optimizer, metrics=["accuracy"])
    schedule = {name: settings["sh_" + name] for name in ("start", "duration", "intermission")}
    return model, ScheduledSharpener(num_layers=len(settings["sizes"]), **schedule)


def in_turns(sharpener, x, y):
    """Return a callback, to be named after `sharpener`, that lets each epoch of a fit wait for a line of the input."""
    from keras.callbacks import Callback

    class InTurns(Callback):
        def next(self):
            """Wait for a line; whether there is one."""
            asked = bool(sys.stdin.readline())
            self.began = time.perf_counter(), time.process_time()
            return asked

        def on_epoch_end(self, epoch, logs=None):
            spent = time.perf_counter() - self.began[0], time.process_time() - self.began[1]
            accuracy = float(self.model.evaluate(x, y, verbose=0)[1])
            levels = [float(level) for level in sharpener.sharpness]
            answer({"seconds": spent[0], "cpu_seconds": spent[1], "accuracy": accuracy, "sharpness": levels})
            # When all is sharp the original ends the fit; here it goes on as long as it is asked to.
            self.model.stop_training = not self.next()

    return InTurns()


def answer(content):
    """Write one line."""
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # benchmarks/whetstone.py lies beside this file; the module of that name is the original package
    sys.path = [folder for folder in sys.path if os.path.abspath(folder) != os.path.dirname(os.path.abspath(__file__))]
    main(sys.argv[1])
