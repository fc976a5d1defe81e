"""What fetching nature_12K promises, against a server on the loopback interface."""

import errno
import io
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from naturalist.data.sources import nature12k
from naturalist.data.sources.nature12k import CHUNK, fetch_nature_12k, unpack
from naturalist.errors import UserError

FETCH = """
import os, shutil, sys
from pathlib import Path
from naturalist.data.sources.nature12k import fetch_nature_12k
{first}
fetch_nature_12k(Path({folder!r}))
"""
"""A program that fetches, for tests that need several processes or one that dies."""


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.body`` with ranges, as well or as badly as the server's switches say."""

    def do_GET(self):
        server = self.server
        server.requests.append({name: self.headers.get(name) for name in ("Range", "If-Range")})
        time.sleep(server.delay)
        if server.status:
            self.send_error(server.status)
            return
        start, total = 0, len(server.body)
        same_file = server.ignores_if_range or self.headers.get("If-Range") in (None, server.etag)
        if server.ranges and self.headers.get("Range") and same_file:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            self.send_response(200)
        if server.etag:
            self.send_header("ETag", server.etag)
        self.send_header("Content-Length", str(total - start))
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else None
        piece = server.body[start:] if cut is None else server.body[start : start + cut]
        self.wfile.write(piece)
        server.sent += len(piece)
        if cut is not None and server.resets:
            time.sleep(0.1)  # or the reset would overtake what was sent
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def log_message(self, *args):
        """Keep quiet."""


@pytest.fixture(scope="module")
def archive() -> bytes:
    """A small archive of nature_12K's shape, litter included."""
    return make_archive(seed=0)


def make_archive(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("inaturalist_12K/.DS_Store", b"litter" * 100)
        for split, count in (("train", 4), ("val", 2)):
            for name in ("Aves", "Fungi", "Plantae"):
                zipped.writestr(f"inaturalist_12K/{split}/{name}/", b"")
                zipped.writestr(f"inaturalist_12K/{split}/{name}/.DS_Store", b"litter")
                for _ in range(count):
                    photo = io.BytesIO()
                    pixels = rng.integers(0, 256, (192, 256, 3), np.uint8)
                    Image.fromarray(pixels).save(photo, "JPEG", quality=90)
                    path = f"inaturalist_12K/{split}/{name}/{rng.bytes(16).hex()}.jpg"
                    zipped.writestr(path, photo.getvalue())
                    zipped.writestr(f"__MACOSX/{path}", b"litter")
    return buffer.getvalue()


@pytest.fixture
def server(archive, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(nature12k, "RETRY_SECONDS", (0, 0, 0))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.body, server.etag = archive, '"first"'
    server.ranges, server.ignores_if_range = True, False
    server.status, server.delay = None, 0
    server.cuts, server.resets = [], False
    server.requests, server.sent = [], 0
    server.url = f"http://127.0.0.1:{server.server_port}/nature_12K.zip"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def zipped_photos(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
        return {
            name: zipped.read(name)
            for name in zipped.namelist()
            if name.endswith(".jpg") and not name.startswith("__MACOSX")
        }


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != nature12k.MARKER
    }


def fetch_in_process(folder: Path, url: str, first: str) -> subprocess.Popen:
    """A process that fetches nature_12K once it has executed ``first``."""
    return subprocess.Popen(
        [sys.executable, "-c", FETCH.format(first=first, folder=str(folder))],
        text=True,
        env=os.environ | {"NATURALIST_NATURE_12K_URL": url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def start_a_download(tmp_path, server, monkeypatch):
    """Leave half of the archive in ``tmp_path``, as a process that gave up does."""
    server.cuts = [len(server.body) // 2]
    with monkeypatch.context() as patch, pytest.raises(UserError):
        patch.setattr(nature12k, "RETRY_SECONDS", ())
        fetch_nature_12k(tmp_path, server.url)
    assert (tmp_path / "nature_12K.zip.part").stat().st_size > 0
    server.requests.clear()
    server.sent = 0


def test_photos_arrive_without_litter_and_the_archive_is_gone(tmp_path, server, archive):
    unpacked = fetch_nature_12k(tmp_path / "new" / "folder", server.url)
    assert unpacked == tmp_path / "new" / "folder" / "nature_12K"
    assert files(unpacked) == zipped_photos(archive)
    assert {path.name for path in unpacked.parent.iterdir()} <= {"nature_12K", "nature_12K.lock"}


def test_second_call_needs_no_network(tmp_path, server):
    first = fetch_nature_12k(tmp_path, server.url)
    assert fetch_nature_12k(tmp_path, "http://127.0.0.1:9/") == first
    assert len(server.requests) == 1


def test_archive_copied_by_hand_needs_no_network(tmp_path, archive):
    (tmp_path / "nature_12K.zip").write_bytes(archive)
    assert files(fetch_nature_12k(tmp_path, "http://127.0.0.1:9/")) == zipped_photos(archive)


@pytest.mark.parametrize("resets", [False, True], ids=["closed", "reset"])
def test_broken_download_resumes_where_it_stopped(tmp_path, server, archive, resets):
    server.cuts, server.resets = [len(archive) // 2, len(archive) // 4], resets
    assert files(fetch_nature_12k(tmp_path, server.url)) == zipped_photos(archive)
    starts = [request["Range"] for request in server.requests]
    assert starts[0] is None and len(starts) == 3
    second, third = (int(start.removeprefix("bytes=").removesuffix("-")) for start in starts[1:])
    assert len(archive) // 2 - CHUNK <= second <= len(archive) // 2
    assert second + len(archive) // 4 - CHUNK <= third <= second + len(archive) // 4
    assert len(archive) <= server.sent <= len(archive) + 2 * CHUNK


def test_download_that_keeps_breaking_says_how_much_is_there_and_continues(tmp_path, server, archive):
    server.cuts = [len(archive) // 2, 0, 0, 0]
    with pytest.raises(UserError, match=r"broke off; \d+\.\d MB are in .*\.part: the same command continues"):
        fetch_nature_12k(tmp_path, server.url)
    assert len(server.requests) == 4
    here = (tmp_path / "nature_12K.zip.part").stat().st_size
    fetch_nature_12k(tmp_path, server.url)
    assert server.requests[-1] == {"Range": f"bytes={here}-", "If-Range": '"first"'}


def test_truncated_body_is_not_taken_for_whole(tmp_path, server, archive):
    server.ranges, server.cuts = False, [len(archive) - 1] * 4
    with pytest.raises(UserError, match="broke off"):
        fetch_nature_12k(tmp_path, server.url)
    assert not (tmp_path / "nature_12K.zip").exists()


@pytest.mark.parametrize("ignores_if_range", [False, True])
def test_changed_file_starts_over_and_is_never_spliced(tmp_path, server, monkeypatch, ignores_if_range):
    start_a_download(tmp_path, server, monkeypatch)
    server.body, server.etag, server.ignores_if_range = make_archive(seed=1), '"second"', ignores_if_range
    assert files(fetch_nature_12k(tmp_path, server.url)) == zipped_photos(server.body)


@pytest.mark.parametrize("etag", ['W/"weak"', ""], ids=["weak", "none"])
def test_file_that_cannot_be_told_from_a_changed_one_starts_over(tmp_path, server, archive, monkeypatch, etag):
    server.etag = etag
    start_a_download(tmp_path, server, monkeypatch)
    assert files(fetch_nature_12k(tmp_path, server.url)) == zipped_photos(archive)
    assert server.requests == [{"Range": None, "If-Range": None}]


def test_server_without_ranges_starts_over(tmp_path, server, archive):
    server.ranges, server.cuts = False, [len(archive) // 2]
    assert files(fetch_nature_12k(tmp_path, server.url)) == zipped_photos(archive)
    assert server.sent == len(archive) // 2 + len(archive)


def test_download_killed_after_its_last_byte_is_not_repeated(tmp_path, server, archive, monkeypatch):
    start_a_download(tmp_path, server, monkeypatch)
    (tmp_path / "nature_12K.zip.part").write_bytes(archive)
    assert files(fetch_nature_12k(tmp_path, server.url)) == zipped_photos(archive)
    assert server.sent == 0


def test_part_longer_than_the_file_starts_over(tmp_path, server, archive, monkeypatch):
    start_a_download(tmp_path, server, monkeypatch)
    (tmp_path / "nature_12K.zip.part").write_bytes(archive + b"more")
    assert files(fetch_nature_12k(tmp_path, server.url)) == zipped_photos(archive)


@pytest.mark.parametrize("status", [404, 503])
def test_http_error_is_one_sentence(tmp_path, server, status):
    server.status = status
    with pytest.raises(UserError, match=f"answered {status} .*--data FOLDER"):
        fetch_nature_12k(tmp_path, server.url)
    assert len(server.requests) == 1


def test_no_network_is_one_sentence(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening, so that a connection is refused
        with pytest.raises(UserError, match="no network, or 127.0.0.1 cannot be reached .*--data FOLDER"):
            fetch_nature_12k(tmp_path, f"http://127.0.0.1:{unused.getsockname()[1]}/nature_12K.zip")


def test_address_that_is_none_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="nature_12K.zip is not a web address"):
        fetch_nature_12k(tmp_path, "nature_12K.zip")


def test_full_disk_is_told_before_the_download(tmp_path, server, archive, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, len(archive)))
    megabytes = len(archive) / 1e6
    with pytest.raises(UserError, match=f"needs {2 * megabytes:.1f} MB .* {megabytes:.1f} MB free: make"):
        fetch_nature_12k(tmp_path, server.url)
    assert not (tmp_path / "nature_12K.zip").exists()


def test_full_disk_is_told_before_unpacking_and_keeps_the_archive(tmp_path, archive, monkeypatch):
    (tmp_path / "nature_12K.zip").write_bytes(archive)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 1000))
    with pytest.raises(UserError, match=r"unpacking nature_12K.zip needs .* MB .* 0.0 MB free"):
        fetch_nature_12k(tmp_path, "")
    assert (tmp_path / "nature_12K.zip").read_bytes() == archive


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_disk_that_fills_up_during_the_download_is_one_sentence(tmp_path, server):
    (tmp_path / "nature_12K.zip.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match=f"the disk that holds {tmp_path} is full: make room"):
        fetch_nature_12k(tmp_path, server.url)


def test_disk_that_fills_up_while_unpacking_is_one_sentence(tmp_path, archive, monkeypatch):
    def full(source, file):
        file.write(source.read(100))
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "nature_12K.zip").write_bytes(archive)
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(UserError, match=f"the disk that holds {tmp_path} is full: make room"):
        fetch_nature_12k(tmp_path, "")
    assert files(tmp_path).keys() - {"nature_12K.lock"} == {"nature_12K.zip"}


def test_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be stored in .*file"):
        fetch_nature_12k(tmp_path / "file" / "below", "")


def test_folder_of_unknown_origin_is_left_alone(tmp_path):
    (tmp_path / "nature_12K" / "mine").mkdir(parents=True)
    with pytest.raises(UserError, match="nature_12K is not known to be whole"):
        fetch_nature_12k(tmp_path, "")
    assert (tmp_path / "nature_12K" / "mine").exists()


def damaged(archive: bytes) -> bytes:
    """The archive with one byte of a photograph flipped."""
    with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
        member = max(zipped.infolist(), key=lambda member: member.compress_size)
    middle = member.header_offset + member.compress_size // 2
    return archive[:middle] + bytes([archive[middle] ^ 0xFF]) + archive[middle + 1 :]


def misdeclared(archive: bytes) -> bytes:
    """The archive with its largest photograph declared a thousand bytes shorter than it is."""
    with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
        member = max(zipped.infolist(), key=lambda member: member.file_size)
    sizes = struct.pack("<II", member.compress_size, member.file_size)
    smaller = struct.pack("<II", member.compress_size, member.file_size - 1000)
    position = archive.rindex(sizes)  # in the directory at the archive's end
    return archive[:position] + smaller + archive[position + len(sizes) :]


@pytest.mark.parametrize(
    "spoil",
    [damaged, misdeclared, lambda whole: whole[:-1000], lambda whole: b""],
    ids=["flipped byte", "misdeclared size", "truncated", "empty"],
)
def test_damaged_archive_is_refused_and_named(tmp_path, server, archive, spoil):
    (tmp_path / "nature_12K.zip").write_bytes(spoil(archive))
    with pytest.raises(UserError, match=r"nature_12K\.zip is damaged or unsafe .* download it anew"):
        fetch_nature_12k(tmp_path, server.url)
    assert files(tmp_path).keys() - {"nature_12K.lock"} == {"nature_12K.zip.rejected"}
    assert files(fetch_nature_12k(tmp_path, server.url)) == zipped_photos(archive)


def link() -> zipfile.ZipInfo:
    member = zipfile.ZipInfo("inaturalist_12K/train")
    member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize(
    "evil",
    [
        "/absolute.jpg",
        "../above.jpg",
        "train/../../above.jpg",
        "C:/drive.jpg",
        "C:drive.jpg",
        "..\\above.jpg",
        "\\\\host\\share\\photo.jpg",
        "__MACOSX/../../above",
        link(),
    ],
    ids=lambda evil: "link" if isinstance(evil, zipfile.ZipInfo) else evil,
)
def test_archive_cannot_write_outside_its_folder(tmp_path, evil, monkeypatch):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    with zipfile.ZipFile(inside / "nature_12K.zip", "w") as zipped:
        zipped.writestr("inaturalist_12K/train/Aves/good.jpg", b"photo")
        zipped.writestr(evil, b"../../..")
    monkeypatch.setattr(nature12k, "_extract", lambda *args: pytest.fail("something was written"))
    with pytest.raises(UserError, match="damaged or unsafe"):
        unpack(inside / "nature_12K.zip", inside / "nature_12K")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b", "nature_12K.zip.rejected"]


def test_zip_bomb_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "nature_12K.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("inaturalist_12K/train/Aves/bomb.jpg", bytes(10_000_000))
    with pytest.raises(UserError, match="claim to hold 10,000,000"):
        unpack(tmp_path / "nature_12K.zip", tmp_path / "nature_12K")


def test_killed_unpack_leaves_nothing_taken_for_whole(tmp_path, server, archive):
    die = (
        "copy, copied = shutil.copyfileobj, []\n"
        "def copy_three(source, file):\n"
        "    copy(source, file); copied.append(file)\n"
        "    if len(copied) == 3: os._exit(9)\n"
        "shutil.copyfileobj = copy_three\n"
    )
    with fetch_in_process(tmp_path, server.url, first=die) as process:
        assert process.wait() == 9
    assert list((tmp_path / "nature_12K.unpacking").rglob("*.jpg"))
    assert not (tmp_path / "nature_12K").exists()
    assert files(fetch_nature_12k(tmp_path, server.url)) == zipped_photos(archive)
    assert len(server.requests) == 1
    assert not (tmp_path / "nature_12K.unpacking").exists()


def test_two_processes_download_once(tmp_path, server, archive):
    server.delay = 0.5
    wait = "print('ready', flush=True); sys.stdin.readline()"  # so that both begin in the same moment
    with fetch_in_process(tmp_path, server.url, wait) as one, fetch_in_process(tmp_path, server.url, wait) as two:
        assert [process.stdout.readline() for process in (one, two)] == ["ready\n"] * 2
        for process in (one, two):
            process.stdin.write("\n")
            process.stdin.flush()
        told = one.stdout.read() + two.stdout.read()
    assert (one.returncode, two.returncode) == (0, 0)
    assert told.count("Downloading") == 1
    assert len(server.requests) == 1
    assert files(tmp_path / "nature_12K") == zipped_photos(archive)
