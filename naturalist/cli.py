"""``naturalist VERB``, or ``python -m naturalist VERB``: everything before and after training."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import naturalist
from naturalist.entry import entry_point
from naturalist.errors import UserError
from naturalist.ranks import join, leave, require_alone
from naturalist.settings import verbs
from naturalist.settings.audit import AuditOptions
from naturalist.settings.command_line import parse_options
from naturalist.settings.places import find_run, refuse_missing
from naturalist.settings.report import ReportOptions
from naturalist.settings.reproduce import ReproduceOptions
from naturalist.settings.spelling import nearest
from naturalist.settings.tokens import DEBUG


@dataclass(frozen=True)
class Verb:
    """A verb: what it can be told, and what it does."""

    options: type
    run: Callable[[Any], int | None]
    """Gets the options; returns an exit code, or None for 0. Rooms are imported when they are called, so that
    ``--help`` does not wait for torch."""


def console() -> None:
    """The command ``naturalist``."""
    with entry_point():
        code = main()
        print(end="", flush=True)  # while a reader who has enough is no mistake yet
        sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb that the command line names; returns the exit code."""
    name, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        print(f"naturalist {naturalist.__version__}")
        return 0
    if name in ("--print-completion", "--print_completion"):
        print(_completion(arguments))
        return 0
    if name not in VERBS:
        raise UserError(f"there is no verb {name!r}{nearest(name, list(VERBS), 'naturalist --help lists them')}")
    if name != "evaluate":
        require_alone(f"naturalist {name}")
    verb = VERBS[name]
    return verb.run(parse_options(verb.options, f"naturalist {name}", arguments)) or 0


def _prepare(options: verbs.PrepareOptions) -> None:
    from naturalist.data.prepare import prepare_data

    prepare_data(options)


def _audit(options: AuditOptions) -> None:
    from naturalist.audit.audit import audit_data

    audit_data(options, None if options.run is None else find_run(options.run))


def _clean(options: verbs.CleanOptions) -> None:
    from naturalist.data.clean import clean_cache

    clean_cache(options)


def _evaluate(options: verbs.EvaluateOptions) -> None:
    from naturalist.evaluation.results import Drawing

    runs = [find_run(run) for run in options.runs]
    more: dict[str, Any] = {
        "split": options.split,
        "data": options.data,
        "cache_dir": options.cache_dir,
        "batch_size": options.batch_size,
        "tta": options.tta,
        "drawing": Drawing(options.order, options.format, options.display_names),
        "prior": options.prior,
        "device": options.device,
        "shared": True,
    }
    join()
    if len(runs) == 1:
        from naturalist.evaluation.evaluate import evaluate_run

        evaluate_run(runs[0], **more)
    else:
        from naturalist.evaluation.several import evaluate_runs

        evaluate_runs(runs, **more)
    leave()


def _predict(options: verbs.PredictOptions) -> int:
    if options.json and options.csv:
        raise UserError("--json and --csv exclude each other; give one of them.")
    from naturalist.evaluation.predict import predict_photos

    return predict_photos(
        find_run(options.run),
        options.photos,
        top=options.top,
        threshold=options.threshold,
        temperature=options.temperature,
        format="json" if options.json else "csv" if options.csv else "table",
        display_names=options.display_names,
        null=options.null,
        batch_size=options.batch_size,
        device=options.device,
    )


def _explain(options: verbs.ExplainOptions) -> None:
    from naturalist.explain.explain import explain_run

    explain_run(
        find_run(options.run),
        options.photos,
        split=options.split,
        data=options.data,
        cache_dir=options.cache_dir,
        images=options.images,
        units=options.units,
        layer=options.layer,
        only=tuple(options.only.split(",")) if options.only is not None else None,
        seed=options.seed,
        format=options.format,
        display_names=options.display_names,
        device=options.device,
        out=options.out,
    )


def _export(options: verbs.ExportOptions) -> None:
    from naturalist.export import export_run

    export_run(
        find_run(options.run),
        format=options.format,
        display_names=options.display_names,
        out=options.out,
        data=options.data,
        cache_dir=options.cache_dir,
    )


def _serve(options: verbs.ServeOptions) -> None:
    from naturalist.serve import serve_run

    serve_run(
        find_run(options.run),
        host=options.host,
        port=options.port,
        max_megabytes=options.max_megabytes,
        device=options.device,
        display_names=options.display_names,
    )


def _compare(options: verbs.CompareOptions) -> None:
    from naturalist.compare.compare import compare_runs

    compare_runs([find_run(folder) for folder in options.folders], options.out, options.format)


def _report(options: ReportOptions) -> None:
    from naturalist.report.report import report_all

    report_all(options)


def _reproduce(options: ReproduceOptions) -> int:
    from naturalist.reproduce import reproduce

    return reproduce(options)


def _soup(options: verbs.SoupOptions) -> None:
    from naturalist.soup import make_soup

    make_soup(
        [find_run(run) for run in options.runs],
        interpolate=options.interpolate,
        data=options.data,
        cache_dir=options.cache_dir,
        batch_size=options.batch_size,
        device=options.device,
        name=options.name,
    )


def _sweep(options: verbs.SweepOptions) -> None:
    refuse_missing(options.file, "sweep file")
    from naturalist.sweeps.sweep import run_sweep

    run_sweep(
        options.file,
        count=options.count,
        workers=options.workers,
        storage=options.storage,
        out=options.out,
        name=options.name,
        data=options.data,
        fixed=options.fixed,
        fidelity=options.fidelity,
        allow_repeats=options.allow_repeats,
        seed=options.seed,
    )


def _sweep_report(options: verbs.SweepReportOptions) -> None:
    from naturalist.sweeps.report import report_runs

    report_runs(
        options.folders, options.out, metric=options.metric, maximize=not options.minimize, format=options.format
    )


VERBS = {
    "prepare": Verb(verbs.PrepareOptions, _prepare),
    "audit": Verb(AuditOptions, _audit),
    "clean": Verb(verbs.CleanOptions, _clean),
    "evaluate": Verb(verbs.EvaluateOptions, _evaluate),
    "predict": Verb(verbs.PredictOptions, _predict),
    "explain": Verb(verbs.ExplainOptions, _explain),
    "export": Verb(verbs.ExportOptions, _export),
    "serve": Verb(verbs.ServeOptions, _serve),
    "compare": Verb(verbs.CompareOptions, _compare),
    "report": Verb(ReportOptions, _report),
    "reproduce": Verb(ReproduceOptions, _reproduce),
    "soup": Verb(verbs.SoupOptions, _soup),
    "sweep": Verb(verbs.SweepOptions, _sweep),
    "sweep-report": Verb(verbs.SweepReportOptions, _sweep_report),
}


def _help() -> str:
    lines = [f"  {name:14}{' '.join((verb.options.__doc__ or '').split())}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "usage: naturalist VERB …          (or python -m naturalist VERB …)",
            "",
            "Everything before and after training; partA/train.py and partB/finetune.py train.",
            "",
            "verbs:",
            *lines,
            "",
            "  naturalist VERB --help            what a verb can be told, with an example",
            "  naturalist --version",
            "  naturalist --print_completion bash|zsh|tcsh      for the shell's start-up file",
            "",
            "example:",
            "  naturalist evaluate runs/first",
        ]
    )


def _completion(arguments: Sequence[str]) -> str:
    """A script that lets the shell complete verbs and flags."""
    import argparse

    import shtab

    from naturalist.settings.arguments import arguments_of

    shell = arguments[0] if arguments else ""
    if shell not in shtab.SUPPORTED_SHELLS:
        raise UserError(f"--print_completion needs one of {', '.join(shtab.SUPPORTED_SHELLS)} after it.")
    root = argparse.ArgumentParser("naturalist")
    subparsers = root.add_subparsers()
    for name, verb in VERBS.items():
        parser = subparsers.add_parser(name, help=verb.options.__doc__)  # without help shtab leaves it out
        parser.add_argument(f"--{DEBUG}", action="store_true")
        for argument in arguments_of(verb.options):
            names = [argument.name] if argument.is_positional else [f"--{argument.name}"]
            added = parser.add_argument(*names, choices=argument.choices or None)
            if argument.metavar in ("RUN", "RUNS", "PHOTO", "FILE", "FOLDER", "PATH"):
                added.complete = shtab.FILE  # type: ignore[attr-defined]  # how shtab is told
    return str(shtab.complete(root, shell))
