"""What every verb of ``naturalist VERB`` can be told, a dataclass for each."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from naturalist.settings.arguments import option, positional
from naturalist.settings.groups import ResizeMode
from naturalist.settings.rules import require_at_least_one, require_device, require_seed

Split = Literal["test", "val"]
PictureFormat = Literal["png", "svg", "pdf"]
Tta = Literal["none", "flip", "flip-shift"]
Prior = Literal["training", "uniform"]


@dataclass(frozen=True)
class PrepareOptions:
    """Download or draw the data, check every file, build the cache."""

    EXAMPLE: ClassVar[str] = "naturalist prepare --data nature_12K --image_size 128"

    data: str = option("sample", group="Data", path=True)
    """'sample', 'nature_12K' or a folder."""
    image_size: int = option(128, group="Data")
    """Side of the images that a model is to see, in pixels."""
    cache_size: int | None = option(None, group="Data")
    """Side of the cached images, in pixels, where that is more than image_size, as for a training with this setting."""
    resize_mode: ResizeMode = option("squash", group="Data")
    """Squash photographs to squares, or crop the centre; bilinear unless said."""
    on_corrupt: Literal["skip", "error"] = option("skip", group="Data")
    """Leave unreadable files out, or stop."""
    datasets_dir: str = option("datasets", group="Data")
    """Where 'sample' and 'nature_12K' are stored."""
    cache_dir: str | None = option(None, group="Data")
    """Folder for decoded images; by default 'cache' beside runs_dir."""
    runs_dir: str = option("runs", group="Record")
    """The cache lies beside it unless --cache_dir is given."""


@dataclass(frozen=True)
class CleanOptions:
    """Say what the cache holds, and remove what is not used."""

    EXAMPLE: ClassVar[str] = "naturalist clean --older-than 30 --delete"

    older_than: float | None = option(None, metavar="DAYS")
    """Choose what was last used that many days ago or more."""
    all: bool = False
    """Choose everything."""
    delete: bool = False
    """Remove what is chosen; without it nothing is touched, and what would be removed is marked."""
    cache_dir: str | None = option(None, group="Data")
    """Folder for decoded images; by default 'cache' beside runs_dir."""
    runs_dir: str = option("runs", group="Record")
    """The cache lies beside it unless --cache_dir is given."""


@dataclass(frozen=True)
class EvaluateOptions:
    """Measure runs on the test set and draw their predictions."""

    EXAMPLE: ClassVar[str] = "naturalist evaluate runs/first --split val"

    runs: list[Path] = positional("RUN")
    """Run folder, or a checkpoint file in one, or the name of a run in runs/; several are also averaged, and two
    compared image by image."""
    split: Split = option("test", group="Data")
    """Images to use."""
    data: str | None = option(None, group="Data", path=True)
    """Another data set than the run's own."""
    cache_dir: str | None = option(None, group="Data")
    """Another folder for decoded images than the run's own."""
    tta: Tta = option("none", bare="flip")
    """Test-time augmentation: also average each image with its mirror image (flip, or no word), and with views shifted
    a little (flip-shift), reported apart with the gain."""
    prior: Prior = "training"
    """Class frequencies to assume: those of training, as a network learns them, or also all alike (uniform), for the
    balanced accuracy, reported apart with the gain."""
    order: Literal["class", "similarity"] = "class"
    """Of the classes in the picture of the confusion matrix: that of their names, or confused ones side by side."""
    display_names: Path | None = option(None, metavar="FILE")
    """How classes are called: YAML of folder: name, or CSV; a name between asterisks is in italics."""
    format: PictureFormat = "png"
    """Of the pictures; svg and pdf for papers."""
    batch_size: int = option(128, group="Machine")
    """Images per batch."""
    device: str = option("auto", group="Machine")
    """auto, cpu, cuda, cuda:N or mps."""

    def validate(self) -> None:
        """Refuse impossible values; raises :class:`UserError` naming the option."""
        require_at_least_one(self, ["batch_size"])
        require_device(self.device)


@dataclass(frozen=True)
class PredictOptions:
    """Say what is on new photographs."""

    EXAMPLE: ClassVar[str] = "find . -name '*.jpg' | naturalist predict runs/first - --csv"

    run: Path = positional("RUN")
    """Run folder, a checkpoint file, or the name of a run in runs/."""
    photos: list[str] = positional("PHOTO", path=True)
    """Photograph, folder of photographs, or - for a list of paths on standard input."""
    top: int = 3
    """Classes to name."""
    threshold: float = 0.0
    """Say 'none of these' below this confidence, 0 to 1."""
    temperature: float = 1.0
    """Divide logits by it; evaluate fits the one that makes confidence honest on the validation images."""
    json: bool = False
    """Print one JSON object per photograph."""
    csv: bool = False
    """Print CSV."""
    display_names: Path | None = option(None, metavar="FILE")
    """How classes are called: YAML of folder: name, or CSV; a name between asterisks is in italics."""
    null: bool = option(False, short="-0")
    """The list on standard input is separated by NUL characters, as find -print0 writes it."""
    batch_size: int = option(64, group="Machine")
    """Photographs per batch."""
    device: str = option("auto", group="Machine")
    """auto, cpu, cuda, cuda:N or mps."""

    def validate(self) -> None:
        """Refuse impossible values; raises :class:`UserError` naming the option."""
        require_device(self.device)


@dataclass(frozen=True)
class ExplainOptions:
    """Draw what a run has learnt and what it looks at."""

    EXAMPLE: ClassVar[str] = "naturalist explain runs/first fox.jpg --only grad_cam,occlusion"

    run: Path = positional("RUN")
    """Run folder, a checkpoint file in one, or the name of a run in runs/."""
    photos: list[Path] = positional("PHOTO", [])
    """Photographs to explain it by; by default random images of the split."""
    only: str | None = option(None, metavar="PARTS")
    """Some of filters,feature_maps,guided_backprop,grad_cam,occlusion,exciting."""
    images: int = 4
    """Random images."""
    units: int = 10
    """Channels."""
    layer: str | None = option(None, bare="list")
    """Layer whose channels to look at; by default the last one with feature maps; without a name all are listed."""
    seed: int = 0
    """Of the choice of images."""
    display_names: Path | None = option(None, metavar="FILE")
    """How classes are called: YAML of folder: name, or CSV; a name between asterisks is in italics."""
    format: PictureFormat = "png"
    """Of the pictures; svg and pdf for papers."""
    split: Split = option("val", group="Data")
    """Images to draw from; test is a look at the test set, and remembered as one."""
    data: str | None = option(None, group="Data", path=True)
    """Another data set than the run's own."""
    cache_dir: str | None = option(None, group="Data")
    """Another folder for decoded images than the run's own."""
    device: str = option("auto", group="Machine")
    """auto, cpu, cuda, cuda:N or mps."""
    out: Path | None = option(None, group="Record", short="-o", metavar="FOLDER")
    """Where to put the pictures; by default explanation in the run folder."""

    def validate(self) -> None:
        """Refuse impossible values; raises :class:`UserError` naming the option."""
        require_seed(self, ["seed"])
        require_device(self.device)


@dataclass(frozen=True)
class ExportOptions:
    """Write a run's network for other programs."""

    EXAMPLE: ClassVar[str] = "naturalist export runs/first --format onnx -o flowers.onnx"

    run: Path = positional("RUN")
    """Run folder, a checkpoint file, or the name of a run in runs/."""
    format: Literal["onnx", "torch"] = "onnx"
    """ONNX, or torch.export's program."""
    display_names: Path | None = option(None, metavar="FILE")
    """How classes are called: YAML of folder: name, or CSV; a name between asterisks is in italics."""
    data: str | None = option(None, group="Data", path=True)
    """Data set to check it on, if not the run's own."""
    cache_dir: str | None = option(None, group="Data")
    """Another folder for decoded images than the run's own."""
    out: Path | None = option(None, group="Record", short="-o", metavar="FILE")
    """File to write; by default model.onnx or model.pt2 beside the checkpoint."""


@dataclass(frozen=True)
class ServeOptions:
    """Open a local page to drop photographs on (needs requirements-app.txt)."""

    EXAMPLE: ClassVar[str] = "naturalist serve runs/first --port 8000"

    run: Path = positional("RUN")
    """Run folder, a checkpoint file, or the name of a run in runs/."""
    host: str = "127.0.0.1"
    """Address to listen on; any but the default opens the page to others."""
    port: int = 7860
    """Port to listen on."""
    max_megabytes: int = 20
    """Largest file taken."""
    display_names: Path | None = option(None, metavar="FILE")
    """How classes are called: YAML of folder: name, or CSV; a name between asterisks is in italics."""
    device: str = option("auto", group="Machine")
    """auto, cpu, cuda, cuda:N or mps."""

    def validate(self) -> None:
        """Refuse impossible values; raises :class:`UserError` naming the option."""
        require_device(self.device)


@dataclass(frozen=True)
class CompareOptions:
    """Set finished runs side by side: table, pictures, conclusions."""

    EXAMPLE: ClassVar[str] = "naturalist compare runs/head runs/full runs/scratch -o comparison"

    folders: list[Path] = positional("RUN")
    """Run folders, or names of runs in runs/; seeds are averaged."""
    format: PictureFormat = "png"
    """Of the pictures; svg and pdf for papers."""
    out: Path | None = option(None, group="Record", short="-o", metavar="FOLDER")
    """Where to put the comparison; by default comparison, beside the folder of the first run."""


@dataclass(frozen=True)
class SoupOptions:
    """Average the weights of runs that began with the same, as validation likes it best, into a run of its own."""

    EXAMPLE: ClassVar[str] = "naturalist soup runs/full-1 runs/full-2 runs/full-3 --name soup"

    runs: list[Path] = positional("RUN")
    """Run folders, checkpoint files, or names of runs in runs/; at least two. The best is the first ingredient; each
    other one, the better first, is added where validation gains by it, as the first run's select_by measures that."""
    interpolate: bool = False
    """Two runs, such as a linear probe and what was fine-tuned: take the best point of the line between them."""
    data: str | None = option(None, group="Data", path=True)
    """Another data set than the first run's own."""
    cache_dir: str | None = option(None, group="Data")
    """Another folder for decoded images than the first run's own."""
    batch_size: int = option(128, group="Machine")
    """Images per batch."""
    device: str = option("auto", group="Machine")
    """auto, cpu, cuda, cuda:N or mps."""
    name: str = option("soup", group="Record")
    """Name of the new run, whose folder lies beside that of the first."""

    def validate(self) -> None:
        """Refuse impossible values; raises :class:`UserError` naming the option."""
        require_at_least_one(self, ["batch_size"])
        require_device(self.device)


@dataclass(frozen=True)
class SweepOptions:
    """Search settings here, as sweep.yaml says; needs no account."""

    EXAMPLE: ClassVar[str] = "naturalist sweep sweep.yaml --count 29 --workers 2 --data nature_12K"

    file: Path = positional("FILE")
    """Sweep file in the format of Weights & Biases."""
    count: int | None = None
    """Trials of the whole sweep."""
    workers: int = 1
    """Trials at once."""
    fixed: list[str] = option([], name="set", metavar="NAME=VALUE", repeated=True)
    """Another setting of every trial; may be given again."""
    fidelity: list[str] = option([], metavar="NAME=VALUE,…", repeated=True)
    """First run all trials with the setting's first value, the best tenth with the next, and so on, such as
    image_size=32,64; may be given again, for further settings of these rounds."""
    allow_repeats: bool = False
    """Run the same settings again where the search suggests them again."""
    seed: int = 0
    """Seed of the search."""
    data: str | None = option(None, group="Data", path=True)
    """Data set of every trial: 'sample', 'nature_12K' or a folder."""
    name: str | None = option(None, group="Record")
    """Name of the sweep; by default its name in the file, or the file's."""
    storage: str | None = option(None, group="Record", metavar="URL")
    """Database that several machines share, such as postgresql://user@host/name; by default a journal file in the
    sweep's folder."""
    out: Path = option(Path("sweeps"), group="Record", short="-o", metavar="FOLDER")
    """Folder of all sweeps."""

    def validate(self) -> None:
        """Refuse impossible values; raises :class:`UserError` naming the option."""
        require_seed(self, ["seed"])


@dataclass(frozen=True)
class SweepReportOptions:
    """Show which settings mattered, from the folders of runs."""

    EXAMPLE: ClassVar[str] = "naturalist sweep-report sweeps/sweep/runs -o report"

    folders: list[Path] = positional("RUNS")
    """Folders with run folders, or W&B's offline folders."""
    metric: str = "val_accuracy"
    """What was tuned."""
    minimize: bool = False
    """Lower is better."""
    format: PictureFormat = "png"
    """Of the pictures; svg and pdf for papers."""
    out: Path = option(Path("sweep-report"), group="Record", short="-o", metavar="FOLDER")
    """Where pictures and tables go."""
