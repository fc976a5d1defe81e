"""One command line: every verb has help with an example, and mistakes are answered with what was meant."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, run_python

import naturalist
from naturalist.cli import VERBS, main
from naturalist.errors import UserError
from naturalist.settings.arguments import arguments_of
from naturalist.settings.command_line import parse_options, parse_options_and_rest
from naturalist.settings.part_a import CnnSettings
from naturalist.settings.part_b import FinetuneSettings
from naturalist.settings.places import find_recipe, find_run
from naturalist.settings.verbs import CleanOptions, EvaluateOptions, ExplainOptions, PredictOptions, SweepOptions

DEVICE_VERBS = (["evaluate"], ["predict", "p"], ["explain"], ["serve"])
DATA_VERBS = (["prepare"], ["evaluate", "r"], ["explain", "r"], ["export", "r"], ["sweep", "s.yaml"])


def shown(capsys, *argv: str) -> str:
    """What a command prints before it ends well."""
    try:
        assert main(list(argv)) == 0
    except SystemExit as end:
        assert end.code == 0
    return capsys.readouterr().out


def refused(*argv: str) -> str:
    with pytest.raises(UserError) as error:
        main(list(argv))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_bare_command_and_help_name_every_verb(capsys):
    assert shown(capsys) == shown(capsys, "--help")
    text = shown(capsys, "--help")
    assert all(re.search(rf"^  {verb} +[A-Z]", text, re.MULTILINE) for verb in VERBS)


def test_the_version_is_the_packages(capsys):
    assert shown(capsys, "--version") == f"naturalist {naturalist.__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_in_words_with_an_example_that_it_would_take(verb, capsys):
    text = shown(capsys, verb, "--help")
    assert "--debug" in text
    assert f"usage: naturalist {verb}" in text and "example:\n  " in text
    assert not re.search(r"Literal|str \||\btype:|(?<![-_])null|Path", text)
    assert all(argument.words for argument in arguments_of(VERBS[verb].options))
    example = text.split("example:\n")[1].partition(f"naturalist {verb} ")[2].split()
    parse_options(VERBS[verb].options, f"naturalist {verb}", [part.strip("'") for part in example])


@pytest.mark.parametrize("verb", VERBS)
def test_a_place_for_output_is_called_out_in_every_verb(verb):
    names = {argument.name: argument.short for argument in arguments_of(VERBS[verb].options)}
    assert not names.keys() & {"output", "target"}
    assert names.get("out", "-o") == "-o"


@pytest.mark.parametrize("spelling", ["--batch-size", "--batch_size"])
def test_hyphens_and_underscores_are_the_same_in_verbs_too(spelling):
    assert parse_options(EvaluateOptions, "", ["r", spelling, "3"]).batch_size == 3
    assert parse_options(PredictOptions, "", ["r", "p", f"{spelling}=3"]).batch_size == 3


def test_switches_of_verbs_have_every_spelling():
    for spelling, value in (
        (["--delete"], True),
        (["--no-delete"], False),
        (["--delete=True"], True),
        (["--delete", "false"], False),
    ):
        assert parse_options(CleanOptions, "", spelling).delete is value


@pytest.mark.parametrize(
    ("spelling", "value"),
    [
        (["r"], "none"),
        (["--tta", "r"], "flip"),
        (["r", "--tta"], "flip"),
        (["--tta=True", "r"], "flip"),
        (["--tta", "flip-shift", "r"], "flip-shift"),
        (["r", "--tta=flip"], "flip"),
        (["--tta", "--no-tta", "r"], "none"),
        (["--tta", "false", "r"], "none"),
    ],
)
def test_a_switch_with_names_is_a_switch_and_takes_its_names(spelling, value):
    options = parse_options(EvaluateOptions, "", spelling)
    assert (options.tta, options.runs) == (value, [Path("r")])


def test_repeated_and_positional_arguments_reach_their_fields():
    options = parse_options(SweepOptions, "", ["s.yaml", "--set", "a=1", "--set=b=2", "-o", "here"])
    assert (options.fixed, options.out, options.fidelity) == (["a=1", "b=2"], Path("here"), [])
    assert parse_options(ExplainOptions, "", ["r"]).photos == []
    assert parse_options(ExplainOptions, "", ["r", "a.jpg", "b.jpg"]).photos == [Path("a.jpg"), Path("b.jpg")]
    assert parse_options(PredictOptions, "", ["r", "-"]).photos == ["-"]
    assert parse_options(ExplainOptions, "", ["r", "--layer"]).layer == "list"
    assert parse_options(ExplainOptions, "", ["r", "--layer", "--images=2"]).layer == "list"
    assert parse_options(ExplainOptions, "", ["r", "--layer", "conv"]).layer == "conv"
    assert parse_options(PredictOptions, "", ["r", "--", "--odd.jpg"]).photos == ["--odd.jpg"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["evalute", "r"], ["no verb 'evalute'", "did you mean evaluate?"]),
        (["evaluate", "r", "--batch", "3"], ["--batch", "did you mean batch_size?"]),
        (["evaluate", "r", "--splt", "val"], ["--splt", "did you mean split?"]),
        (["evaluate", "r", "--split", "tset"], ["split cannot be 'tset'", "did you mean test?"]),
        (["evaluate"], ["needs RUN", "naturalist evaluate --help"]),
        (["predict", "r"], ["needs PHOTO"]),
        (["predict", "r", "p", "--top", "many"], ["top must be a whole number", "'many'"]),
        (["predict", "r", "p", "--json", "--csv"], ["--json and --csv"]),
        (["sweep", "nowhere.yml"], ["no sweep file 'nowhere.yml'"]),
        (["export", "r", "stray"], ["takes no 'stray'"]),
        (["evaluate", "r", "--tta", "rotate"], ["takes no 'rotate'; --tta takes none, flip, flip-shift; see"]),
        (["evaluate", "r", "--batch_size", "0"], ["batch_size must be at least 1"]),
        (["evaluate", ""], ["is empty"]),
        (["evaluate", "r", "--tta=flipp"], ["tta cannot be 'flipp'", "did you mean flip"]),
        (["evaluate", "r", "--prior", "flat"], ["prior cannot be 'flat'", "training, uniform"]),
        (["explain", "r", "-o", ""], ["is empty"]),
        (["explain", "r", "--seed", "-1"], ["seed must lie between 0 and"]),
        (["sweep", "s.yaml", "--seed", str(2**32)], ["seed must lie between 0 and"]),
        *([[verb, "r", *more, "--device", "cuda:x"], ["device", "cuda:N"]] for verb, *more in DEVICE_VERBS),
        *([[verb, *more, "--data", "~nouser"], ["data", "'nouser'"]] for verb, *more in DATA_VERBS),
        (["--print_completion", "fish-and-chips"], ["bash"]),
    ],
)
def test_a_mistake_is_one_sentence_with_the_way_out(argv, words):
    message = refused(*argv)
    for word in words:
        assert word in message


def test_abbreviations_stand_for_nothing_in_scripts_either():
    with pytest.raises(UserError, match=r"no setting --lr; did you mean learning_rate\?"):
        parse_options_and_rest(EvaluateOptions, "", ["r", "--lr", "1"], [CnnSettings])
    with pytest.raises(UserError, match=r"no setting --bs; did you mean batch_size\?"):
        parse_options(EvaluateOptions, "", ["r", "--bs", "1"])


def test_settings_of_other_programs_are_passed_on_as_they_were_meant():
    argv = ["r", "--image-size", "64", "--no-batch-norm", "--tta", "--strategy=full", "--data_augmentation", "false"]
    options, rest = parse_options_and_rest(EvaluateOptions, "", argv, [CnnSettings, FinetuneSettings])
    assert options.runs == [Path("r")] and options.tta == "flip"
    assert rest == ["--image_size=64", "--batch_norm=false", "--strategy=full", "--data_augmentation=false"]


def test_a_recipe_is_found_by_its_name_and_a_run_too(tmp_path, monkeypatch):
    recipes = REPOSITORY / "configs" / "partA"
    assert find_recipe("sample", recipes) == find_recipe("sample.yaml", recipes) == recipes / "sample.yaml"
    with pytest.raises(UserError, match=r"did you mean sample\.yaml\?"):
        find_recipe("sampel.yaml", recipes)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    assert find_run(Path("first")) == Path("runs/first")
    with pytest.raises(UserError, match=r"no run 'frist'.*did you mean first\?"):
        find_run(Path("frist"))
    (tmp_path / "first").mkdir()
    assert find_run(Path("first")) == Path("first")  # what is there comes before what is in runs/


def test_a_sweep_file_with_another_ending_is_found_out(tmp_path):
    (tmp_path / "sweep.yaml").touch()
    assert "did you mean" in refused("sweep", str(tmp_path / "sweep.yml"))


def test_shells_can_complete_verbs_and_flags(capsys):
    script = shown(capsys, "--print_completion", "bash")
    assert "sweep-report" in script and "--batch_size" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_help_does_not_wait_for_torch():
    code = "import sys; from naturalist.cli import main; main(['explain', '--help'])"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=False)
    assert "Draw what a run has learnt" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "torchvision", "wandb", "sklearn", "matplotlib"}


def test_a_dry_run_says_what_would_be_trained_and_leaves_nothing(photographs, tmp_path):
    for script, words in (("partA/train.py", "multiply–accumulates"), ("partB/finetune.py", "are frozen")):
        command = [REPOSITORY / script, "--dry_run", "--data", photographs]
        more = ["--image_size=32", "--batch_size=8", "--epochs=3"]
        more += ["--backbone=squeezenet1_1", "--weights=none"] if "partB" in script else []
        done = run_python(*command, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "38 images to train on, 10 to validate on, 4 classes" in done.stdout
        assert words in done.stdout and "Device: " in done.stdout and "5 an epoch, 15 in 3 epochs" in done.stdout
        assert list(tmp_path.iterdir()) == []
