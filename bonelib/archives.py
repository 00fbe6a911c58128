"""Zip or tar -> files, of which none escapes the folder they go to.

Whoever sent an archive is not trusted: sizes are counted as the bytes come, names are looked
at before a file is opened, and a folder that appears is whole.
"""

import bz2
import errno
import gzip
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import psutil
from tqdm import tqdm

from bonelib.errors import InputError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

MAX_MEMBERS = 2_000_000  # the largest public set, of 1939 scans, has about 230,000
MAX_RATIO = 800  # of bytes unpacked to packed; PENGWIN's label maps have 390, a bomb 1000 or more
SMALLEST_BOMB_BYTES = 2**30  # less may have any ratio: a short archive of zeros is no harm
MAX_TEMPORARY_BYTES = 2**36  # 64 GiB, twenty times the largest CT series
KEEP_FREE_BYTES = 2**30  # of the disk, for everybody else
LARGE_BYTES = 2**28  # an archive from here on shows its progress

_CHUNK_BYTES = 2**20
_TAR_BLOCK_BYTES = 512
_MAX_HEADER_BYTES = 2**24  # a tar's long names and extended headers are read in one piece
_JUNK = re.compile(r"(^|/)(\._|__MACOSX(/|$))")  # what macOS adds

Wanted = Callable[[str], bool]  # a member's name, with / between folders -> whether it is needed

_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, struct.error,
    ValueError, OSError,
)  # fmt: skip


def is_archive(path: Path | str) -> bool:
    """Tell an archive by its name; whether it is a sound one, `unpack` finds out."""
    path = Path(path)
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def everything(_: str) -> bool:
    """Want every member."""
    return True


def unpack(archive: Path | str, directory: Path | str, wanted: Wanted = everything) -> None:
    """Unpack the members whose name is `wanted` to a new folder, in one step.

    Raises InputError for a folder that is there already, a damaged, encrypted or dangerous
    archive, and one that needs more than the free disk.
    """
    archive, directory = Path(archive), Path(directory)
    if directory.exists():
        raise InputError(f"{directory}: is there already; remove it to unpack {archive.name} anew")
    directory.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(directory)
    scratch = directory.with_name(f".{os.getpid()}-{directory.name}")
    scratch.mkdir()
    try:
        _extract(archive, scratch, wanted, max_bytes=None)
        scratch.rename(directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def unpacked(archive: Path | str, wanted: Wanted = everything) -> Iterator[Path]:
    """Yield a temporary folder with an archive's members; it goes when the block ends.

    Raises InputError as `unpack` does, and for more than `MAX_TEMPORARY_BYTES`.
    """
    with tempfile.TemporaryDirectory(prefix="bonelib-") as folder:
        _extract(Path(archive), Path(folder), wanted, MAX_TEMPORARY_BYTES)
        yield Path(folder)


@dataclass(frozen=True)
class _Member:
    """One entry of an archive, not read yet."""

    name: str  # with / between folders
    is_folder: bool
    is_file: bool  # neither: a link or a device
    open: Callable[[], BinaryIO]


class _Budget:
    """How much an archive may still unpack, counted as it comes."""

    def __init__(self, archive: Path, directory: Path, max_bytes: int | None):
        self.archive = archive
        self.archive_bytes = archive.stat().st_size
        self.max_bytes = max_bytes
        self.free_bytes = shutil.disk_usage(directory).free - KEEP_FREE_BYTES
        self.written_bytes = self.members = 0

    def count_member(self) -> None:
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise InputError(
                f"{self.archive}: holds more than {MAX_MEMBERS} files, as no data set does; "
                "get it again from its source"
            )

    def spend(self, count: int) -> None:
        self.written_bytes += count
        self.check(self.written_bytes)

    def check(self, total: int) -> None:
        """Raise InputError where `total` bytes are more than there may be."""
        if total > max(SMALLEST_BOMB_BYTES, MAX_RATIO * self.archive_bytes):
            raise InputError(
                f"{self.archive}: unpacks to more than {MAX_RATIO} times its size, as a "
                "decompression bomb does; get it again from its source"
            )
        if self.max_bytes is not None and total > self.max_bytes:
            raise InputError(
                f"{self.archive}: unpacks to more than {_gib(self.max_bytes)}; unpack it yourself "
                "and give the folder"
            )
        if total > self.free_bytes:
            raise InputError(
                f"{self.archive}: unpacks to more than the {_gib(max(self.free_bytes, 0))} that "
                "may be used on the disk; free some space"
            )


def _extract(archive: Path, directory: Path, wanted: Wanted, max_bytes: int | None) -> None:
    try:
        budget = _Budget(archive, directory, max_bytes)
        with (
            archive.open("rb") as packed,
            tqdm(
                desc=f"unpacking {archive.name}", total=budget.archive_bytes, unit="B",
                unit_scale=True, disable=budget.archive_bytes < LARGE_BYTES,
            ) as bar,
        ):  # fmt: skip
            read = _zip_members if _first_bytes(packed).startswith(b"PK") else _tar_members
            for member in read(packed, budget, wanted):
                budget.count_member()
                _check_name(archive, member)
                if member.is_file and _is_needed(member.name, wanted):
                    _write(member, directory / member.name, budget)
                bar.update(max(packed.tell() - bar.n, 0))
    except InputError:
        raise
    except FileExistsError as error:
        raise InputError(
            f"{archive}: holds two files of one name; get it again from its source"
        ) from error
    except (NotImplementedError, RuntimeError) as error:  # zipfile's for an unknown method
        raise InputError(
            f"{archive}: is packed by a method that cannot be read here; unpack it yourself and "
            "give the folder"
        ) from error
    except _DAMAGE as error:
        raise InputError(f"{archive}: {_reason(error)}") from error


def _is_needed(name: str, wanted: Wanted) -> bool:
    return not _JUNK.search(name) and wanted(name)


def _zip_members(packed: BinaryIO, budget: _Budget, wanted: Wanted) -> Iterator[_Member]:
    with zipfile.ZipFile(packed) as opened:
        entries = opened.infolist()
        if any(entry.flag_bits & 1 for entry in entries):
            raise InputError(
                f"{budget.archive}: is encrypted; unpack it with its password and give the folder"
            )
        # What is declared may be a lie, but where it is too much there is no need to begin.
        needed = [entry for entry in entries if _is_needed(_posix(entry.filename), wanted)]
        budget.check(sum(entry.file_size for entry in needed))
        for entry in entries:
            mode = entry.external_attr >> 16
            special = stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR)
            yield _Member(
                _posix(entry.filename),
                entry.is_dir(),
                not entry.is_dir() and not special,
                lambda entry=entry: opened.open(entry),
            )


class _Guarded:
    """A stream for tarfile, which would read a header of any size into memory at once."""

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.HeaderError
        return self.stream.read(size)


def _tar_members(packed: BinaryIO, _: _Budget, wanted: Wanted) -> Iterator[_Member]:
    stream = _Guarded(_decompressed(packed))
    with tarfile.open(fileobj=stream, mode="r:") as opened:
        for entry in opened:
            yield _Member(
                _posix(entry.name),
                entry.isdir(),
                entry.isreg(),
                lambda entry=entry: opened.extractfile(entry),
            )
        # Python takes a cut or a damaged header for the end, which really is a block of zeros.
        stream.seek(opened.offset)
        if stream.read(_TAR_BLOCK_BYTES) != bytes(_TAR_BLOCK_BYTES):
            raise EOFError
        stream.read(_CHUNK_BYTES)  # to the end, where the checksum of the compressed stream is


def _decompressed(packed: BinaryIO) -> BinaryIO:
    """Return the stream of a tar, whose compression is told by its first bytes."""
    start = _first_bytes(packed)
    for magic, opener in ((b"\x1f\x8b", gzip), (b"BZh", bz2), (b"\xfd7zXZ\0", lzma)):
        if start.startswith(magic):
            return opener.open(packed)
    return packed


def _first_bytes(packed: BinaryIO) -> bytes:
    start = packed.read(6)
    packed.seek(0)
    return start


def _check_name(archive: Path, member: _Member) -> None:
    """Raise InputError for a member that could write elsewhere or that is no plain file."""
    name = member.name
    if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in PurePosixPath(name).parts:
        what = f"a name that leads out of the folder ({ascii(name)})"
    elif not (member.is_file or member.is_folder):
        what = f"a link or a device ({ascii(name)})"
    else:
        return
    raise InputError(f"{archive}: holds {what}; get it from a source that you trust")


def _posix(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def _write(member: _Member, file: Path, budget: _Budget) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as source, file.open("xb") as target:
        while part := source.read(_CHUNK_BYTES):
            budget.spend(len(part))
            target.write(part)


def _remove_leftovers(directory: Path) -> None:
    """Remove what processes that were killed have left of unpacking to `directory`."""
    for scratch in directory.parent.glob(f".*-{directory.name}"):
        number = scratch.name[1:].split("-", 1)[0]
        if scratch.is_dir() and number.isdecimal() and not psutil.pid_exists(int(number)):
            shutil.rmtree(scratch, ignore_errors=True)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full; free some space"
    if isinstance(error, PermissionError | FileNotFoundError):
        return "cannot be read; check that it is there and that you may read it"
    return "is damaged or incomplete; get it again"


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
