"""The other side of `benchmarks.whetstone --keras-python PATH`: Python 3.7 with keras 2.1.6 and tensorflow 1.15.5.

    pip install keras==2.1.6 tensorflow==1.15.5 "protobuf<3.21" "h5py<3" "numpy<1.19"

Where a package `whetstone` (0.9.2, GPL-3.0, to be installed by who wants it) can be imported, its layers and its
sharpener are used; else Keras with the published equations. It reads arrays and settings from the folder that it is
given, then for each line "epoch" on its input trains one and answers with one line of JSON. Only Keras' own and
whetstone's public names are used.
"""

import importlib.util
import json
import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


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
    model, sharpener, implementation = build(settings, data["key"], data["x_train"].shape[1])
    y_train, y_test = (to_categorical(data[name], classes) for name in ("y_train", "y_validation"))
    answer({"ready": implementation})
    for number, _ in enumerate(sys.stdin):
        wall, cpu = time.perf_counter(), time.process_time()
        model.fit(
            data["x_train"], y_train, batch_size=settings["batch_size"], epochs=number + 1, initial_epoch=number,
            verbose=0, callbacks=[sharpener],
        )  # fmt: skip
        measured = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        answer(dict(measured, accuracy=float(model.evaluate(data["x_validation"], y_test, verbose=0)[1])))


def build(settings, key, inputs):
    """Return a compiled Keras model, the sharpening callback and the name of what is measured."""
    from keras.layers import BatchNormalization, Dense
    from keras.models import Sequential
    from keras.optimizers import Adadelta, RMSprop

    unit, decode, sharpener, implementation = pieces(settings, key)
    model = Sequential()
    for index, size in enumerate(settings["sizes"]):
        model.add(Dense(size, **({"input_shape": (inputs,)} if index == 0 else {})))
        if settings["batch_norm"]:
            model.add(BatchNormalization(momentum=settings["bn_momentum_dense"], epsilon=settings["bn_epsilon"]))
        model.add(unit())
    model.add(decode())
    kind = {"adadelta": Adadelta, "rmsprop": RMSprop}[settings["optimizer"]]
    optimizer = kind(**{name: settings[name] for name in ("lr", "rho", "epsilon", "decay")})
    model.compile(loss="categorical_crossentropy", optimizer=optimizer, metrics=["accuracy"])
    return model, sharpener, implementation


def pieces(settings, key):
    """Return (units, decoding, sharpener, name): the original's where it is installed."""
    sys.path = [folder for folder in sys.path if os.path.abspath(folder) != os.path.dirname(os.path.abspath(__file__))]
    if importlib.util.find_spec("whetstone") is None:  # nor is it the module of that name beside this one
        return published_equations(settings, key)
    from whetstone.callbacks import ScheduledSharpener
    from whetstone.layers import Softmax_Decode, Spiking_BRelu

    schedule = {name: settings["sh_" + name] for name in ("start", "duration", "intermission")}
    sharpener = ScheduledSharpener(
        num_layers=len(settings["sizes"]), start_epoch=schedule.pop("start"), verbose=False, **schedule
    )
    return Spiking_BRelu, lambda: Softmax_Decode(key), sharpener, "original Whetstone, Keras 2.1.6"


def published_equations(settings, key):
    """The bounded ReLU with sharpness, the decoding and the schedule of the papers, as Keras layers and callback."""
    from keras import backend
    from keras.callbacks import Callback
    from keras.layers import Layer

    units = []

    class Unit(Layer):
        def build(self, input_shape):
            self.sharpness = self.add_weight(name="sharpness", shape=(), initializer="zeros", trainable=False)
            units.append(self)
            super().build(input_shape)

        def call(self, x):
            ramp = backend.clip((x - 0.5) / (1 - self.sharpness + 0.001) + 0.5, 0, 1)
            step = backend.cast(backend.greater_equal(x, 0.5), "float32")
            return backend.switch(backend.equal(self.sharpness, 1.0), step, ramp)

    class Decode(Layer):
        def call(self, x):
            return backend.softmax(backend.dot(2 * x - 1, backend.constant(2 * key.T - 1)))

        def compute_output_shape(self, input_shape):
            return (input_shape[0], len(key))

    class Scheduled(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.passed = epoch

        def on_batch_begin(self, batch, logs=None):
            self.set(self.passed + batch * float(settings["batch_size"]) / self.params["samples"])

        def on_epoch_end(self, epoch, logs=None):
            self.set(epoch + 1)

        def set(self, passed):
            for index, unit in enumerate(units):
                start = settings["sh_start"] + index * (settings["sh_duration"] + settings["sh_intermission"])
                level = min(max((passed - start) / float(settings["sh_duration"]), 0.0), 1.0)
                if level != getattr(unit, "level", 0.0):
                    unit.level = level
                    backend.set_value(unit.sharpness, level)

    return Unit, Decode, Scheduled(), "published equations, Keras 2.1.6"


def answer(content):
    """Write one line."""
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
