"""The nature_12K photographs: download, resume, verify, unpack.

Everything happens below one folder, and nothing that a killed process leaves there is taken for whole::

    nature_12K.zip.part             what has been downloaded so far
    nature_12K.zip.part.validator   which version of the file on the server that is
    nature_12K.zip                  the whole archive; one copied here by hand is used in place of a download
    nature_12K.zip.rejected         an archive that was damaged or unsafe
    nature_12K.unpacking/           an unpack under way
    nature_12K/                     the photographs, with a marker that says they are all there

The archive is removed once its photographs are unpacked: nothing reads it again, and it takes 3.8 GB.
"""

import errno
import os
import re
import shutil
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from urllib.parse import urlsplit

import requests
from filelock import FileLock, Timeout
from requests.exceptions import ChunkedEncodingError

from naturalist.data.listing import is_litter
from naturalist.errors import UserError
from naturalist.printable import without_secrets
from naturalist.progress import progress_bar

URL = os.environ.get("NATURALIST_NATURE_12K_URL") or "https://storage.googleapis.com/wandb_datasets/nature_12K.zip"
"""Where the archive comes from; the environment variable names a mirror instead."""

MARKER = ".complete"
"""The file in the unpacked folder that says every photograph is there."""

RETRY_SECONDS = (1, 3, 10)
"""Pauses before a broken download is taken up again; they start over whenever new bytes have arrived."""

TIMEOUT_SECONDS = (10, 60)
"""How long to wait for a connection, and for the next bytes on it."""

CHUNK = 64 * 1024
"""Bytes received at a time, which is also the most that a broken connection loses."""

MAX_EXPANSION = 100
"""Photographs hardly shrink in an archive; one that promises to grow this many times over is a zip bomb."""

BLOCK = 4096
"""Bytes by which a file's last, half-filled block may exceed its size on the disk."""

MB = 1_000_000

_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, RuntimeError)
"""What zipfile raises for damaged archives; ValueError for names, RuntimeError for encrypted members."""


def fetch_nature_12k(folder: Path, url: str = URL) -> Path:
    """Download, verify and unpack nature_12K below ``folder``; return the folder with the photographs.

    Returns at once, without the network, where that has been done before. A second process that wants the
    same waits for the first. Raises UserError where the network, the disk or the archive is at fault.
    """
    unpacked = folder / "nature_12K"
    archive = folder / "nature_12K.zip"
    if _is_whole(unpacked):
        return unpacked
    with _disk_errors_in_one_sentence(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _acquire(FileLock(folder / "nature_12K.lock")):
            if _is_whole(unpacked):  # by the process that held the lock
                return unpacked
            if unpacked.exists():
                raise UserError(
                    f"{unpacked} is not known to be whole, as it has no {MARKER} in it: pass it "
                    "with --data if it is yours, or move it away and run the same command again"
                )
            if not archive.exists():
                download(url, archive)
            unpack(archive, unpacked)
            archive.unlink()
    return unpacked


def download(url: str, archive: Path) -> None:
    """Download ``url`` to ``archive``, continuing what an earlier call began.

    Raises UserError where the server refuses, cannot be reached or keeps breaking off (what arrived is kept
    for the next call), or where the disk has too little room for the archive and the photographs in it.
    """
    part = _beside(archive, ".part")
    furthest = failures = 0
    while True:
        try:
            _receive(url, part)
            break
        except requests.RequestException as error:
            here = _size(part)
            if here > furthest:
                furthest, failures = here, 0
            problem = _explain(error, url)
            if not here:
                raise UserError(
                    f"{problem}; run the same command again later, or pass a copy of nature_12K "
                    "that you have with --data FOLDER"
                ) from error
            if failures == len(RETRY_SECONDS):
                raise UserError(
                    f"{problem}; {here / MB:,.1f} MB are in {part}: the same command continues "
                    "from there, or pass a copy that you have with --data FOLDER"
                ) from error
            pause = RETRY_SECONDS[failures]
            print(f"{without_secrets(problem)}; continuing in {pause} s", flush=True)
            time.sleep(pause)
            failures += 1
    part.replace(archive)
    _beside(part, ".validator").unlink(missing_ok=True)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack ``archive`` as ``folder``, which must not exist; it appears once every file is whole.

    Checksums are verified as the files are written. Raises UserError where the disk has too little room or
    the archive is damaged or unsafe (links, paths that lead outside, zip bombs); no file of it is left then,
    and it is moved aside so that the next call of :func:`fetch_nature_12k` downloads a new one.
    """
    unfinished = _beside(folder, ".unpacking")
    shutil.rmtree(unfinished, ignore_errors=True)  # what a killed process left
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _wanted_members(opened, archive.stat().st_size)
            _require_space(
                folder.parent, sum(member.file_size + BLOCK for member in members), f"unpacking {archive.name}"
            )
            _extract(opened, members, unfinished)
        (unfinished / MARKER).write_text(f"{len(members)} files from {archive.name}\n", encoding="utf-8")
        unfinished.replace(folder)
    except _ZIP_ERRORS as error:
        rejected = _beside(archive, ".rejected")
        archive.replace(rejected)
        raise UserError(
            f"{archive} is damaged or unsafe ({error}) and is now {rejected.name}, which may be "
            "deleted: run the same command again to download it anew"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _receive(url: str, part: Path) -> None:
    """Append to ``part`` what it lacks, or start over where the server has another file by now.

    Raises requests.RequestException where trying again may help.
    """
    validator_file = _beside(part, ".validator")
    here = _size(part)
    validator = validator_file.read_text(encoding="latin-1") if validator_file.exists() else ""
    validator = validator if validator.isprintable() and validator.isascii() else ""  # damaged: start over
    with _ask(url, here, validator) as response:
        if response.status_code == 416:
            return  # all bytes are here: the last one arrived just before an earlier process ended
        if response.status_code == 206:
            total = int(response.headers["Content-Range"].rpartition("/")[2])
        elif "Content-Length" in response.headers:
            total = int(response.headers["Content-Length"])
            # Emptied first: a process killed in between must not leave old bytes under the new validator.
            part.write_bytes(b"")
            validator_file.write_text(_validator(response), encoding="latin-1", errors="replace")
            here = 0
        else:
            raise UserError(
                f"{url} does not say how long the file is, so that a part could pass for the "
                "whole: pass a copy of nature_12K that you have with --data FOLDER"
            )
        missing = total - here
        _require_space(
            part.parent, missing + total, f"{missing / MB:,.1f} MB of download, with the photographs in it unpacked,"
        )

        print(
            f"Downloading {without_secrets(url)} to {part.parent}: {missing / MB:,.1f} of {total / MB:,.1f} MB",
            flush=True,
        )
        with part.open("ab") as file, progress_bar("Download", missing // MB, unit="MB") as bar:
            received = 0
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.advance((received + len(chunk)) // MB - received // MB)
                received += len(chunk)
    if received != missing:
        raise ChunkedEncodingError(f"{received} of {missing} bytes arrived")


def _ask(url: str, here: int, validator: str) -> requests.Response:
    """Ask for the file from byte ``here`` on; return the answer.

    Its status is 206 for what was asked, 416 where nothing is left to send, 200 for the whole file. Raises
    UserError for any other answer, requests.RequestException where trying again may help.
    """
    headers = {"Accept-Encoding": "identity"}  # so that lengths and positions are the file's own
    if here and validator:
        headers |= {"Range": f"bytes={here}-", "If-Range": validator}
    response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS)
    if "Range" in headers and response.status_code in (206, 416):
        if _continues(response, here, validator):
            return response
        response.close()
        return _ask(url, 0, "")
    if response.status_code >= 500:
        response.raise_for_status()
    if response.status_code != 200:
        raise UserError(
            f"{url} answered {response.status_code} {response.reason}: pass a copy of nature_12K "
            "that you have with --data FOLDER, or name a mirror in NATURALIST_NATURE_12K_URL"
        )
    return response


def _continues(response: requests.Response, here: int, validator: str) -> bool:
    """Whether the answer goes on at byte ``here`` of the file that ``validator`` stands for.

    Some servers send a range of a changed file in spite of If-Range.
    """
    content_range = response.headers.get("Content-Range", "")
    if response.status_code == 416:
        return content_range == f"bytes */{here}"
    return re.fullmatch(rf"bytes {here}-\d+/\d+", content_range) is not None and _validator(response) in ("", validator)


def _validator(response: requests.Response) -> str:
    """What If-Range may compare; a weak ETag does not vouch for every byte (RFC 9110, section 13.1.5)."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _explain(error: requests.RequestException, url: str) -> str:
    if isinstance(error, requests.HTTPError):
        return f"{url} answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, ValueError):
        return f"{url} is not a web address"
    if isinstance(error, ChunkedEncodingError):  # what requests raises for any body that ends early
        return f"the connection to {urlsplit(url).hostname} broke off"
    return f"no network, or {urlsplit(url).hostname} cannot be reached ({type(error).__name__})"


def _wanted_members(opened: zipfile.ZipFile, archive_size: int) -> list[zipfile.ZipInfo]:
    """The files to unpack. Raises zipfile.BadZipFile where any member, wanted or not, is unsafe."""
    for member in opened.infolist():
        path = _member_path(member)
        if not member.filename or member.header_offset < 0:  # zipfile lets these through and fails later
            raise zipfile.BadZipFile("its directory is broken")
        if path.anchor or ".." in path.parts:
            raise zipfile.BadZipFile(f"{member.filename!r} leads outside the folder")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise zipfile.BadZipFile(f"{member.filename!r} is a link or device")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"{member.filename!r} is compressed in an unusual way")
    members = [
        member
        for member in opened.infolist()
        if not member.is_dir() and not any(map(is_litter, _member_path(member).parts))
    ]
    if not members:
        raise zipfile.BadZipFile("no files in it")
    packed, declared = sum(m.compress_size for m in members), sum(m.file_size for m in members)
    if packed > archive_size or declared > MAX_EXPANSION * archive_size:
        raise zipfile.BadZipFile(f"{archive_size:,} bytes that claim to hold {declared:,}")
    return members


def _member_path(member: zipfile.ZipInfo) -> PureWindowsPath:
    """The member's path, read strictly: Windows paths know drives, and both slashes as separators."""
    return PureWindowsPath(member.filename)


def _extract(opened: zipfile.ZipFile, members: list[zipfile.ZipInfo], folder: Path) -> None:
    """Write ``members`` below ``folder``. Raises one of _ZIP_ERRORS where one is not what was declared."""
    total, done = sum(member.file_size for member in members), 0
    with progress_bar("Unpack", total // MB, unit="MB") as bar:
        for member in members:
            target = folder.joinpath(*_member_path(member).parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            # zipfile stops at the declared size and compares the checksum there, so that a member that would
            # expand beyond it is refused without being written.
            with opened.open(member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)
            if target.stat().st_size != member.file_size:
                raise zipfile.BadZipFile(f"{member.filename!r} is shorter than declared")
            bar.advance((done + member.file_size) // MB - done // MB)
            done += member.file_size


def _require_space(folder: Path, needed: int, purpose: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{purpose} needs {needed / MB:,.1f} MB and the disk that holds {folder} has "
            f"{free / MB:,.1f} MB free: make room and run the same command again"
        )


@contextmanager
def _disk_errors_in_one_sentence(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk that holds {folder} is full: make room and run the same command "
                "again, which continues what was begun"
            ) from error
        raise UserError(f"nature_12K cannot be stored in {folder}: {error.strerror or error}") from error


@contextmanager
def _acquire(lock: FileLock) -> Iterator[None]:
    """Hold ``lock``, saying so where another process has it."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("Waiting for another process that fetches nature_12K", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _is_whole(unpacked: Path) -> bool:
    return (unpacked / MARKER).is_file()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
