"""When each layer is sharpened, and how fast. No torch.

    sharpener = make_sharpener(params, layers=3)
    levels = sharpener.at(4.5)       # sharpness of each layer when 4.5 epochs have passed
    sharpener.end_epoch(loss)        # after each epoch, with its mean training loss

Epochs are counted from 0, as Keras does: with start 5, five epochs pass before the first layer is sharpened.
Scheduled: M. Parsa et al., "Hyperparameter Optimization in Binary Communication Networks for Neuromorphic Deployment",
section IV-C; the others: Severa et al. 2019. L layers, of which the first is next to the input.
"""

from __future__ import annotations

from models.whetstone_params import WhetstoneParams

LEAST_LOSS = 1e-12  # a reference of 0 has no relative change
ADAPTIVE_EPOCHS = 200  # at most, where `epochs` does not say


class Scheduled:
    """Layer i goes from 0 to 1 within the epochs [start + i (duration + intermission), that + duration)."""

    def __init__(self, layers: int, start: int, duration: int, intermission: int) -> None:
        self.starts = [start + layer * (duration + intermission) for layer in range(layers)]
        self.duration = duration
        self.epochs = self.starts[-1] + duration  # start + L duration + (L - 1) intermission

    def at(self, passed: float) -> list[float]:
        """Return each layer's sharpness when so many epochs have passed."""
        return [min(max((passed - start) / self.duration, 0.0), 1.0) for start in self.starts]

    def end_epoch(self, loss: float) -> None:
        """The schedule is fixed; the loss does not matter."""


class Uniform(Scheduled):
    """All layers go from 0 to 1 together, within the epochs [start, start + duration)."""

    def __init__(self, layers: int, start: int, duration: int) -> None:
        self.starts, self.duration, self.epochs = [start] * layers, duration, start + duration


class Simple:
    """One step after each epoch from `start` on: `steps` of them for each layer in turn, or for all at once."""

    def __init__(self, layers: int, start: int, steps: int, bottom_up: bool) -> None:
        self.layers, self.start, self.bottom_up = layers, start, bottom_up
        self.steps = steps * layers if bottom_up else steps
        self.epochs = start + self.steps

    def at(self, passed: float) -> list[float]:
        """Return each layer's sharpness when so many epochs have passed."""
        taken = min(max(int(passed) - self.start, 0), self.steps)
        part = taken / self.steps
        if not self.bottom_up:
            return [part] * self.layers
        return [
            min(max((taken * self.layers - layer * self.steps) / self.steps, 0.0), 1.0) for layer in range(self.layers)
        ]

    def end_epoch(self, loss: float) -> None:
        """The steps are fixed; the loss does not matter."""


class Adaptive:
    """Sharpen while the training loss stands it; pause where it rises, resume when it has stopped to fall.

    After each epoch the loss is compared with a reference, change = (loss - reference) / reference. Up to the epoch
    before `start` the reference follows the loss. Then an improvement by `sh_decrease` sets a new reference, and every
    other epoch counts towards `sh_patience`. A rise by `sh_increase` pauses; more than `sh_patience` epochs without
    improvement resume. Both set a new reference. An epoch of sharpening adds `sh_rate`, or `sh_critical_rate` from
    `sh_critical` on; bottom-up to the lowest layer that is not sharp, and the next one waits for the next epoch.
    """

    def __init__(self, layers: int, params: WhetstoneParams) -> None:
        self.params, self.epochs = params, ADAPTIVE_EPOCHS
        self.levels = [0.0] * layers
        self.on, self.waits = False, False
        self.reference, self.count = 1e6, 0
        self.ended, self.passed = 0, 0.0  # epochs; the time of the last call

    def at(self, passed: float) -> list[float]:
        """Advance to when so many epochs have passed; return each layer's sharpness."""
        span, self.passed = passed - self.passed, passed
        if self.on and not self.waits and min(self.levels) < 1:
            if self.params.sh_bottom_up:
                layer = next(layer for layer, level in enumerate(self.levels) if level < 1)
                self._raise(layer, span * (self.params.sh_first_rate if layer == 0 else 1), snap=0.001)
                self.waits = self.levels[layer] == 1
            else:
                for layer in range(len(self.levels)):
                    self._raise(layer, span, snap=1e-6)
        return list(self.levels)

    def end_epoch(self, loss: float) -> None:
        """Judge the training loss of the epoch that ended."""
        self.ended, self.waits = self.ended + 1, False
        change = (loss - self.reference) / max(self.reference, LEAST_LOSS)
        if self.ended < self.params.sh_start:
            self.reference = loss
            return
        if change <= -self.params.sh_decrease:
            self.reference, self.count = loss, 0
        else:
            self.count += 1
        if self.on and change >= self.params.sh_increase:
            self.on, self.reference, self.count = False, loss, 0
        elif not self.on and self.count > self.params.sh_patience:
            self.on, self.reference, self.count = True, loss, 0

    def _raise(self, layer: int, span: float, snap: float) -> None:
        level = self.levels[layer]
        rate = self.params.sh_critical_rate if level >= self.params.sh_critical else self.params.sh_rate
        level = level + rate * span
        self.levels[layer] = 1.0 if level >= 1 - snap else level


def make_sharpener(params: WhetstoneParams, layers: int) -> Scheduled | Uniform | Simple | Adaptive:
    """Return the sharpener that the parameters name; its `epochs` is how long it takes, at most."""
    if params.sharpener == "scheduled":
        return Scheduled(layers, params.sh_start, params.sh_duration, params.sh_intermission)
    if params.sharpener == "uniform":
        return Uniform(layers, params.sh_start, params.sh_duration)
    if params.sharpener == "simple":
        return Simple(layers, params.sh_start, params.sh_steps, params.sh_bottom_up)
    return Adaptive(layers, params)
