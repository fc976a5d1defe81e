"""Where the splits of a data set lie, by the names and the shape of its folders.

Understood are the shapes that data sets come in: a folder of training images and one of test images or validation
images, each a folder of class folders, however deep they are nested and however people call them (``train``,
``Testing``, ``seg_train/seg_train``, ``images_val``, ``dev`` …); or one folder of class folders, which is then training
data without a test set. Where there are no test images, validation images play their part (as in nature_12K).

Names are read word by word: *trainbearer*, *Testudo* and *Valeriana* are classes. A folder that holds photographs and
no folders is a class, whatever it is called: photographs of trains. What could be read in two ways is refused.
"""

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal, NoReturn

from naturalist.data.listing import (
    class_folders,
    composed,
    differing_names,
    holds_photographs,
    is_flat,
    is_litter,
    is_photograph,
    subfolders,
)
from naturalist.errors import UserError
from naturalist.printable import printable

MAX_DEPTH = 4
"""Levels below the given folder at which training images are looked for."""

Role = Literal["train", "val", "test", "unlabelled"]

ROLES: dict[str, Role] = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "holdout"), "test"),
    **dict.fromkeys(("pred", "predict", "prediction", "predictions", "unlabeled", "unlabelled"), "unlabelled"),
}
FILLERS = ("set", "data", "dataset", "image", "images", "img", "imgs", "photo", "photos", "folder")
"""Words beside a split's that mean nothing, also grown together with it: ``trainset``, ``val_images``."""

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".rar", ".7z")


@dataclass(frozen=True)
class Folders:
    """Where the splits of a data set lie; ``val`` and ``test`` are None where there is none."""

    root: Path
    """The folder of the data set, that all others lie in, or that is the training folder itself."""
    train: Path
    val: Path | None
    test: Path | None
    note: str = ""
    """What was made of folders that are called or lie unusually, and which were left out; for people."""

    def prefix(self, split: Path) -> str:
        """What comes before a split's paths in lists about the data set, which name files from ``root`` on: ``train/``.

        It is empty where the training folder is all there is.
        """
        return composed("".join(f"{part}/" for part in split.relative_to(self.root).parts))


@dataclass(frozen=True)
class SplitName:
    """What the name of a split says."""

    role: Role
    rest: tuple[str, ...]
    """Its other words: ``seg`` of ``seg_train``."""


def split_name(name: str) -> SplitName | None:
    """What a folder's name says if it is a split's, in whole words; None for all others and for ``train_and_test``."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = [word.lower() for word in re.findall(r"[^\W\d_]+", spaced)]
    roles, rest = set(), []
    for word in words:
        grown = re.fullmatch(rf"({'|'.join(ROLES)})({'|'.join(FILLERS)})?", word)
        if grown:
            roles.add(ROLES[grown[1]])
        elif word not in FILLERS:
            rest.append(word)
    return SplitName(roles.pop(), tuple(rest)) if len(roles) == 1 else None


def find_folders(folder: Path) -> Folders:
    """Find the folders of the splits below ``folder``.

    Raises :class:`UserError` when it is no folder, holds no class folders, could be read in more than one way, or when
    the class folders of training and validation differ. Those of the test set are not compared.
    """
    _require_folder(folder)
    level = [folder]
    for _ in range(MAX_DEPTH):
        found = [splits for parent in level if (splits := _splits_in(parent))]
        if len(found) > 1:  # of photographs, and perhaps of what is known about them
            found = [splits for splits in found if holds_photographs(splits["train"])] or found
        if len(found) > 1:
            raise UserError(
                f"{str(folder)!r} holds more than one data set: "
                f"{', '.join(sorted(str(splits['train'].parent) for splits in found))}; pass one of them."
            )
        if found:
            return _folders(folder, found[0])
        level = [parent / name for parent in level for name in subfolders(parent)]
    _require_classes(folder)
    return Folders(folder, train=folder, val=None, test=None)


def _require_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    if not folder.exists():
        problem = f"there is no folder {str(folder)!r}"
    elif folder.name.lower().endswith(ARCHIVES):
        raise UserError(f"{str(folder)!r} is an archive: unpack it, and pass the folder that comes out with --data.")
    elif is_photograph(folder.name):
        problem = f"{str(folder)!r} is one photograph (naturalist predict takes those)"
    else:
        problem = f"{str(folder)!r} is a file and no folder"
    raise UserError(
        f"{problem}; --data takes 'sample', 'nature_12K' or a folder that holds train/ and test/ (or val/), or one "
        "folder for each class."
    )


def _splits_in(parent: Path) -> dict[Role, Path] | None:
    """The splits that lie side by side in a folder, as they are called; None where nothing is training images."""
    named = {name: found for name in subfolders(parent) if (found := split_name(name))}
    of_train = [name for name, found in named.items() if found.role == "train" and not is_flat(parent / name)]
    plain = [name for name in of_train if not named[name].rest]
    trains = plain or [name for name in of_train if _has_partner(parent, name, named)]
    if not trains:
        return None
    train = _only_one(parent, trains, "the training images")
    splits: dict[Role, Path] = {"train": parent / train}
    for role in ("val", "test"):
        candidates = [
            name
            for name, found in named.items()
            if found.role == role
            and (found.rest in ((), named[train].rest) or _share_classes(parent / train, parent / name))
        ]
        candidates = [name for name in candidates if not is_flat(_unwrapped(parent / name))] or candidates
        candidates = [name for name in candidates if not named[name].rest] or candidates
        if candidates:
            splits[role] = parent / _only_one(parent, candidates, f"the {role} images")
    return splits


def _has_partner(parent: Path, train: str, named: dict[str, SplitName]) -> bool:
    """Whether another split lies beside ``seg_train``, which could be a class as well as ``train_station`` is.

    That is one of the same other words, or of the same class folders, unless those are in all folders, as years may be.
    """
    alike = {name for name in subfolders(parent) if name != train and _share_classes(parent / train, parent / name)}
    is_one_of_a_pair = any(found.role != "train" and found.rest == named[train].rest for found in named.values())
    return is_one_of_a_pair or bool(alike) and alike <= named.keys()


def _only_one(parent: Path, names: list[str], what: str) -> str:
    if len(names) > 1:
        raise UserError(
            f"each of {', '.join(sorted(names))} in {str(parent)!r} could be {what}; move all but one of them "
            "elsewhere."
        )
    return names[0]


def _folders(folder: Path, splits: dict[Role, Path]) -> Folders:
    """The splits that were found, once nothing beside them makes them doubtful."""
    train, val, test = (_unwrapped(splits[role]) if role in splits else None for role in ("train", "val", "test"))
    assert train is not None
    if is_flat(train):
        _refuse_flat(folder, [train.relative_to(folder).as_posix()])
    left_out = _left_out(folder, splits, train)
    if test is None:
        val, test = None, val
    _require_classes(train)
    if val is not None:
        _require_same_classes(train, val)
    return Folders(folder, train, val, test, _describe(folder, {"train": train, "val": val, "test": test}, left_out))


def _left_out(folder: Path, splits: dict[Role, Path], train: Path) -> list[Path]:
    """Folders with photographs that are part of no split; raises :class:`UserError` for those that should be."""
    parent, taken = splits["train"].parent, set(splits.values())
    beside = [parent / name for name in subfolders(parent) if parent / name not in taken]
    for other in beside:
        if split_name(other.name) is None and _share_classes(train, other):
            raise UserError(
                f"{other.name} in {str(parent)!r} holds class folders of the same names as {splits['train'].name}, but "
                "its name does not say what it is for; call it test or val, or move it elsewhere."
            )
    while parent != folder:
        beside += [parent.parent / name for name in subfolders(parent.parent) if name != parent.name]
        parent = parent.parent
    beside = [other for other in beside if holds_photographs(other)]
    doubtful = [other.relative_to(folder).as_posix() for other in beside if split_name(other.name) is None]
    if doubtful and len(splits) == 1:
        raise UserError(
            f"in {str(folder)!r}, {splits['train'].relative_to(folder).as_posix()} could be the training images, or a "
            f"class beside {', '.join(doubtful)}; pass --data {str(train)!r} to train on it alone, or put the "
            "photographs of a class into its folder without folders between."
        )
    return beside


def _describe(folder: Path, splits: dict[str, Path | None], left_out: list[Path]) -> str:
    """The note of :class:`Folders`."""
    paths = {role: path.relative_to(folder).as_posix() for role, path in splits.items() if path is not None}
    parts = []
    if any(role != path for role, path in paths.items()):
        parts.append(", ".join(f"{role}: {path}/" for role, path in paths.items()))
    test = splits["test"]
    if test is not None and is_flat(test):
        parts.append(f"{paths['test']}/ has no class folders, so nothing can be evaluated on it")
    if left_out:
        parts.append(f"left out: {', '.join(f'{path.relative_to(folder).as_posix()}/' for path in left_out)}")
    return printable("; ".join(parts))


def _require_classes(folder: Path) -> None:
    """Refuse a folder whose folders are not classes, as far as their names and theirs tell."""
    names = class_folders(folder)
    if not names:
        hint = ", only photographs; put those of each class into a folder of its own" * holds_photographs(folder)
        raise UserError(f"{str(folder)!r} holds neither a train/ folder nor a folder for each class{hint}.")
    splits = {name: found for name in names.values() if (found := split_name(name))}
    if any(found.role != "train" and not found.rest and not is_flat(folder / name) for name, found in splits.items()):
        _refuse_without_train(folder, list(names))
    related = defaultdict(list)
    for name, found in splits.items():
        related[found.rest].append(name)
    for rest, group in related.items():
        roles = {splits[name].role for name in group}
        others = (folder / name for name in names.values() if name not in group)
        if len(roles) > 1 and (rest or not any(map(holds_photographs, others))):
            if "train" not in roles:
                _refuse_without_train(folder, group)
            _refuse_flat(folder, group)
    inner = {name: set(subfolders(folder / name)) for name in names.values()}
    for name, below in inner.items():
        _refuse_splits_within(folder, name)
        twins = sorted((below & inner.keys()) - {name})
        if len(twins) > 1:
            raise UserError(
                f"the folder {name} of {str(folder)!r} holds folders that are called as those beside it "
                f"({', '.join(twins)}): it is a copy of them or a split, and no class; move it elsewhere, or call the "
                "splits train and test."
            )


def _refuse_without_train(folder: Path, names: list[str]) -> NoReturn:
    raise UserError(
        f"{str(folder)!r} holds {', '.join(sorted(names))}, but no train/ folder; call that of the training images so."
    )


def _refuse_flat(folder: Path, names: list[str]) -> NoReturn:
    raise UserError(
        f"{', '.join(names)} in {str(folder)!r} are called as splits and not as classes, but they hold no class "
        "folders to train on: put train/ and test/ there, and in both a folder for each class."
    )


def _refuse_splits_within(folder: Path, name: str) -> None:
    for parent, inner, _ in os.walk(folder / name):
        inner[:] = sorted(below for below in inner if not is_litter(below))
        found = {below: split for below in inner if (split := split_name(below))}
        for (first, one), (second, other) in combinations(found.items(), 2):
            if {one.role, other.role} in ({"train", "test"}, {"train", "val"}) and one.rest == other.rest:
                raise UserError(
                    f"in the class folder {name} of {str(folder)!r}, {parent!r} holds splits ({first}, {second}), "
                    "which would all be trained on: put train/ and test/ outside, and in both a folder for each class."
                )


def _share_classes(first: Path, second: Path) -> bool:
    return not set(class_folders(_unwrapped(first))).isdisjoint(class_folders(_unwrapped(second)))


def _unwrapped(split: Path) -> Path:
    """The folder that holds a split's class folders: in ``seg_train/seg_train`` the inner one."""
    outer = split_name(split.name)
    while True:
        names = subfolders(split)
        if len(names) != 1 or holds_photographs(split, deep=False):
            return split
        inner = split_name(names[0])
        is_same = inner is not None and outer is not None and inner.role == outer.role
        if not is_same and names[0].lower() not in FILLERS:
            return split
        split = split / names[0]


def _require_same_classes(train: Path, val: Path) -> None:
    train_names, val_names = set(class_folders(train)), set(class_folders(val))
    if train_names != val_names:
        differing = differing_names(train_names, f"{train.name}/", val_names, f"{val.name}/")
        raise UserError(
            f"the class folders of {str(train)!r} and {str(val)!r} differ ({differing}); both must hold the same "
            "classes."
        )
