"""What the cache of decoded photographs promises."""

import errno
import importlib.util
import json
import os
import shutil
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL_CLASSES, TIMEOUT, run_python, start_python
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from naturalist.data import budget, formats, image_entry, store
from naturalist.data import images as cache_module
from naturalist.data.catalog import scan
from naturalist.data.decode import decode_file
from naturalist.data.images import ImageCache, open_cache
from naturalist.errors import UserError

SIZE = 24
VICTIM = f"{SMALL_CLASSES[0]}/00.jpg"

SLOW_BUILD = """
import sys, time
from pathlib import Path
from naturalist.data import images as cache
from naturalist.data.catalog import scan
data, folder, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
decode, decoded = cache.decode_file, []
def decode_slowly(*arguments):
    time.sleep(seconds)
    decoded.append(arguments)
    return decode(*arguments)
cache.decode_file = decode_slowly
images = cache.open_cache(scan(data), 24, "squash", folder)
print(f"decoded {len(decoded)} of {len(images)}")
"""
"""A program that builds a cache slowly, to be met or killed on the way."""

PEAK_MEMORY = """
import sys
from pathlib import Path
import numpy as np, torch
from naturalist.data import images as cache, loader
from naturalist.data.catalog import scan
loader.RELEASE_BYTES = 2**20
for folder in sys.argv[2:]:
    images = cache.open_cache(scan(Path(folder)), 96, "squash", Path(sys.argv[1]))
    for _ in loader.BatchLoader(images, np.arange(len(images)), 32, torch.device("cpu"), shuffle_seed=0).epoch():
        pass
    status = Path("/proc/self/status").read_text()
    print(len(images), next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""
"""A program that builds caches, reads each whole in a random order, and prints its peak memory so far in KiB."""


@pytest.fixture
def train(own_photographs) -> Path:
    return own_photographs / "train"


@pytest.fixture
def caches(tmp_path) -> Path:
    """Where this test's caches are to be made."""
    return tmp_path / "caches"


def build(train: Path, caches: Path, size: int = SIZE, resize_mode: str = "squash", **options: str) -> ImageCache:
    return open_cache(scan(train), size, resize_mode, caches, **options)


def finished(caches: Path) -> list[Path]:
    """Folders that are taken for whole caches."""
    return sorted(index.parent for index in caches.glob("*/index.json") if index.parent.suffix != ".unfinished")


def leftovers(caches: Path) -> list[str]:
    """What lies in the cache folder besides finished caches and locks, which are empty."""
    return [path.name for path in caches.iterdir() if path not in finished(caches) and path.suffix != ".lock"]


@pytest.fixture
def no_decoding(monkeypatch):
    """Switches decoding off, so that only a finished cache can be opened."""

    def switch_off() -> None:
        monkeypatch.setattr(cache_module, "decode_file", None)

    return switch_off


@pytest.mark.parametrize("resize_mode", ["squash", "crop"])
def test_rows_are_the_decoded_files_in_the_order_of_their_paths(train, caches, resize_mode):
    images = build(train, caches, resize_mode=resize_mode)
    assert list(images.paths) == sorted(path.relative_to(train).as_posix() for path in train.glob("*/*.jpg"))
    assert [images.class_names[label] for label in images.labels] == [path.split("/")[0] for path in images.paths]
    assert images.problems == () and images.size == SIZE and len(images) == 48
    expected = np.stack([decode_file(train / path, SIZE, resize_mode) for path in images.paths])
    assert np.array_equal(images.read(np.arange(48)), expected)
    assert np.array_equal(images.read(np.array([7, 3, 3])), expected[[7, 3, 3]])


def test_second_opening_decodes_nothing(train, caches, no_decoding):
    first = build(train, caches)
    no_decoding()
    second = build(train, caches)
    assert np.array_equal(first.pixels, second.pixels) and first.paths == second.paths


def test_cache_does_not_depend_on_where_the_data_set_lies(train, caches, no_decoding):
    build(train, caches)
    no_decoding()
    elsewhere = train.parent.parent / "elsewhere"
    train.parent.rename(elsewhere)
    assert len(build(elsewhere / "train", caches)) == 48


def replace_keeping_size_and_time(train: Path) -> None:
    victim = train / VICTIM
    before = victim.stat()
    time.sleep(0.02)  # longer than a tick of the file system's clock
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 0x55
    victim.write_bytes(content)
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (victim.stat().st_size, victim.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


CHANGES = {
    "touched": lambda train: os.utime(train / VICTIM),
    "replaced by another": lambda train: shutil.copy(train / SMALL_CLASSES[1] / "01.jpg", train / VICTIM),
    "replaced by one of the same size and time": replace_keeping_size_and_time,
    "added": lambda train: shutil.copy(train / VICTIM, train / SMALL_CLASSES[2] / "new.jpg"),
    "removed": lambda train: (train / VICTIM).unlink(),
    "renamed": lambda train: (train / VICTIM).rename(train / SMALL_CLASSES[0] / "0.jpg"),
    "moved to another class": lambda train: (train / VICTIM).rename(train / SMALL_CLASSES[3] / "moved.jpg"),
    "class renamed": lambda train: (train / SMALL_CLASSES[0]).rename(train / "Zebra"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_changed_file_is_never_served_stale(train, caches, change):
    build(train, caches)
    change(train)
    images = build(train, caches)
    assert len(finished(caches)) == 1 and leftovers(caches) == []
    assert list(images.paths) == sorted(path.relative_to(train).as_posix() for path in train.glob("*/*.jpg"))
    expected = np.stack([decode_file(train / path, SIZE, "squash") for path in images.paths])
    assert np.array_equal(images.read(np.arange(len(images))), expected)


UNDECODED = ["touched", "removed", "renamed", "moved to another class", "class renamed"]


@pytest.mark.parametrize("change", UNDECODED)
def test_what_changes_but_its_content_is_not_decoded_again(train, caches, no_decoding, change):
    before = build(train, caches)
    CHANGES[change](train)
    no_decoding()
    images = build(train, caches)
    assert images.pixels.shape == before.pixels.shape and len(images) == 48 - (change == "removed")
    by_hash = dict(zip(before.hashes, before.read(np.arange(48)), strict=True))
    assert all(np.array_equal(pixels, by_hash[images.hashes[i]]) for i, pixels in enumerate(images.read(np.arange(47))))
    assert list(images.sizes) == [(train / path).stat().st_size for path in images.paths]


def test_touched_files_are_read_once(train, caches, monkeypatch):
    build(train, caches)
    for path in train.glob("*/*.jpg"):
        os.utime(path)
    build(train, caches)
    monkeypatch.setattr(image_entry, "hash_file", None)
    assert len(build(train, caches)) == 48


def decoded_paths(monkeypatch) -> list[str]:
    """Names of the files that are decoded from now on."""
    names: list[str] = []

    def decode_and_note(path: Path, *arguments: object) -> np.ndarray:
        names.append(path.name)
        return decode_file(path, *arguments)

    monkeypatch.setattr(cache_module, "decode_file", decode_and_note)
    return names


def test_only_what_is_new_is_decoded_and_whoever_reads_goes_on(train, caches, monkeypatch):
    before = build(train, caches)
    truth = before.read(np.arange(48)).copy()
    CHANGES["replaced by one of the same size and time"](train)
    shutil.copy(train / SMALL_CLASSES[1] / "01.jpg", train / SMALL_CLASSES[2] / "twin.jpg")
    (train / SMALL_CLASSES[3] / "text.jpg").write_text("no photograph")
    names = decoded_paths(monkeypatch)
    after = build(train, caches)
    assert sorted(names) == ["00.jpg", "text.jpg"] and len(after) == 49 and len(after.problems) == 1
    assert len(after.pixels) == 49  # 48, and the file that was replaced
    assert np.array_equal(before.read(np.arange(48)), truth)
    names.clear()
    build(train, caches)
    assert names == []


def test_unreadable_file_that_was_repaired_is_decoded(train, caches, monkeypatch):
    content = (train / VICTIM).read_bytes()
    (train / VICTIM).write_bytes(content[:2000])
    assert len(build(train, caches)) == 47
    (train / VICTIM).write_bytes(content)
    names = decoded_paths(monkeypatch)
    assert len(build(train, caches)) == 48 and names == ["00.jpg"]


def test_what_was_too_large_is_tried_again_with_more_memory(train, caches):
    with Image.open(train / VICTIM) as picture:
        picture.convert("RGB").resize((2500, 2000)).save(train / SMALL_CLASSES[0] / "large.png")
    before = budget.decode_budget()
    try:
        budget.set_decode_budget(50_000_000)
        assert "2,500 x 2,000 pixels need 0.1 GB" in build(train, caches).problems[0][1]
    finally:
        budget.set_decode_budget(before)
    assert build(train, caches).problems == ()


def test_what_needed_a_library_is_tried_again_once_it_is_installed(train, caches, monkeypatch):
    heic = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(50)
    (train / VICTIM).write_bytes(heic)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert build(train, caches).problems == ((VICTIM, "HEIC, which needs a library; pip install pillow-heif"),)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(formats, "_register_heic", lambda: False)
    assert build(train, caches).problems == ((VICTIM, "damaged HEIC, or of a kind that needs a newer pillow-heif"),)


def test_pixels_that_are_mostly_waste_are_left_behind(train, caches, no_decoding):
    before = build(train, caches)
    truth = dict(zip(before.paths, before.read(np.arange(48)).copy(), strict=True))
    for path in sorted(train.glob("*/*.jpg")):
        if path.stem not in ("00", "01", "02"):
            path.unlink()
    no_decoding()
    after = build(train, caches)
    assert len(after.pixels) == len(after) == 12
    assert np.array_equal(after.read(np.arange(12)), np.stack([truth[path] for path in after.paths]))
    assert np.array_equal(before.read(np.arange(48)), np.stack(list(truth.values())))
    assert leftovers(caches) == []


def test_other_paths_to_a_folder_lead_to_the_same_cache(train, caches, no_decoding, monkeypatch):
    build(train, caches)
    (train.parent / "link").symlink_to(train)
    monkeypatch.chdir(train.parent)
    no_decoding()
    assert len(build(train.parent / "link", caches)) == len(build(Path("train"), caches)) == 48


def test_two_folders_of_one_name_have_a_cache_each(train, caches):
    shutil.copytree(train, train.parent / "copy" / train.name)
    (train.parent / "copy" / train.name / VICTIM).unlink()
    for _ in range(2):
        assert (len(build(train, caches)), len(build(train.parent / "copy" / train.name, caches))) == (48, 47)


@pytest.mark.parametrize("name", [os.fsdecode(b"V\xf6gel"), "ü" * 120])
def test_names_of_any_kind_have_a_cache(train, caches, name):
    folder = train.parent / name / name
    shutil.copytree(train, folder)
    (folder / VICTIM).rename(folder / SMALL_CLASSES[0] / os.fsdecode(b"\xff.jpg"))
    assert os.fsdecode(b"\xff.jpg") in build(folder, caches).paths[11]
    assert len(build(folder, caches)) == 48


def test_update_that_finds_no_room_leaves_the_cache_as_it_was(train, caches, limit_files):
    build(train, caches)
    before = {path.name: path.read_bytes() for path in finished(caches)[0].iterdir()}
    for number in range(30):
        Image.new("RGB", (30, 20), (number, 0, 0)).save(train / SMALL_CLASSES[0] / f"new {number}.png")
    limit_files(len(before["pixels.bin"]) + 10_000)
    with pytest.raises(UserError, match="is full; free some space"):
        build(train, caches)
    assert {path.name: path.read_bytes() for path in finished(caches)[0].iterdir()} == before
    assert leftovers(caches) == []


def test_what_a_killed_update_wrote_is_written_over(train, caches):
    build(train, caches)
    with (finished(caches)[0] / "pixels.bin").open("ab") as file:
        file.write(b"x" * 5000)
    Image.new("RGB", (30, 20), "red").save(train / SMALL_CLASSES[0] / "new.png")
    images = build(train, caches)
    expected = np.stack([decode_file(train / path, SIZE, "squash") for path in images.paths])
    assert np.array_equal(images.read(np.arange(49)), expected)


def test_leftovers_of_killed_builds_are_removed_but_for_those_being_built(train, caches):
    for name in ("killed", "alive"):
        (caches / f"{name}.unfinished").mkdir(parents=True)
    with store.lock_of(caches / "alive"):
        build(train, caches)
    assert leftovers(caches) == ["alive.unfinished"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draws=st.data())
def test_an_index_that_is_damaged_in_any_way_is_built_again(train, caches, draws):
    good = build(train, caches)
    index = finished(caches)[0] / "index.json"
    content = json.loads(index.read_text())
    junk = st.sampled_from([None, True, -1, 0, 10**20, 1.5, "x", "\udcff", [], {}, [[]], float("nan")])
    place = draws.draw(st.sampled_from([*content, "one file", "one value", "text"]))
    if place == "text":
        cut = draws.draw(st.integers(0, index.stat().st_size))
        index.write_text(index.read_text()[:cut] + draws.draw(st.sampled_from(["", "]", "[" * 5000, "\0"])))
    else:
        if place == "one file":
            content["files"][draws.draw(st.integers(0, 47))] = draws.draw(junk)
        elif place == "one value":
            content["files"][draws.draw(st.integers(0, 47))][draws.draw(st.integers(0, 5))] = draws.draw(junk)
        else:
            content[place] = draws.draw(junk)
        index.write_text(json.dumps(content))
    images = build(train, caches)
    assert (images.paths, images.hashes) == (good.paths, good.hashes)
    assert np.array_equal(images.read(np.arange(48)), good.read(np.arange(48)))


def test_other_settings_make_other_caches(train, caches):
    assert build(train, caches).size == SIZE
    assert build(train, caches, size=16).size == 16
    cropped = build(train, caches, resize_mode="crop")
    assert np.array_equal(cropped.read(np.array([0]))[0], decode_file(train / cropped.paths[0], SIZE, "crop"))
    assert len(finished(caches)) == 3


def spoil(train: Path) -> dict[str, str]:
    """Add rubbish of every kind to a training folder; returns the reason expected for each path."""
    first, second = SMALL_CLASSES[:2]
    (train / first / "zero.jpg").touch()
    (train / first / "text.jpg").write_text("no photograph")
    (train / second / "größe [1] .jpg").write_bytes((train / VICTIM).read_bytes()[:3000])
    (train / second / "dangling.jpg").symlink_to("nowhere")
    (train / second / "folder.jpg").mkdir()
    return {
        f"{first}/text.jpg": "no image",
        f"{first}/zero.jpg": "empty file",
        f"{second}/dangling.jpg": "No such file",
        f"{second}/größe [1] .jpg": "truncated",
    }


def test_unreadable_files_are_named_counted_and_left_out_whenever_the_cache_is_opened(train, caches, capsys):
    good = build(train, caches)
    expected = spoil(train)
    for _ in range(2):
        capsys.readouterr()
        images = build(train, caches)
        printed = capsys.readouterr().out
        assert "4 of 52 files in train/ cannot be read and are left out" in printed
        assert [path for path, _ in images.problems] == sorted(expected)
        for path, reason in images.problems:
            assert expected[path] in reason and f"  {path}: {reason}\n" in printed
        assert images.paths == good.paths and np.array_equal(images.labels, good.labels)
        assert np.array_equal(images.read(np.arange(48)), good.read(np.arange(48)))


def test_unreadable_file_is_an_error_where_that_was_asked_for(train, caches):
    spoil(train)
    for _ in range(2):
        with pytest.raises(UserError, match="4 of 52 files in train/ cannot be read; repair or remove them"):
            build(train, caches, on_corrupt="error")
    assert len(build(train, caches, on_corrupt="skip")) == 48


def test_long_lists_of_unreadable_files_are_cut_short(train, caches, capsys):
    for number in range(25):
        (train / SMALL_CLASSES[0] / f"{number:02}.jpg").write_text("no photograph")
    shutil.copy(train / SMALL_CLASSES[1] / "00.jpg", train / SMALL_CLASSES[0] / "good.jpg")
    assert len(build(train, caches).problems) == 25
    assert "25 of 62 files" in (printed := capsys.readouterr().out) and "and 15 more" in printed


def test_class_without_a_readable_file_is_refused_by_name(train, caches):
    for path in (train / SMALL_CLASSES[2]).iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=f"no file of class {SMALL_CLASSES[2]}"):
        build(train, caches)


def test_killed_build_leaves_nothing_that_is_taken_for_whole(train, caches):
    victim = start_python("-c", SLOW_BUILD, train, caches, 0.2, cwd=train)
    try:
        deadline = time.monotonic() + TIMEOUT
        while not list(caches.glob("*.unfinished/pixels.bin")) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)
    finally:
        victim.kill()
        output = victim.communicate()[0]
    assert "decoded" not in output
    assert len(leftovers(caches)) == 1 and finished(caches) == []
    images = build(train, caches)
    assert len(images) == 48 and images.pixels.any(axis=(1, 2, 3)).all()
    assert len(finished(caches)) == 1 and leftovers(caches) == []


def test_interrupted_build_leaves_nothing_behind(train, caches, monkeypatch):
    def interrupt(path: Path, *arguments: object) -> np.ndarray:
        if path.name == "05.jpg":
            raise KeyboardInterrupt
        return decode_file(path, *arguments)

    monkeypatch.setattr(cache_module, "decode_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(train, caches)
    assert finished(caches) == [] and leftovers(caches) == []


def test_two_processes_at_once_end_with_one_cache(train, caches):
    processes = [start_python("-c", SLOW_BUILD, train, caches, 0.03, cwd=train) for _ in range(2)]
    outputs = [process.communicate(timeout=TIMEOUT)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    decoded = sorted(line for output in outputs for line in output.splitlines() if line.startswith("decoded"))
    assert decoded == ["decoded 0 of 48", "decoded 48 of 48"]
    assert len(finished(caches)) == 1 and leftovers(caches) == []


@pytest.mark.parametrize(
    "damage", ["index cut short", "index empty", "index missing", "pixels cut short", "pixels missing"]
)
def test_damaged_cache_is_built_again(train, caches, damage):
    good = np.array(build(train, caches).pixels)
    name, how = damage.split(" ", 1)
    victim = finished(caches)[0] / {"index": "index.json", "pixels": "pixels.bin"}[name]
    if how == "missing":
        victim.unlink()
    else:
        os.truncate(victim, 0 if how == "empty" else victim.stat().st_size // 2)
    assert np.array_equal(build(train, caches).pixels, good)
    assert len(finished(caches)) == 1 and leftovers(caches) == []


def test_too_small_a_disk_is_refused_before_anything_is_decoded(train, caches, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**6, 10**6 - 9999, 9999))
    with pytest.raises(UserError, match=r"48 images at 24 px needs 0.00 GB, but .* free"):
        build(train, caches)
    assert leftovers(caches) == [] and finished(caches) == []


def test_disk_that_fills_up_is_one_sentence_with_nothing_left_behind(train, mount, monkeypatch):
    caches = mount("size=256k") / "caches"
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**12, 0, 10**12))  # another process takes the room
    with pytest.raises(UserError, match=r"the disk of the cache folder '.*caches' is full; free some space or pass"):
        build(train, caches, size=64)
    assert leftovers(caches) == [] and finished(caches) == []
    assert len(build(train, caches, size=16)) == 48


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_refused_write_is_one_sentence_with_nothing_left_behind(train, caches, monkeypatch, number):
    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)  # network drives say so no sooner
    with pytest.raises(UserError, match="is full; free some space"):
        build(train, caches)
    assert leftovers(caches) == [] and finished(caches) == []


def test_partial_write_counts_as_a_full_disk(train, caches, limit_files):
    limit_files(40_000)
    with pytest.raises(UserError, match="is full; free some space"):
        build(train, caches)
    assert leftovers(caches) == [] and finished(caches) == []


def test_data_folder_is_only_read(train, caches):
    before = sorted((path, path.stat().st_mtime_ns) for path in [train, *train.rglob("*")])
    build(train, caches)
    assert sorted((path, path.stat().st_mtime_ns) for path in [train, *train.rglob("*")]) == before


def test_read_only_cache_folder_is_refused_but_its_caches_are_used(train, mount):
    caches = mount("size=1m")
    build(train, caches)
    mount("remount", "ro")
    assert len(build(train, caches)) == 48
    with pytest.raises(UserError, match=r"cannot write to the cache folder .*Read-only.*; pass --cache_dir"):
        build(train, caches, size=16)


def test_cache_folder_that_is_a_file_is_refused(train, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"cannot write to the cache folder .*; pass --cache_dir"):
            build(train, folder)


def test_images_read_before_and_after_releasing_memory_are_equal(train, caches):
    images = build(train, caches)
    before = images.read(np.arange(48)).copy()
    images.release()
    assert np.array_equal(images.read(np.arange(48)), before)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc")
def test_peak_memory_does_not_grow_with_the_number_of_images(train, caches, tmp_path):
    folders = [tmp_path / f"{copies} copies" for copies in (10, 40)]
    for folder, copies in zip(folders, (10, 40), strict=True):
        for path in train.glob("*/*.jpg"):
            (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
            for number in range(copies):
                os.link(path, folder / path.parent.name / f"{number} {path.name}")
    done = run_python("-c", PEAK_MEMORY, caches, *folders, cwd=tmp_path, fresh=True)
    assert done.returncode == 0, done.stderr
    few, few_peak, many, many_peak = map(int, done.stdout.split())
    assert (few, many) == (480, 1920)
    assert many_peak - few_peak < 20 * 1024, f"peak {few_peak} and {many_peak} KiB; 1,440 images more are 40 MB"
