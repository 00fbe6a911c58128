"""Unpack a zip or tar safely: nothing outside the folder, nothing larger than the disk."""

import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bonelib.errors import InputError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

MAX_RATIO = 800  # unpacked to packed bytes; label maps reach 390, a decompression bomb 1000
HARMLESS_BYTES = KEEP_FREE_BYTES = 2**30  # of a short bomb; of the disk, for everything else


def is_archive(path: Path) -> bool:
    """Tell an archive by its name."""
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """Yield a temporary folder with the files of an archive.

    Raises InputError for an archive that is damaged, encrypted, too large for the disk, or
    that holds a path or a link out of its folder.
    """
    unpack = _unpack_zip if archive.name.lower().endswith(".zip") else _unpack_tar
    with tempfile.TemporaryDirectory(prefix="bonelib-") as folder:
        try:
            unpack(archive, folder)
        except Exception as error:  # zipfile, tarfile and the decompressors have many types
            reason = " ".join(str(error).split()) or "damaged"
            raise InputError(
                f"{archive}: cannot be unpacked ({reason}); get it again, or unpack it yourself "
                "and give the folder"
            ) from error
        yield Path(folder)


def _unpack_zip(archive: Path, folder: str) -> None:
    with zipfile.ZipFile(archive) as packed:
        members = packed.infolist()
    _check_size(archive, folder, sum(member.file_size for member in members))
    for member in members:
        if ".." in member.filename or Path(member.filename).is_absolute():
            # shutil would leave the file out without a word.
            raise ValueError(f"{ascii(member.filename)} is outside the destination")
    shutil.unpack_archive(archive, folder, "zip")


def _unpack_tar(archive: Path, folder: str) -> None:
    with tarfile.open(archive) as packed:
        members = packed.getmembers()
        if packed.offset + tarfile.BLOCKSIZE > packed.fileobj.seek(0, 2):
            raise tarfile.ReadError("unexpected end of data")  # tarfile takes it for the end
    _check_size(archive, folder, sum(member.size for member in members))
    shutil.unpack_archive(archive, folder, "tar", filter="data")


def _check_size(archive: Path, folder: str, unpacked_bytes: int) -> None:
    """Raise ValueError for a decompression bomb, and for more than the disk has to spare."""
    if unpacked_bytes > max(HARMLESS_BYTES, MAX_RATIO * archive.stat().st_size):
        raise ValueError(f"more than {MAX_RATIO} times its size, as a decompression bomb")
    if unpacked_bytes > shutil.disk_usage(folder).free - KEEP_FREE_BYTES:
        raise ValueError(f"{unpacked_bytes / 2**30:.1f} GiB, more than the disk has to spare")
