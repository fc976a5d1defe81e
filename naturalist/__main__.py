"""``python -m naturalist VERB``: everything before and after training."""

import argparse
import sys
from pathlib import Path

from naturalist.errors import UserError
from naturalist.settings.config import entry_point


class Parser(argparse.ArgumentParser):
    """Refuses wrong arguments in one sentence."""

    def error(self, message: str) -> None:
        """Raise instead of printing the usage."""
        raise UserError(f"{message}; see {self.prog} --help.")


def main(argv: list[str] | None = None) -> int:
    """Parse the verb and its arguments, and run it; returns the exit code."""
    parser = Parser(prog="python -m naturalist", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, parser_class=Parser, metavar="VERB")

    prepare = verbs.add_parser("prepare", help="download or draw the data, check every file, build the cache")
    prepare.add_argument("--data", default="sample", help="'sample', 'nature_12K' or a folder (default: %(default)s)")
    prepare.add_argument(
        "--image_size", type=int, default=128, metavar="PIXELS", help="side of the cached images (default: %(default)s)"
    )
    prepare.add_argument(
        "--resize_mode",
        choices=("squash", "crop"),
        default="squash",
        help="squash photographs to squares, or crop the centre (default: %(default)s)",
    )
    prepare.add_argument(
        "--on_corrupt",
        choices=("skip", "error"),
        default="skip",
        help="leave unreadable files out, or stop (default: %(default)s)",
    )
    prepare.add_argument("--datasets_dir", default="datasets", help="where 'sample' and 'nature_12K' are stored")
    prepare.add_argument("--runs_dir", default="runs", help="the cache lies beside it unless --cache_dir is given")
    prepare.add_argument("--cache_dir", default=None, help="folder for decoded images (default: cache beside runs)")

    evaluate = verbs.add_parser("evaluate", help="measure runs on the test set and draw their predictions")
    evaluate.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="run folder, or a checkpoint file in one; several are also averaged, and two compared image by image",
    )
    evaluate.add_argument(
        "--split", choices=("test", "val"), default="test", help="images to use (default: %(default)s)"
    )
    evaluate.add_argument("--data", default=None, help="another data set than the run's own")
    evaluate.add_argument("--cache_dir", default=None, help="another folder for decoded images than the run's own")
    evaluate.add_argument("--batch_size", type=int, default=128, help="images per batch (default: %(default)s)")
    evaluate.add_argument(
        "--tta",
        action="store_true",
        help="test-time augmentation: also average each image with its mirror image, reported apart",
    )
    evaluate.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")

    predict = verbs.add_parser("predict", help="say what is on new photographs")
    predict.add_argument("run", type=Path, metavar="RUN", help="run folder, or a checkpoint file")
    predict.add_argument(
        "photos",
        nargs="+",
        metavar="PHOTO",
        help="photograph, folder of photographs, or - for a list of paths on standard input",
    )
    predict.add_argument("--top", type=int, default=3, metavar="K", help="classes to name (default: %(default)s)")
    predict.add_argument(
        "--threshold",
        type=float,
        default=0.0,
        metavar="P",
        help="say 'none of these' below this confidence, 0 to 1 (default: %(default)s)",
    )
    formats = predict.add_mutually_exclusive_group()
    formats.add_argument(
        "--json",
        dest="format",
        action="store_const",
        const="json",
        default="table",
        help="print one JSON object per photograph",
    )
    formats.add_argument("--csv", dest="format", action="store_const", const="csv", help="print CSV")
    predict.add_argument("--batch_size", type=int, default=64, help="photographs per batch (default: %(default)s)")
    predict.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")

    explain = verbs.add_parser("explain", help="draw what a run has learnt and what it looks at")
    explain.add_argument("run", type=Path, metavar="RUN", help="run folder, or a checkpoint file in one")
    explain.add_argument(
        "photos",
        type=Path,
        nargs="*",
        metavar="PHOTO",
        help="photographs to explain it by; by default random images of the split",
    )
    explain.add_argument(
        "--only",
        type=lambda parts: tuple(parts.split(",")),
        metavar="PARTS",
        help="some of filters,feature_maps,guided_backprop,grad_cam,occlusion,exciting",
    )
    explain.add_argument(
        "--split", choices=("test", "val"), default=None, help="images to draw from (default: test where there is one)"
    )
    explain.add_argument("--images", type=int, default=4, metavar="N", help="random images (default: %(default)s)")
    explain.add_argument("--units", type=int, default=10, metavar="N", help="channels (default: %(default)s)")
    explain.add_argument(
        "--layer",
        default=None,
        metavar="NAME",
        help="layer whose channels to look at (default: the last one with feature maps)",
    )
    explain.add_argument("--seed", type=int, default=0, help="of the choice of images (default: %(default)s)")
    explain.add_argument("--data", default=None, help="another data set than the run's own")
    explain.add_argument("--cache_dir", default=None, help="another folder for decoded images than the run's own")
    explain.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")

    export = verbs.add_parser("export", help="write a run's network for other programs")
    export.add_argument("run", type=Path, metavar="RUN", help="run folder, or a checkpoint file")
    export.add_argument(
        "--format",
        choices=("onnx", "torch"),
        default="onnx",
        help="ONNX, or torch.export's program (default: %(default)s)",
    )
    export.add_argument(
        "-o",
        "--output",
        type=Path,
        default=None,
        metavar="FILE",
        help="file to write (default: model.onnx or model.pt2 beside the checkpoint)",
    )
    export.add_argument("--data", default=None, help="data set to check it on, if not the run's own")
    export.add_argument("--cache_dir", default=None, help="another folder for decoded images than the run's own")

    serve = verbs.add_parser("serve", help="a local page to drop photographs on (needs requirements-app.txt)")
    serve.add_argument("run", type=Path, metavar="RUN", help="run folder, or a checkpoint file")
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; any but the default opens the page to others (default: %(default)s)",
    )
    serve.add_argument("--port", type=int, default=7860, help="(default: %(default)s)")
    serve.add_argument("--max_megabytes", type=int, default=20, help="largest file taken (default: %(default)s)")
    serve.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")

    compare = verbs.add_parser("compare", help="set finished runs side by side: table, pictures, conclusions")
    compare.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="run folders; seeds are averaged")
    compare.add_argument(
        "-o",
        "--output",
        type=Path,
        default=None,
        metavar="FOLDER",
        help="where to put the comparison (default: comparison, beside the folder of the first run)",
    )

    sweep = verbs.add_parser("sweep", help="search settings here, as sweep.yaml says; needs no account")
    sweep.add_argument("file", type=Path, metavar="FILE", help="sweep file in the format of Weights & Biases")
    sweep.add_argument("--count", type=int, default=None, metavar="N", help="trials of the whole sweep")
    sweep.add_argument("--workers", type=int, default=1, metavar="K", help="trials at once (default: %(default)s)")
    sweep.add_argument(
        "--storage",
        default=None,
        metavar="URL",
        help="database that several machines share, such as postgresql://user@host/name "
        "(default: a journal file in the sweep's folder)",
    )
    sweep.add_argument("--data", default=None, help="data set of every trial: 'sample', 'nature_12K' or a folder")
    sweep.add_argument(
        "--set",
        dest="fixed",
        action="append",
        metavar="NAME=VALUE",
        help="another setting of every trial; may be given again",
    )
    sweep.add_argument(
        "--fidelity",
        action="append",
        metavar="NAME=VALUE,…",
        help="first run all trials with the setting's first value, the best tenth with the next, and so "
        "on, such as image_size=32,64; may be given again, for further settings of these rounds",
    )
    sweep.add_argument(
        "--allow_repeats", action="store_true", help="run the same settings again where the search suggests them again"
    )
    sweep.add_argument("--seed", type=int, default=0, help="seed of the search (default: %(default)s)")
    sweep.add_argument("--name", default=None, help="name of the sweep (default: its name in the file, or the file's)")
    sweep.add_argument(
        "--out", type=Path, default=Path("sweeps"), metavar="FOLDER", help="folder of all sweeps (default: %(default)s)"
    )

    sweep_report = verbs.add_parser("sweep-report", help="show which settings mattered, from the folders of runs")
    sweep_report.add_argument(
        "folders", type=Path, nargs="+", metavar="RUNS", help="folders with run folders, or W&B's offline folders"
    )
    sweep_report.add_argument(
        "-o",
        "--target",
        type=Path,
        default=Path("sweep-report"),
        metavar="FOLDER",
        help="where pictures and tables go (default: %(default)s)",
    )
    sweep_report.add_argument("--metric", default="val_accuracy", help="what was tuned (default: %(default)s)")
    sweep_report.add_argument("--minimize", dest="maximize", action="store_false", help="lower is better")

    arguments = vars(parser.parse_args(argv))
    verb = arguments.pop("verb")
    # Verbs are imported when they are called, so that --help does not wait for torch.
    if verb == "prepare":
        from naturalist.data.prepare import prepare_data

        prepare_data(**arguments)
    elif verb == "evaluate":
        runs = arguments.pop("runs")
        if len(runs) == 1:
            from naturalist.evaluation.evaluate import evaluate_run

            evaluate_run(*runs, **arguments)
        else:
            from naturalist.evaluation.several import evaluate_runs

            evaluate_runs(runs, **arguments)
    elif verb == "predict":
        from naturalist.evaluation.predict import predict_photos

        return predict_photos(**arguments)
    elif verb == "explain":
        from naturalist.explain.explain import explain_run

        explain_run(**arguments)
    elif verb == "export":
        from naturalist.export import export_run

        export_run(**arguments)
    elif verb == "serve":
        from naturalist.serve import serve_run

        serve_run(**arguments)
    elif verb == "sweep":
        from naturalist.sweeps.sweep import run_sweep

        run_sweep(**arguments)
    elif verb == "sweep-report":
        from naturalist.sweeps.report import report_runs

        report_runs(**arguments)
    elif verb == "compare":
        from naturalist.compare.compare import compare_runs

        compare_runs(**arguments)
    return 0


if __name__ == "__main__":
    with entry_point():
        sys.exit(main())
