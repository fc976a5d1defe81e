"""One parameter of a sweep: W&B's distributions, and what Optuna searches in their place."""

import bisect
import itertools
import math
import statistics
from dataclasses import dataclass

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from naturalist.errors import UserError
from naturalist.settings.spelling import nearest

QUANTILE_EDGE = 1e-9
"""How near to 0 and 1 quantiles are drawn: the tails of a normal distribution end at six deviations."""

DISTRIBUTION_KEYS = {
    "constant": ("value",),
    "categorical": ("values",),
    "categorical_w_probabilities": ("values", "probabilities"),
    "int_uniform": ("min", "max"),
    "uniform": ("min", "max"),
    "q_uniform": ("min", "max", "q"),
    **{
        f"{prefix}log_uniform{suffix}": ("min", "max", "q") if prefix == "q_" else ("min", "max")
        for prefix in ("", "inv_", "q_")
        for suffix in ("", "_values")
    },
    "normal": ("mu", "sigma"),
    "log_normal": ("mu", "sigma"),
    "q_normal": ("mu", "sigma", "q"),
    "q_log_normal": ("mu", "sigma", "q"),
}
DEFAULTS = {"mu": 0.0, "sigma": 1.0, "q": 1.0}


@dataclass(frozen=True)
class Parameter:
    """One entry of ``parameters``."""

    name: str
    distribution: str
    spec: dict

    @property
    def is_constant(self) -> bool:
        """Whether there is nothing to search."""
        return self.distribution == "constant"

    def optuna_distribution(self) -> BaseDistribution:
        """What Optuna searches: an index for values, a quantile where it knows no such law, else the value."""
        spec = self.spec
        if self.distribution == "categorical":
            return CategoricalDistribution(range(len(spec["values"])))
        if self.distribution == "int_uniform":
            return IntDistribution(spec["min"], spec["max"])
        if self.distribution in ("uniform", "q_uniform"):
            return FloatDistribution(spec["min"], spec["max"])
        if "log_uniform" in self.distribution:
            return FloatDistribution(*self._log_bounds(), log=True)
        return FloatDistribution(QUANTILE_EDGE, 1 - QUANTILE_EDGE)

    def value(self, searched: object) -> object:
        """The setting's value for what Optuna searched."""
        spec, law = self.spec, self.distribution
        if law == "constant":
            return spec["value"]
        if law == "categorical":
            return spec["values"][searched]
        if law == "categorical_w_probabilities":
            steps = list(itertools.accumulate(spec["probabilities"]))
            return spec["values"][min(bisect.bisect_right(steps, searched * steps[-1]), len(steps) - 1)]
        if law == "int_uniform":
            return int(searched)
        if "normal" in law:
            searched = spec["mu"] + spec["sigma"] * statistics.NormalDist().inv_cdf(searched)
            searched = math.exp(searched) if "log" in law else searched
        return self._quantized(searched) if law.startswith("q_") else float(searched)

    def choices(self) -> list | None:
        """Everything Optuna can search, in order; None when that is a continuum."""
        if self.is_constant:
            return [None]
        if self.distribution == "categorical":
            return list(range(len(self.spec["values"])))
        if self.distribution == "int_uniform":
            return list(range(self.spec["min"], self.spec["max"] + 1))
        if self.distribution == "q_uniform":
            q = self.spec["q"]
            first, last = math.ceil(self.spec["min"] / q - 1e-9), math.floor(self.spec["max"] / q + 1e-9)
            return [min(max(step * q, self.spec["min"]), self.spec["max"]) for step in range(first, last + 1)]
        return None

    def examples(self) -> list:
        """Values that show whether the program takes this parameter: every choice, or ends and middle."""
        if self.distribution.startswith("categorical"):
            return list(self.spec["values"])
        distribution = None if self.is_constant else self.optuna_distribution()
        if self.is_constant:
            searched = [None]
        elif distribution.single():
            searched = [distribution.low]
        elif distribution.log:
            searched = [distribution.low, math.sqrt(distribution.low * distribution.high), distribution.high]
        else:
            middle = distribution.low + 0.37 * (distribution.high - distribution.low)
            # The tails of a normal distribution are as good as never drawn: two deviations must do.
            ends = (0.0228, 0.9772) if "normal" in self.distribution else (distribution.low, distribution.high)
            searched = [ends[0], int(middle) if self.distribution == "int_uniform" else middle, ends[1]]
        return [self.value(item) for item in searched]

    def _log_bounds(self) -> tuple[float, float]:
        low, high = self.spec["min"], self.spec["max"]
        if self.distribution.endswith("_values"):
            return low, high
        bounds = math.exp(low), math.exp(high)  # the bounds are exponents of e
        return (1 / bounds[1], 1 / bounds[0]) if self.distribution.startswith("inv_") else bounds

    def _quantized(self, value: float) -> float | int:
        """Round to a multiple of q, which stays within the bounds where W&B's may leave them."""
        q = self.spec["q"]
        steps = round(value / q)
        if "uniform" in self.distribution:
            low, high = self._log_bounds() if "log" in self.distribution else (self.spec["min"], self.spec["max"])
            steps = min(max(steps, math.ceil(low / q - 1e-9)), math.floor(high / q + 1e-9))
        # The decimal digits that q has, so that 3 × 0.1 is 0.3.
        return steps * q if isinstance(q, int) else float(f"{steps * q:.12g}")


def read_parameter(where: str, name: str, spec: object) -> Parameter:
    """Check one entry of ``parameters``; ``where`` begins the message of the :class:`UserError` when it is wrong."""
    if not isinstance(spec, dict):
        raise UserError(f"{where} must hold value, values, or min and max, but it is {spec!r}.")
    if "parameters" in spec:
        raise UserError(f"{where}: nested parameters are refused: no setting of the program holds others.")
    law = spec.get("distribution") or _default_distribution(spec)
    if law is None:
        raise UserError(f"{where} needs value, values, or min and max.")
    if law not in DISTRIBUTION_KEYS:
        raise UserError(
            f"{where}: the distribution {law!r} cannot be searched here{nearest(str(law), list(DISTRIBUTION_KEYS))}"
        )
    keys = DISTRIBUTION_KEYS[law]
    refuse_unknown(where, spec, ("distribution", *keys))
    spec = {key: spec.get(key, DEFAULTS.get(key)) for key in keys if key in spec or key in DEFAULTS}
    for key in keys:
        if key not in spec:
            raise UserError(f"{where}: {law} needs {key!r}.")
        if key in ("min", "max", "mu", "sigma", "q"):
            require_number(f"{where}.{key}", spec[key])
    _check_numbers(where, law, spec)
    return Parameter(name, law, spec)


def _default_distribution(spec: dict) -> str | None:
    if "value" in spec:
        return "constant"
    if "values" in spec:
        return "categorical_w_probabilities" if "probabilities" in spec else "categorical"
    if "min" in spec and "max" in spec:
        return "int_uniform" if is_whole(spec["min"]) and is_whole(spec["max"]) else "uniform"
    return None


def _check_numbers(where: str, law: str, spec: dict) -> None:
    if "values" in spec:
        if not isinstance(spec["values"], list) or not spec["values"]:
            raise UserError(f"{where}.values must be a list with at least one value.")
        weights = spec.get("probabilities", [])
        if not isinstance(weights, list) or not all(is_number(weight) and weight >= 0 for weight in weights):
            raise UserError(f"{where}.probabilities must be a list of numbers from 0 on.")
        if weights and (len(weights) != len(spec["values"]) or abs(sum(weights) - 1) > 1e-6):
            raise UserError(f"{where}.probabilities must be as many as the values and add up to 1.")
    if "min" in spec:
        if spec["min"] > spec["max"]:
            raise UserError(f"{where}: min ({spec['min']}) is greater than max ({spec['max']}).")
        if law == "int_uniform" and not (is_whole(spec["min"]) and is_whole(spec["max"])):
            raise UserError(f"{where}: int_uniform needs whole numbers as min and max.")
        if law.endswith("log_uniform_values") and spec["min"] <= 0:
            raise UserError(f"{where}: min of {law} must be greater than 0, but it is {spec['min']}.")
    if spec.get("sigma", 1) < 0 or spec.get("q", 1) <= 0:
        raise UserError(f"{where}: sigma must not be negative and q must be greater than 0.")
    if law.startswith("q_") and "uniform" in law:
        parameter = Parameter("", law, spec)
        low, high = parameter._log_bounds() if "log" in law else (spec["min"], spec["max"])
        if math.ceil(low / spec["q"] - 1e-9) > math.floor(high / spec["q"] + 1e-9):
            raise UserError(f"{where}: no multiple of q ({spec['q']}) lies between {low:g} and {high:g}.")


def refuse_unknown(where: str, spec: object, known: tuple[str, ...]) -> None:
    """Raise :class:`UserError` for a key that is not in ``known``."""
    if not isinstance(spec, dict):
        raise UserError(f"{where} must hold keys and values, but it is {spec!r}.")
    for key in spec:
        if key not in known:
            raise UserError(f"{where} has {key!r}, which is not honoured here; it may have {', '.join(known)}.")


def require_number(where: str, value: object) -> None:
    """Raise :class:`UserError` for anything but a number, with the way to write one that YAML reads as text."""
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            raise UserError(f"{where} must be a number, but it is {value!r}.") from None
        mantissa, _, exponent = f"{number:e}".partition("e")
        mantissa = mantissa.rstrip("0") + "0" * mantissa.rstrip("0").endswith(".")
        raise UserError(f"{where}: YAML reads {value} as text, not as a number; write {mantissa}e{int(exponent):+d}.")
    if not is_number(value):
        raise UserError(f"{where} must be a number, but it is {value!r}.")


def is_number(value: object) -> bool:
    """Whether YAML read a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: object) -> bool:
    """Whether YAML read a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)
