"""``python -m naturalist VERB``: everything before and after training."""

import argparse
import sys
from pathlib import Path

from naturalist.config import entry_point
from naturalist.errors import UserError


class Parser(argparse.ArgumentParser):
    """Refuses wrong arguments in one sentence."""

    def error(self, message: str) -> None:
        """Raise instead of printing the usage."""
        raise UserError(f"{message}; see {self.prog} --help.")


def main(argv: list[str] | None = None) -> None:
    """Parse the verb and its arguments, and run it."""
    parser = Parser(prog="python -m naturalist", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, parser_class=Parser, metavar="VERB")

    prepare = verbs.add_parser("prepare", help="download or draw the data, check every file, build the cache")
    prepare.add_argument("--data", default="sample", help="'sample', 'nature_12K' or a folder (default: %(default)s)")
    prepare.add_argument("--image_size", type=int, default=128, metavar="PIXELS",
                         help="side of the cached images (default: %(default)s)")
    prepare.add_argument("--resize_mode", choices=("squash", "crop"), default="squash",
                         help="squash photographs to squares, or crop the centre (default: %(default)s)")
    prepare.add_argument("--on_corrupt", choices=("skip", "error"), default="skip",
                         help="leave unreadable files out, or stop (default: %(default)s)")
    prepare.add_argument("--datasets_dir", default="datasets", help="where 'sample' and 'nature_12K' are stored")
    prepare.add_argument("--runs_dir", default="runs", help="the cache lies beside it unless --cache_dir is given")
    prepare.add_argument("--cache_dir", default=None, help="folder for decoded images (default: cache beside runs)")

    evaluate = verbs.add_parser("evaluate", help="measure a run on the test set and draw its predictions")
    evaluate.add_argument("run", type=Path, metavar="RUN", help="run folder, or a checkpoint file in one")
    evaluate.add_argument("--split", choices=("test", "val"), default="test",
                          help="images to use (default: %(default)s)")
    evaluate.add_argument("--data", default=None, help="another data set than the run's own")
    evaluate.add_argument("--cache_dir", default=None, help="another folder for decoded images than the run's own")
    evaluate.add_argument("--batch_size", type=int, default=128, help="images per batch (default: %(default)s)")
    evaluate.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")

    arguments = vars(parser.parse_args(argv))
    verb = arguments.pop("verb")
    # Verbs are imported when they are called, so that --help does not wait for torch.
    if verb == "prepare":
        from naturalist.data.prepare import prepare_data

        prepare_data(**arguments)
    elif verb == "evaluate":
        from naturalist.evaluate import evaluate_run

        evaluate_run(**arguments)


if __name__ == "__main__":
    with entry_point():
        sys.exit(main())
