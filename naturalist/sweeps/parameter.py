"""One parameter of a sweep: W&B's distributions, and what Optuna searches in their place."""

import bisect
import itertools
import math
import statistics
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from naturalist.errors import UserError
from naturalist.settings.spelling import nearest

QUANTILE_EDGE = 1e-9
"""How near to 0 and 1 quantiles are drawn: the tails of a normal distribution end at six deviations."""

LARGEST = 2**53
"""Up to here a floating-point number holds every whole number."""

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
    """One entry of ``parameters``; what is not constant has an Optuna distribution, choices and examples."""

    name: str
    distribution: str
    spec: dict[str, Any]

    @property
    def is_constant(self) -> bool:
        """Whether there is nothing to search."""
        return self.distribution == "constant"

    @property
    def bounds(self) -> tuple[float, float]:
        """Ends of what Optuna searches: of the value or, where it knows no such law, of the quantile."""
        if "min" not in self.spec:
            return QUANTILE_EDGE, 1 - QUANTILE_EDGE
        low, high = self.spec["min"], self.spec["max"]
        if "log" not in self.distribution or self.distribution.endswith("_values"):
            return low, high
        # The bounds are exponents of e.
        return (
            (math.exp(-high), math.exp(-low))
            if self.distribution.startswith("inv_")
            else (math.exp(low), math.exp(high))
        )

    @property
    def multiples(self) -> range:
        """How many times q each value within the bounds is."""
        low, high = (bound / self.spec["q"] for bound in self.bounds)
        return range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)

    def optuna_distribution(self) -> BaseDistribution:
        """What Optuna searches: an index for values, a quantile where it knows no such law, else the value."""
        if self.distribution == "categorical":
            return CategoricalDistribution(range(len(self.spec["values"])))
        if self.distribution == "int_uniform":
            return IntDistribution(self.spec["min"], self.spec["max"])
        return FloatDistribution(*self.bounds, log="log_uniform" in self.distribution)

    def value(self, searched: Any) -> Any:
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

    def count(self) -> int | None:
        """How many choices there are, without making them; None when that is a continuum."""
        if self.distribution == "categorical":
            return len(self.spec["values"])
        if self.distribution == "int_uniform":
            return int(self.spec["max"] - self.spec["min"]) + 1
        return self.multiples.stop - self.multiples.start if self.distribution == "q_uniform" else None

    def choices(self) -> list[Any] | None:
        """Everything Optuna can search, in order; None when that is a continuum."""
        if self.distribution == "categorical":
            return list(range(len(self.spec["values"])))
        if self.distribution == "int_uniform":
            return list(range(self.spec["min"], self.spec["max"] + 1))
        if self.distribution == "q_uniform":
            return [min(max(steps * self.spec["q"], self.spec["min"]), self.spec["max"]) for steps in self.multiples]
        return None

    def examples(self) -> list[Any]:
        """Values that show whether the program takes this parameter: every choice, or ends and middle."""
        if "values" in self.spec:
            return list(self.spec["values"])
        # The tails of a normal distribution are as good as never drawn: two deviations must do.
        low, high = (0.0228, 0.9772) if "normal" in self.distribution else self.bounds
        middle = math.sqrt(low * high) if "log_uniform" in self.distribution else low + 0.37 * (high - low)
        return [self.value(searched) for searched in dict.fromkeys((low, middle, high))]

    def _quantized(self, value: float) -> float | int:
        """Round to a multiple of q, which stays within the bounds where W&B's may leave them."""
        q = self.spec["q"]
        steps = round(value / q)
        if "uniform" in self.distribution:
            steps = min(max(steps, self.multiples[0]), self.multiples[-1])
        # The decimal digits that q has, so that 3 × 0.1 is 0.3.
        return steps * q if isinstance(q, int) else float(f"{steps * q:.12g}")


def read_parameter(where: str, name: str, spec: Any) -> Parameter:
    """Check one entry of ``parameters``; ``where`` begins the message of the :class:`UserError` when it is wrong."""
    require(isinstance(spec, dict), f"{where} must hold value, values, or min and max, but it is {spec!r}.")
    require(
        "parameters" not in spec, f"{where}: nested parameters are refused: no setting of the program holds others."
    )
    law: Any = spec.get("distribution") or _default_distribution(spec)
    require(law is not None, f"{where} needs value, values, or min and max.")
    hint = nearest(str(law), list(DISTRIBUTION_KEYS))
    require(law in DISTRIBUTION_KEYS, f"{where}: the distribution {law!r} cannot be searched here{hint}")
    keys = DISTRIBUTION_KEYS[law]
    refuse_unknown(where, spec, ("distribution", *keys))
    spec = {key: spec.get(key, DEFAULTS.get(key)) for key in keys if key in spec or key in DEFAULTS}
    for key in keys:
        require(key in spec, f"{where}: {law} needs {key!r}.")
        if key in ("min", "max", "mu", "sigma", "q"):
            require_number(f"{where}.{key}", spec[key])
    parameter = Parameter(name, law, spec)
    if "values" in spec:
        _check_values(where, spec["values"], spec.get("probabilities"))
    elif not parameter.is_constant:
        _check_numbers(where, parameter)
    return parameter


def _default_distribution(spec: dict[str, Any]) -> str | None:
    if "value" in spec:
        return "constant"
    if "values" in spec:
        return "categorical_w_probabilities" if "probabilities" in spec else "categorical"
    if "min" in spec and "max" in spec:
        return "int_uniform" if is_whole(spec["min"]) and is_whole(spec["max"]) else "uniform"
    return None


def _check_values(where: str, values: Any, weights: Any) -> None:
    require(isinstance(values, list) and values, f"{where}.values must be a list with at least one value.")
    if weights is not None:
        are_weights = isinstance(weights, list) and all(is_number(weight) and weight >= 0 for weight in weights)
        require(are_weights, f"{where}.probabilities must be a list of numbers from 0 on.")
        is_law = len(weights) == len(values) and abs(sum(weights) - 1) <= 1e-6
        require(is_law, f"{where}.probabilities must be as many as the values and add up to 1.")


def _check_numbers(where: str, parameter: Parameter) -> None:
    spec, law = parameter.spec, parameter.distribution
    if "min" in spec:
        low, high = spec["min"], spec["max"]
        require(low <= high, f"{where}: min ({low}) is greater than max ({high}).")
        are_whole = is_whole(low) and is_whole(high)
        require(law != "int_uniform" or are_whole, f"{where}: int_uniform needs whole numbers as min and max.")
        is_positive = low > 0 or not law.endswith("log_uniform_values")
        require(is_positive, f"{where}: min of {law} must be greater than 0, but it is {low}.")
    is_spread = spec.get("sigma", 1) >= 0 and spec.get("q", 1) > 0
    require(is_spread, f"{where}: sigma must not be negative and q must be greater than 0.")
    for key in ("min", "max", "mu", "sigma", "q"):
        is_exact = abs(spec.get(key, 0)) <= LARGEST
        require(is_exact, f"{where}: {key} must lie between -{LARGEST:,} and {LARGEST:,}, but it is {spec.get(key)!r}.")
    try:
        ends = [parameter.value(bound) for bound in parameter.bounds]
        is_there = "min" not in spec or "q" not in spec or parameter.multiples.start < parameter.multiples.stop
    except OverflowError:
        ends, is_there = [math.inf], True
    require(all(math.isfinite(end) for end in ends), f"{where}: {law} would give numbers beyond what a computer holds.")
    if not is_there:
        low, high = parameter.bounds
        raise UserError(f"{where}: no multiple of q ({spec['q']}) lies between {low:g} and {high:g}.")


def require(holds: object, sentence: str) -> None:
    """Raise :class:`UserError` with the sentence unless something holds."""
    if not holds:
        raise UserError(sentence)


def refuse_unknown(where: str, spec: Any, known: tuple[str, ...]) -> None:
    """Raise :class:`UserError` for a key that is not in ``known``."""
    require(isinstance(spec, dict), f"{where} must hold keys and values, but it is {spec!r}.")
    for key in spec:
        require(key in known, f"{where} has {key!r}, which is not honoured here; it may have {', '.join(known)}.")


def require_number(where: str, value: Any) -> None:
    """Raise :class:`UserError` for anything but a number, with the way to write one that YAML reads as text."""
    try:
        number = float(value) if isinstance(value, str) else None
    except ValueError:
        number = None
    if number is not None and math.isfinite(number):
        mantissa, _, exponent = f"{number:e}".partition("e")
        mantissa = mantissa.rstrip("0") + "0" * mantissa.rstrip("0").endswith(".")
        raise UserError(f"{where}: YAML reads {value} as text, not as a number; write {mantissa}e{int(exponent):+d}.")
    require(is_number(value), f"{where} must be a number, but it is {value!r}.")


def is_number(value: object) -> bool:
    """Whether YAML read a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: object) -> bool:
    """Whether YAML read a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)
