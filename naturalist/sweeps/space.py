"""``sweep.yaml``, read as Weights & Biases reads it: every key is honoured, or refused by name.

The format is W&B's, https://docs.wandb.ai/guides/sweeps/define-sweep-configuration.
"""

import bisect
import itertools
import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from naturalist.config import nearest
from naturalist.errors import UserError
from naturalist.sweeps.hyperband import HyperbandRule

SWEEP_KEYS = ("program", "method", "metric", "parameters", "early_terminate", "run_cap", "command", "name",
              "description", "project", "entity")
"""Keys that are understood; the last four only name things at W&B."""

QUANTILE_EDGE = 1e-9
"""How near to 0 and 1 quantiles are drawn: the tails of a normal distribution end at six deviations."""

DISTRIBUTION_KEYS = {
    "constant": ("value",), "categorical": ("values",), "categorical_w_probabilities": ("values", "probabilities"),
    "int_uniform": ("min", "max"), "uniform": ("min", "max"), "q_uniform": ("min", "max", "q"),
    **{f"{prefix}log_uniform{suffix}": ("min", "max", "q") if prefix == "q_" else ("min", "max")
       for prefix in ("", "inv_", "q_") for suffix in ("", "_values")},
    "normal": ("mu", "sigma"), "log_normal": ("mu", "sigma"),
    "q_normal": ("mu", "sigma", "q"), "q_log_normal": ("mu", "sigma", "q")}
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


@dataclass(frozen=True)
class SweepFile:
    """A search, as ``sweep.yaml`` defines it."""

    path: Path
    name: str
    program: Path
    method: str
    metric: str
    maximize: bool
    target: float | None
    parameters: tuple[Parameter, ...]
    rule: HyperbandRule | None
    run_cap: int | None
    command: tuple[str, ...]

    @property
    def searched(self) -> dict[str, BaseDistribution]:
        """Optuna's distribution of every parameter that is not constant."""
        return {parameter.name: parameter.optuna_distribution() for parameter in self.parameters
                if not parameter.is_constant}

    def settings(self, searched: dict) -> dict:
        """The settings of a trial, by name, for what Optuna searched."""
        return {parameter.name: parameter.value(searched.get(parameter.name)) for parameter in self.parameters}

    def size(self) -> int | None:
        """How many different settings there are; None when there is no end of them."""
        choices = [parameter.choices() for parameter in self.parameters]
        return None if None in choices else math.prod(map(len, choices))

    def grid(self) -> Iterator[dict]:
        """Every combination of what Optuna could search, the last parameter varying fastest."""
        varied = [parameter for parameter in self.parameters if not parameter.is_constant]
        for combination in itertools.product(*(parameter.choices() for parameter in varied)):
            yield {parameter.name: choice for parameter, choice in zip(varied, combination, strict=True)}

    def fingerprint(self) -> str:
        """What two sweeps must have in common to be the same one."""
        content = {"method": self.method, "metric": self.metric, "maximize": self.maximize,
                   "rule": self.rule and vars(self.rule), "command": self.command, "program": self.program.name,
                   "parameters": {item.name: [item.distribution, item.spec] for item in self.parameters}}
        return json.dumps(content, sort_keys=True)


def read_sweep(path: Path) -> SweepFile:
    """Read and check ``sweep.yaml``; whether the program takes the parameters is checked with the program.

    Raises :class:`UserError` naming the first key that cannot be honoured.
    """
    content = _load_yaml(path)
    for key in content:
        if key not in SWEEP_KEYS:
            raise UserError(f"{path}: a sweep that runs here has no {key!r}{nearest(str(key), SWEEP_KEYS)}")
    method = content.get("method")
    if method not in ("grid", "random", "bayes"):
        raise UserError(f"{path}: method must be grid, random or bayes, but it is {method!r}.")
    parameters = content.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        raise UserError(f"{path}: 'parameters' must name the settings to search.")
    metric, maximize, target = _metric(path, content, method)
    parsed = tuple(_parameter(f"{path}: {name}", str(name), spec) for name, spec in parameters.items())
    for parameter in parsed if method == "grid" else ():
        if parameter.choices() is None:
            raise UserError(f"{path}: {parameter.name}: a grid needs values, whole numbers or q_uniform, not "
                            f"{parameter.distribution}.")
    run_cap = content.get("run_cap")
    if run_cap is not None and not (_is_whole(run_cap) and run_cap > 0):
        raise UserError(f"{path}: run_cap must be a whole number above 0, but it is {run_cap!r}.")
    command = content.get("command", ["${env}", "${interpreter}", "${program}", "${args}"])
    if not isinstance(command, list):
        raise UserError(f"{path}: command must be a list, as in [python, \"${{program}}\", \"${{args}}\"].")
    if not isinstance(content.get("program"), str):
        raise UserError(f"{path}: 'program' must name the script to run, such as partA/train.py.")
    return SweepFile(path, str(content.get("name") or path.stem), Path(content["program"]), method, metric, maximize,
                     target, parsed, _rule(path, content), run_cap, tuple(map(str, command)))


def _load_yaml(path: Path) -> dict:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the sweep file {str(path)!r}: "
                        f"{getattr(error, 'strerror', None) or 'it is no text'}.") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        raise UserError(f"{path} is not valid YAML" + (f" (line {where.line + 1})." if where else ".")) from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold lines of the form 'key: value'.")
    return content


def _metric(path: Path, content: dict, method: str) -> tuple[str, bool, float | None]:
    metric = content.get("metric")
    if metric is None:
        if method == "bayes" or content.get("early_terminate"):
            raise UserError(f"{path}: 'metric' is needed for method bayes and for early_terminate.")
        return "val_accuracy", True, None
    _refuse_unknown(f"{path}: metric", metric, ("name", "goal", "target"))
    if not isinstance(metric.get("name"), str):
        raise UserError(f"{path}: metric needs a name, such as val_accuracy.")
    goal = metric.get("goal", "minimize")
    if goal not in ("minimize", "maximize"):
        raise UserError(f"{path}: metric.goal must be minimize or maximize, but it is {goal!r}.")
    target = metric.get("target")
    if target is not None:
        _require_number(f"{path}: metric.target", target)
    return metric["name"], goal == "maximize", target


def _rule(path: Path, content: dict) -> HyperbandRule | None:
    spec = content.get("early_terminate")
    if spec is None:
        return None
    where = f"{path}: early_terminate"
    _refuse_unknown(where, spec, ("type", "min_iter", "max_iter", "s", "eta", "strict"))
    if spec.get("type") != "hyperband":
        raise UserError(f"{where}.type must be hyperband, but it is {spec.get('type')!r}.")
    if ("min_iter" in spec) == ("max_iter" in spec) or ("max_iter" in spec) != ("s" in spec):
        raise UserError(f"{where} needs either min_iter, or max_iter and s.")
    for key in ("min_iter", "max_iter", "s"):
        if key in spec and not (_is_whole(spec[key]) and spec[key] >= 1):
            raise UserError(f"{where}.{key} must be a whole number from 1 on, but it is {spec[key]!r}.")
    eta, strict = spec.get("eta", 3), spec.get("strict", True)
    _require_number(f"{where}.eta", eta)
    if eta <= 1:
        raise UserError(f"{where}.eta must be greater than 1, but it is {eta!r}.")
    if not isinstance(strict, bool):
        raise UserError(f"{where}.strict must be true or false, but it is {strict!r}.")
    rule = HyperbandRule(spec.get("min_iter"), spec.get("max_iter"), spec.get("s"), eta, strict)
    if not rule.bands:
        raise UserError(f"{where} would never stop a run: max_iter ({spec['max_iter']}) is below eta ({eta}).")
    return rule


def _parameter(where: str, name: str, spec: object) -> Parameter:
    if not isinstance(spec, dict):
        raise UserError(f"{where} must hold value, values, or min and max, but it is {spec!r}.")
    if "parameters" in spec:
        raise UserError(f"{where}: nested parameters are refused: no setting of the program holds others.")
    law = spec.get("distribution") or _default_distribution(spec)
    if law is None:
        raise UserError(f"{where} needs value, values, or min and max.")
    if law not in DISTRIBUTION_KEYS:
        raise UserError(f"{where}: the distribution {law!r} cannot be searched here"
                        f"{nearest(str(law), list(DISTRIBUTION_KEYS))}")
    keys = DISTRIBUTION_KEYS[law]
    _refuse_unknown(where, spec, ("distribution", *keys))
    spec = {key: spec.get(key, DEFAULTS.get(key)) for key in keys if key in spec or key in DEFAULTS}
    for key in keys:
        if key not in spec:
            raise UserError(f"{where}: {law} needs {key!r}.")
        if key in ("min", "max", "mu", "sigma", "q"):
            _require_number(f"{where}.{key}", spec[key])
    _check_numbers(where, law, spec)
    return Parameter(name, law, spec)


def _default_distribution(spec: dict) -> str | None:
    if "value" in spec:
        return "constant"
    if "values" in spec:
        return "categorical_w_probabilities" if "probabilities" in spec else "categorical"
    if "min" in spec and "max" in spec:
        return "int_uniform" if _is_whole(spec["min"]) and _is_whole(spec["max"]) else "uniform"
    return None


def _check_numbers(where: str, law: str, spec: dict) -> None:
    if "values" in spec:
        if not isinstance(spec["values"], list) or not spec["values"]:
            raise UserError(f"{where}.values must be a list with at least one value.")
        weights = spec.get("probabilities", [])
        if not isinstance(weights, list) or not all(_is_number(weight) and weight >= 0 for weight in weights):
            raise UserError(f"{where}.probabilities must be a list of numbers from 0 on.")
        if weights and (len(weights) != len(spec["values"]) or abs(sum(weights) - 1) > 1e-6):
            raise UserError(f"{where}.probabilities must be as many as the values and add up to 1.")
    if "min" in spec:
        if spec["min"] > spec["max"]:
            raise UserError(f"{where}: min ({spec['min']}) is greater than max ({spec['max']}).")
        if law == "int_uniform" and not (_is_whole(spec["min"]) and _is_whole(spec["max"])):
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


def _refuse_unknown(where: str, spec: object, known: tuple[str, ...]) -> None:
    if not isinstance(spec, dict):
        raise UserError(f"{where} must hold keys and values, but it is {spec!r}.")
    for key in spec:
        if key not in known:
            raise UserError(f"{where} has {key!r}, which is not honoured here; it may have {', '.join(known)}.")


def _require_number(where: str, value: object) -> None:
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            raise UserError(f"{where} must be a number, but it is {value!r}.") from None
        mantissa, _, exponent = f"{number:e}".partition("e")
        mantissa = mantissa.rstrip("0") + "0" * mantissa.rstrip("0").endswith(".")
        raise UserError(f"{where}: YAML reads {value} as text, not as a number; write {mantissa}e{int(exponent):+d}.")
    if not _is_number(value):
        raise UserError(f"{where} must be a number, but it is {value!r}.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


optuna.logging.set_verbosity(optuna.logging.ERROR)
