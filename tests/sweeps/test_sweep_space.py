"""sweep.yaml: every key honoured or refused by name, every draw within its bounds, W&B's rule for stopping."""

import itertools
import math
import random
from contextlib import nullcontext
from pathlib import Path

import optuna
import pytest
import yaml
from fake_wandb import hyperband_stops

from naturalist.errors import UserError
from naturalist.sweeps.hyperband import HyperbandPruner, HyperbandRule
from naturalist.sweeps.program import check_sweep, command_line, load_program, parse_some
from naturalist.sweeps.space import SweepFile, read_sweep
from naturalist.sweeps.sweep import _folder_name

ROOT = Path(__file__).parents[2]
BASE = {
    "program": str(ROOT / "partA" / "train.py"),
    "method": "random",
    "metric": {"name": "val_accuracy", "goal": "maximize"},
    "parameters": {"dropout": {"values": [0.2, 0.3]}},
}


def sweep_of(tmp_path: Path, **changes: object) -> SweepFile:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({**BASE, **changes}))
    return read_sweep(path)


def draws(sweep: SweepFile, number: int = 300) -> list:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [sweep.settings(study.ask(sweep.searched).params)["x"] for _ in range(number)]


BOUNDED = [
    ({"min": 1, "max": 6}, 1, 6),
    ({"min": 0.5, "max": 2.5}, 0.5, 2.5),
    ({"distribution": "int_uniform", "min": -3, "max": 3}, -3, 3),
    ({"distribution": "uniform", "min": 0, "max": 1}, 0, 1),
    ({"distribution": "q_uniform", "min": 0.1, "max": 0.9, "q": 0.25}, 0.25, 0.75),
    ({"distribution": "q_uniform", "min": 10, "max": 95, "q": 10}, 10, 90),
    ({"distribution": "log_uniform", "min": -5, "max": 0}, math.exp(-5), 1),
    ({"distribution": "log_uniform_values", "min": 1.0e-4, "max": 1.0e-1}, 1e-4, 1e-1),
    ({"distribution": "inv_log_uniform", "min": 1, "max": 3}, math.exp(-3), math.exp(-1)),
    ({"distribution": "inv_log_uniform_values", "min": 0.01, "max": 10}, 0.01, 10),
    ({"distribution": "q_log_uniform", "min": 0, "max": 5, "q": 2}, 2, 148),
    ({"distribution": "q_log_uniform_values", "min": 16, "max": 250, "q": 16}, 16, 240),
    ({"distribution": "log_normal", "mu": 1, "sigma": 0.5}, 0, math.inf),
    ({"distribution": "normal"}, -7, 7),
]


@pytest.mark.parametrize(("spec", "low", "high"), BOUNDED, ids=[str(spec) for spec, _, _ in BOUNDED])
def test_draws_stay_within_their_bounds_and_fill_them(tmp_path, spec, low, high):
    values = draws(sweep_of(tmp_path, parameters={"x": spec}))
    assert all(low - 1e-12 <= value <= high + 1e-12 for value in values)
    if math.isfinite(high) and "normal" not in str(spec.get("distribution")):
        logarithmic = "log" in spec.get("distribution", "")
        scale = math.log if logarithmic else float
        share = [(scale(value) - scale(low)) / (scale(high) - scale(low)) for value in values]
        assert min(share) < 0.2 and max(share) > 0.8
    if "q" in spec:
        assert all(abs(value / spec["q"] - round(value / spec["q"])) < 1e-9 for value in values)
        assert isinstance(values[0], type(spec["q"]))


def test_normal_draws_have_their_mean_and_deviation(tmp_path):
    values = draws(sweep_of(tmp_path, parameters={"x": {"distribution": "normal", "mu": 10, "sigma": 2}}), 1000)
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    assert abs(mean - 10) < 0.3 and abs(deviation - 2) < 0.25
    logs = draws(sweep_of(tmp_path, parameters={"x": {"distribution": "log_normal", "mu": 1, "sigma": 0.5}}), 1000)
    assert abs(sum(map(math.log, logs)) / len(logs) - 1) < 0.1
    quantized = draws(sweep_of(tmp_path, parameters={"x": {"distribution": "q_normal", "mu": 50, "sigma": 20, "q": 5}}))
    assert all(value % 5 == 0 for value in quantized)
    assert all(
        value % 2 == 0
        for value in draws(sweep_of(tmp_path, parameters={"x": {"distribution": "q_log_normal", "mu": 2, "q": 2}}))
    )


def test_probabilities_are_kept(tmp_path):
    values = draws(
        sweep_of(tmp_path, parameters={"x": {"values": ["a", "b", "c"], "probabilities": [0.7, 0.3, 0]}}), 1000
    )
    assert abs(values.count("a") / 1000 - 0.7) < 0.05
    assert "c" not in values


def test_values_keep_their_types(tmp_path):
    choices = [True, 1, 1.0, "1", None, [1, 2]]
    values = draws(sweep_of(tmp_path, parameters={"x": {"values": choices}}))
    assert {repr(value) for value in values} == {repr(value) for value in choices}


def test_a_grid_has_every_combination_once(tmp_path):
    sweep = sweep_of(
        tmp_path,
        method="grid",
        parameters={
            "a": {"values": [1, 2, 3]},
            "b": {"value": 7},
            "c": {"min": 1, "max": 2},
            "d": {"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0.5},
        },
    )
    combinations = [tuple(sweep.settings(item).values()) for item in sweep.grid()]
    assert combinations == list(itertools.product([1, 2, 3], [7], [1, 2], [0.0, 0.5, 1.0]))
    assert sweep.size() == 18


REFUSED = [
    ({"method": "evolution"}, "method must be grid, random or bayes"),
    ({"metod": "bayes"}, "no 'metod'; did you mean method?"),
    ({"controller": {"type": "local"}}, "no 'controller'"),
    ({"method": "bayes", "metric": None}, "'metric' is needed for method bayes"),
    ({"metric": {"name": "val_acc"}}, "logs no metric 'val_acc'; did you mean val_accuracy"),
    ({"metric": {"name": "val_loss", "goal": "min"}}, "goal must be minimize or maximize"),
    ({"metric": {"name": "val_loss", "impute": 1}}, "'impute', which is not honoured"),
    ({"metric": {"name": "val_loss", "target": "1e-1"}}, "write 1.0e-1"),
    ({"run_cap": 0}, "run_cap must be a whole number above 0"),
    ({"early_terminate": {"type": "envelope"}}, "type must be hyperband"),
    ({"early_terminate": {"type": "hyperband"}}, "needs either min_iter, or max_iter and s"),
    ({"early_terminate": {"type": "hyperband", "max_iter": 9}}, "needs either min_iter, or max_iter and s"),
    ({"early_terminate": {"type": "hyperband", "max_iter": 2, "s": 2}}, "would never stop a run"),
    ({"early_terminate": {"type": "hyperband", "min_iter": 3, "eta": 1}}, "eta must be greater than 1"),
    ({"command": ["docker", "run", "${program}", "${args}"]}, "starts 'docker'"),
    ({"command": ["python", "other.py", "${args}"]}, "runs 'other.py'"),
    ({"command": ["python", "${program}", "${args_json}"]}, r"\$\{args_json\}, but the scripts read no JSON"),
    ({"command": ["python", "${program}", "--config", "${args_json_file}"]}, r"\$\{args_json_file\}, but no such file"),
    (
        {"command": ["python", "${program}", "${args_no_hyphens}"]},
        r"\$\{args_no_hyphens\}, but the scripts",
    ),
    ({"command": ["python", "${program}", "${args_no_equals}"]}, r"\$\{args_no_equals\}, which is not honoured here"),
    ({"command": ["python", "${program}", "--seed=${args}"]}, r"\$\{args\}, which is not honoured here"),
    ({"command": ["python", "${program}", "${env}", "${args}"]}, r"\$\{env\}, which is not honoured here"),
    ({"command": ["python", "${program}", "${envvar:nope}", "${args}"]}, "variables of capital letters only"),
    ({"command": ["python", "${program}", "--data=${envvar:NOT_SET}"]}, "the environment has no NOT_SET"),
    ({"command": ["python", "${program}", "${args}", "--batchnorm"]}, "no setting --batchnorm"),
    ({"program": "nothere.py"}, "'nothere.py' is not there"),
    ({"program": str(ROOT / "naturalist" / "errors.py")}, "has no function train"),
    ({"parameters": {"droput": {"value": 0.1}}}, "no setting 'droput'; did you mean dropout"),
    ({"parameters": {"dropout": {"values": [0.2, 1.5]}}}, "dropout: dropout must be at least 0 and less than 1"),
    ({"parameters": {"activation": {"values": ["SiLUU"]}}}, "did you mean SiLU"),
    ({"parameters": {"batch_size": {"min": 16.0, "max": 64.5}}}, "batch_size must be a whole number"),
    ({"parameters": {"batch_size": {"distribution": "log_uniform_values", "min": 16, "max": 64}}}, "a whole number"),
    ({"parameters": {"dropout": {"min": 0.1}}}, "needs value, values, or min and max"),
    ({"parameters": {"dropout": {"parameters": {"x": {"value": 1}}}}}, "nested parameters are refused"),
    ({"parameters": {"dropout": {"distribution": "beta", "a": 1}}}, "the distribution 'beta' cannot be searched"),
    ({"parameters": {"dropout": {"min": 0.1, "max": 0.3, "step": 0.1}}}, "'step', which is not honoured"),
    ({"parameters": {"dropout": {"min": 0.3, "max": 0.1}}}, "min .* is greater than max"),
    ({"parameters": {"dropout": {"values": [0.2, 0.3], "probabilities": [0.5, 0.6]}}}, "add up to 1"),
    (
        {"parameters": {"learning_rate": {"distribution": "log_uniform_values", "min": "1e-5", "max": 0.1}}},
        "YAML reads 1e-5 as text, not as a number; write 1.0e-5",
    ),
    ({"method": "grid", "parameters": {"dropout": {"min": 0.1, "max": 0.3}}}, "a grid needs values"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_cannot_be_honoured_is_refused_by_name_before_the_first_trial(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        sweep = sweep_of(tmp_path, **changes)
        check_sweep(sweep, load_program(sweep.program))


def test_numbers_that_yaml_reads_as_text_work_as_values(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(BASE).replace("dropout", "learning_rate").replace("- 0.2", "- 1e-5"))
    sweep = read_sweep(path)
    program = load_program(sweep.program)
    check_sweep(sweep, program)
    settings = sweep.settings({"learning_rate": 0})
    assert settings == {"learning_rate": "1e-5"}
    assert program.parse(command_line(sweep, settings)).training.learning_rate == 1e-5


def test_the_command_is_expanded_as_an_agent_expands_it(tmp_path, monkeypatch):
    monkeypatch.setenv("EPOCHS", "7")
    sweep = sweep_of(
        tmp_path,
        command=[
            "${env}",
            "${interpreter}",
            "${program}",
            "--config",
            "smoke.yaml",
            "--epochs",
            "${envvar:EPOCHS}",
            "${args_no_boolean_flags}",
        ],
    )
    arguments = command_line(sweep, {"batch_norm": True, "data_augmentation": False, "dropout": 0.2})
    assert arguments == ["--config", "smoke.yaml", "--epochs", "7", "--batch_norm", "--dropout=0.2"]


SHOWN = {
    "batch_norm": True,
    "data_augmentation": False,
    "num_filters": [8, 16, 32, 64, 64],
    "data": "my photographs",
    "cache_size": None,
    "learning_rate": 1e-05,
    "epochs": 7,
}


@pytest.mark.parametrize("macro", ["args", "args_no_boolean_flags"])
def test_a_macro_stands_for_what_an_agent_puts_there(tmp_path, macro):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    agents = create_sweep_command_args({"args": {name: {"value": value} for name, value in SHOWN.items()}})
    head = ["${env}", "${interpreter}", "${program}"]
    assert command_line(sweep_of(tmp_path, command=[*head, f"${{{macro}}}"]), SHOWN) == agents[macro]
    assert command_line(sweep_of(tmp_path, command=["/usr/bin/env", "python3", "${program}"]), SHOWN) == []


def test_a_trial_has_the_settings_that_the_sweep_shows(tmp_path):
    sweep = sweep_of(tmp_path, parameters={name: {"value": value} for name, value in SHOWN.items()})
    parsed = parse_some(sweep, load_program(sweep.program), {}).flat()
    assert {name: parsed[name] for name in SHOWN} == SHOWN


HIDDEN = [
    (
        ["${args_no_boolean_flags}"],
        {"batch_norm": [True, False]},
        "batch_norm is False in the sweep, but True by",
    ),
    ([], {"dropout": [0.2]}, "dropout is 0.2 in the sweep, but 0.0 by the command"),
    (["${args}", "--dropout=0.7"], {"dropout": [0.2]}, "dropout is 0.2 in the sweep, but 0.7 by the command"),
    (
        ["${args}", "--no-batch-norm"],
        {"batch-norm": [True]},
        "batch_norm is True in the sweep, but False",
    ),
    (["${args}", "--config", "smoke.yaml"], {"epochs": [1, 2]}, None),
    (["--dropout=0.7", "${args}"], {"dropout": [0.2]}, None),
    (["${args_no_boolean_flags}"], {"batch_norm": [True], "dry_run": [False]}, None),
]


@pytest.mark.parametrize(("command", "values", "message"), HIDDEN, ids=[str(command) for command, _, _ in HIDDEN])
def test_a_command_that_makes_other_trials_than_the_sweep_shows_is_refused(tmp_path, command, values, message):
    parameters = {name: {"values": several} for name, several in values.items()}
    sweep = sweep_of(tmp_path, command=["python", "${program}", *command], parameters=parameters)
    with nullcontext() if message is None else pytest.raises(UserError, match=message):
        check_sweep(sweep, load_program(sweep.program))


def test_a_variable_is_filled_in_within_an_argument_too(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOTOGRAPHS", "/photographs")
    sweep = sweep_of(tmp_path, command=["python", "${program}", "--data=${envvar:PHOTOGRAPHS}/birds", "${args}"])
    assert command_line(sweep, {"dropout": 0.2}) == ["--data=/photographs/birds", "--dropout=0.2"]


def test_values_that_only_go_together_with_others_of_the_search_are_not_refused(tmp_path):
    sweep = sweep_of(
        tmp_path, method="grid", parameters={"image_size": {"values": [32, 64]}, "cache_size": {"values": [64]}}
    )
    check_sweep(sweep, load_program(sweep.program))
    sweep = sweep_of(
        tmp_path, method="grid", parameters={"image_size": {"values": [32, 64]}, "cache_size": {"values": [16, 64]}}
    )
    with pytest.raises(UserError, match="cache_size: cache_size must be at least image_size"):
        check_sweep(sweep, load_program(sweep.program))


def test_the_original_search_is_the_one_in_the_repository():
    sweep = read_sweep(ROOT / "sweep.yaml")
    assert (sweep.method, sweep.metric, sweep.maximize, sweep.rule.bands[:3]) == (
        "bayes",
        "val_accuracy",
        True,
        [3, 9, 27],
    )
    assert {item.name: item.spec["values"] for item in sweep.parameters} == {
        "epochs": [5, 10],
        "num_filters": [32, 64],
        "activation": ["ReLU", "GELU", "SiLU", "Mish"],
        "filter_organization": ["same", "doubling", "halving"],
        "data_augmentation": [True, False],
        "batch_norm": [True, False],
        "dropout": [0.2, 0.3],
        "batch_size": [32, 64],
        "learning_rate": [1e-3, 1e-4],
    }
    check_sweep(sweep, load_program(ROOT / sweep.program))


@pytest.mark.parametrize("goal", ["maximize", "minimize"])
def test_the_pruner_follows_the_published_rule_on_random_histories(goal):
    generator = random.Random(goal)
    for _ in range(60):
        spec = {"type": "hyperband", "eta": generator.choice([1.5, 2, 3, 4]), "strict": generator.random() < 0.5}
        if generator.random() < 0.5:
            spec["min_iter"] = generator.randint(1, 4)
        else:
            spec |= {"max_iter": generator.randint(4, 30), "s": generator.randint(1, 4)}
        rule = HyperbandRule(spec.get("min_iter"), spec.get("max_iter"), spec.get("s"), spec["eta"], spec["strict"])
        pruner = HyperbandPruner(rule, goal == "maximize")
        study = optuna.create_study(direction=goal, pruner=pruner)
        runs = []
        for number in range(generator.randint(1, 8)):
            values = [round(generator.random(), 2) for _ in range(generator.randint(1, 15))]
            running = generator.random() < 0.5
            runs.append(
                {
                    "name": str(number),
                    "state": "running" if running else "finished",
                    "history": [{"val_accuracy": value} for value in values],
                }
            )
            trial = study.ask()
            for step, value in enumerate(values, start=1):
                trial.report(value, step)
            if not running:
                study.tell(trial, values[-1])
        expected = hyperband_stops(
            {"config": {"early_terminate": spec, "metric": {"name": "val_accuracy", "goal": goal}}}, runs
        )
        stopped = [
            str(trial.number) for trial in study.trials if not trial.state.is_finished() and pruner.prune(study, trial)
        ]
        assert stopped == expected, spec


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"min": 0, "max": 10**10}, "10,000,000,001 combinations"),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 1e-10}, "combinations"),
        ({"min": 0, "max": 10**30}, "max must lie between"),
        ({"distribution": "log_uniform", "min": 0, "max": 1000}, "beyond what a computer holds"),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 5e-324}, "beyond what a computer holds"),
    ],
)
def test_a_search_without_end_is_refused_before_its_values_are_made(tmp_path, spec, words):
    method = "random" if "log" in str(spec) else "grid"
    with pytest.raises(UserError, match=words):
        sweep_of(tmp_path, method=method, parameters={"seed": spec})


def test_whole_numbers_without_end_can_be_drawn_from(tmp_path):
    sweep = sweep_of(tmp_path, parameters={"seed": {"min": 0, "max": 10**10}})
    assert sweep.size() == 10**10 + 1


@pytest.mark.parametrize("text", ["def x(:", "import nothing_of_that_name", "raise SystemExit(3)", "1 / 0"])
def test_a_program_that_cannot_be_imported_is_one_sentence(tmp_path, text):
    (tmp_path / "program.py").write_text(text)
    with pytest.raises(UserError, match="program.py' cannot be run"):
        load_program(tmp_path / "program.py")


@pytest.mark.parametrize("name", ["..", ".", " ", "a\x1bb", "a\0b", "ü" * 200])
def test_a_sweep_whose_name_would_lie_elsewhere_is_refused(name):
    with pytest.raises(UserError, match="name"):
        _folder_name(name)
    assert _folder_name("../a") == "..-a"
    assert _folder_name('a:b|c"*?<d>. ') == "a-b-c----d-"
    assert _folder_name("NUL") == "NUL-"


@pytest.mark.parametrize("value", ["SGD", None, True, [1, 2], 10**400, math.inf])
def test_a_constant_may_be_anything_that_the_program_takes(tmp_path, value):
    assert (
        sweep_of(tmp_path, parameters={"x": {"value": value}, **BASE["parameters"]}).settings({"dropout": 0})["x"]
        == value
    )
