"""Memristive synapses: VTEAM devices whose conductance is the weight, moved by pulses where a learning rule says so.

VTEAM (Kvatinsky et al. 2015, TCAS-II 62:786, as restated by Biolek et al. 2021, IEEE Access 9:30242, eq. 1-8), of the
state w [m] between w_on and w_off at the voltage v, with z = (w - w_on) / (w_off - w_on):

    dw/dt = k_off (v / v_off - 1)^alpha_off f_off(z)   v > v_off > 0      R rises to r_off
    dw/dt = 0                                          v_on <= v <= v_off
    dw/dt = k_on  (v / v_on  - 1)^alpha_on  f_on(z)    v < v_on < 0       R falls to r_on

    R = r_on + (r_off - r_on) z  (linear)   or   R = r_on (r_off / r_on)^z  (exponential)

Windows f: "clip" (1; z is clipped, which is the asymmetric rectangular window), "biolek", "kvatinsky", "joglekar",
"prodromakis". The last two are 0 at both ends, where a device stays for ever. So does, in the middle, "kvatinsky" with
its published constants (both branches closed between w = 1.2 and 2 nm of 3 nm): they belong to a model with a term of
the current that VTEAM does not have. Windows that stick are refused, unless asked for.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from numbers import Real

import numpy as np

from simulator import memristor_kernel as kernel
from simulator.programmed import Programmed

WINDOWS = ("clip", "biolek", "kvatinsky", "joglekar", "prodromakis")  # in the kernel's order
RESISTANCES = ("linear", "exponential")
CLOSED = 1e-3  # a window below this counts as 0


def _check_finite(record, but: tuple[str, ...] = ()) -> None:
    """Raise ValueError naming a field, other than those in `but`, that is no finite number."""
    for field in fields(record):
        value = getattr(record, field.name)
        if field.name not in but and not (isinstance(value, Real) and np.isfinite(value)):
            raise ValueError(f"{field.name} must be a finite number, not {value!r}")


@dataclass(frozen=True)
class Vteam:
    """A device. Raises ValueError naming what is out of range, or that its window sticks, and where."""

    k_on: float  # [m/s], below 0
    k_off: float  # [m/s], above 0
    alpha_on: float
    alpha_off: float
    v_on: float  # [V], below 0
    v_off: float  # [V], above 0
    r_on: float  # [ohm]
    r_off: float  # [ohm]
    w_on: float = 0.0  # [m]
    w_off: float = 3e-9  # [m]
    resistance: str = "linear"  # linear | exponential
    window: str = "clip"
    p: int = 2  # exponent of biolek, joglekar, prodromakis
    height: float = 1.0  # j of prodromakis
    close_off: float = 1.2 / 3  # kvatinsky: z where the off branch closes, a_off = 1.2 nm of 3 nm
    close_on: float = 2 / 3  # where the on branch closes, a_on = 2 nm
    sharpness: float = 0.107 / 3  # w_c = 107 pm
    may_stick: bool = False  # warn of a window that sticks instead of refusing it

    def __post_init__(self):
        _check_finite(self, but=("resistance", "window"))
        for name in ("k_off", "v_off", "alpha_on", "alpha_off", "r_on", "sharpness", "height"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} of a VTEAM device must be above 0, not {getattr(self, name)}")
        for name in ("k_on", "v_on"):
            if getattr(self, name) >= 0:
                raise ValueError(f"{name} of a VTEAM device must be below 0, not {getattr(self, name)}")
        for low, high in (("r_on", "r_off"), ("w_on", "w_off")):
            if not getattr(self, low) < getattr(self, high):
                raise ValueError(f"{low} must be below {high}, not {getattr(self, low)} and {getattr(self, high)}")
        for name, known in (("resistance", RESISTANCES), ("window", WINDOWS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if isinstance(self.p, bool) or not isinstance(self.p, int) or self.p < 1:
            raise ValueError(f"p must be a whole number of at least 1, not {self.p!r}")
        self._check_window()

    def rate(self, volts: float) -> float:
        """Return dz/dt [1/s] at a voltage, without window; exactly 0 within v_on..v_off."""
        if volts > self.v_off:
            speed = self.k_off * (volts / self.v_off - 1) ** self.alpha_off
        elif volts < self.v_on:
            speed = self.k_on * (volts / self.v_on - 1) ** self.alpha_on
        else:
            return 0.0
        return speed / (self.w_off - self.w_on)

    def window_at(self, z: float, on: bool) -> float:
        """Return f_on(z), or f_off(z)."""
        return float(kernel.window(float(z), on, *self.window_numbers()))

    def pulse(self, z: np.ndarray, volts: float, seconds: float) -> np.ndarray:
        """Return z, of any shape, after a pulse."""
        z = np.asarray(z, dtype=float)
        return kernel.all_moved(z, np.full(z.shape, self.rate(volts) * seconds), *self.window_numbers())

    def ohms(self, z: np.ndarray) -> np.ndarray:
        """Return the resistance [ohm] at z."""
        if self.resistance == "exponential":
            return self.r_on * (self.r_off / self.r_on) ** z
        return self.r_on + (self.r_off - self.r_on) * z

    def state_of(self, ohms: np.ndarray) -> np.ndarray:
        """Return z of a resistance [ohm]."""
        if self.resistance == "exponential":
            return np.log(ohms / self.r_on) / np.log(self.r_off / self.r_on)
        return (ohms - self.r_on) / (self.r_off - self.r_on)

    def window_numbers(self) -> tuple[int, float, float, float]:
        """Return (kind, p, first, second) as the kernel knows them."""
        kind = WINDOWS.index(self.window)
        if kind == kernel.KVATINSKY:
            return kind, self.sharpness, self.close_off, self.close_on
        return kind, float(self.p), self.height, 0.0

    def _check_window(self) -> None:
        for z in np.linspace(0, 1, 101):
            off, on = self.window_at(z, False), self.window_at(z, True)
            if (off < CLOSED or z == 1) and (on < CLOSED or z == 0):
                told = f"the window {self.window} sticks: a device at z = {z:g} stays there for ever"
                if not self.may_stick:
                    raise ValueError(f"{told}; take clip or biolek, or may_stick=True")
                warnings.warn(told, stacklevel=4)
                return


NM = 1e-9
DEVICES = {  # no set is claimed to be from Kvatinsky 2015, whose table of fits was not readable
    "technion": Vteam(-10, 5e-4, 3, 1, -0.2, 0.02, 50, 1000, 0, 3 * NM),  # Technion's Verilog-A, MemTorch's default
    "magic": Vteam(-216.2, 0.091, 4, 4, -1.5, 0.3, 1e3, 300e3, 0, 3 * NM),  # MAGIC logic; two public repositories
    "taox": Vteam(-0.1, 1e-8, 18, 2, -0.6, 0.78, 4.8e3, 700e3, 0, 25 * NM),  # TaOx; one public repository
}


@dataclass(frozen=True)
class Pulses:
    """What a learning synapse applies to its device: one pulse per change that its rule asks for.

    The change of the rule counts by its sign only, and where it is above `least`. Reading applies `read_volts`
    for `read_seconds` at each input spike; within v_on..v_off that disturbs nothing.
    """

    up_volts: float = -2.0  # makes a weight larger: below v_on
    up_seconds: float = 2e-11
    down_volts: float = 1.0  # makes a weight smaller: above v_off
    down_seconds: float = 2e-11
    least: float = 1e-9  # a change of the rule up to this brings no pulse; above the rounding of sums that are 0
    read_volts: float = 0.1
    read_seconds: float = 1e-9

    def __post_init__(self):
        _check_finite(self)
        for name in ("up_seconds", "down_seconds", "least", "read_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")


class Memristive(Programmed):
    """Synapses of one VTEAM device each; see Programmed for what is not told here.

    W = low + (high - low) (G - 1/r_off) / (1/r_on - 1/r_off), G = 1/R: the bounds belong to the ends of the device. The
    given `weights` tell the states `z` (P, E) at the beginning. Raises ValueError for pulses that move nothing.
    """

    def __init__(self, weights, rule, *args, device: Vteam = DEVICES["magic"], pulses: Pulses = Pulses(), **options):
        for name, value, kind in (("device", device, Vteam), ("pulses", pulses, Pulses)):
            if not isinstance(value, kind):
                raise ValueError(f"{name} must be a {kind.__name__}, not {value!r}")
        if not device.rate(pulses.up_volts) < 0 < device.rate(pulses.down_volts):
            raise ValueError(
                f"pulses of {pulses.up_volts:g} V up and {pulses.down_volts:g} V down must lie below v_on = "
                f"{device.v_on:g} V and above v_off = {device.v_off:g} V"
            )
        super().__init__(weights, rule, *args, **options)
        self.device, self.pulses = device, pulses
        low, high = self.bounds
        self.scale = (high - low) / (1 / device.r_on - 1 / device.r_off)
        self.offset = low - self.scale / device.r_off
        self.z = np.clip(device.state_of(self.scale / (self.weights - self.offset)), 0.0, 1.0)
        self._read_out()

    def swings(self) -> tuple[float, float, float]:
        """Return how far a pulse up, a pulse down and a reading would move z without window."""
        pulses, rate = self.pulses, self.device.rate
        reading = rate(pulses.read_volts) * pulses.read_seconds
        return rate(pulses.up_volts) * pulses.up_seconds, rate(pulses.down_volts) * pulses.down_seconds, reading

    def update(self, spikes, x, m=None, learn=True):
        """Let the reading of x disturb the devices, whether they learn or not; then as in Programmed."""
        if self.swings()[2]:
            self._move(np.where(x != 0, self.swings()[2], 0.0) + np.zeros_like(self.z))
        super().update(spikes, x, m, learn)

    def state(self):
        """Return the arrays of Programmed and the devices' states z (P, E)."""
        return super().state() | {"z": self.z}

    def _write(self, fresh):
        """Turn the change of each weight into a pulse."""
        weights = fresh.pop("w", self.weights)
        change = np.clip(weights, *self.bounds) - self.weights
        up, down, _ = self.swings()
        super()._write(fresh)
        least = self.pulses.least
        self._move(np.where(change > least, up, np.where(change < -least, down, 0.0)))

    def _move(self, swing: np.ndarray) -> None:
        self.z[...] = kernel.all_moved(self.z, swing, *self.device.window_numbers())
        self._read_out()

    def _read_out(self) -> None:
        device = self.device
        ends, exponential = (float(device.r_on), float(device.r_off)), device.resistance == "exponential"
        weights = kernel.weight_of(self.z, self.offset, self.scale, *ends, exponential)
        np.clip(weights, *self.bounds, out=self.weights)  # rounding may have led beyond them
