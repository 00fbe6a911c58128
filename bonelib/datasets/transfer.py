"""An address -> a whole file, continued where an earlier try broke off.

What has come so far lies in `<file>.part`; the file itself appears when its checksum is right.
"""

import errno
import os
import re
import shutil
import time
from pathlib import Path

import pooch
import requests
from tqdm import tqdm

from bonelib.errors import InputError

TIMEOUT_SECONDS = (15, 60)  # to connect, and between two pieces
TRIES = 4  # in a row that bring nothing new
WAIT_SECONDS = 3.0  # before the second try; each further one waits twice as long
KEEP_FREE_BYTES = 2**30  # of the disk, for everybody else

_CHUNK_BYTES = 2**16  # less than one is lost when a connection breaks off
_HEADERS = {"Accept-Encoding": "identity"}  # or sizes would be those of a compressed stream
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


class _BrokenError(Exception):
    """The connection broke off or the server is busy: worth another try."""


def part_of(file: Path) -> Path:
    """Return the path of what has come so far of a file."""
    return file.with_name(f"{file.name}.part")


def is_whole(file: Path, checksum: str) -> bool:
    """Tell whether a file is there with the right checksum, given as algorithm:digits."""
    algorithm, _, digits = checksum.partition(":")
    return file.is_file() and pooch.file_hash(str(file), alg=algorithm) == digits.lower()


def check_space(directory: Path, sizes_bytes: dict[Path, int]) -> None:
    """Raise InputError where the disk has no room for what is missing of the files."""
    missing = sum(size - _length(part_of(file)) for file, size in sizes_bytes.items())
    free = shutil.disk_usage(directory).free - KEEP_FREE_BYTES
    if missing > free:
        raise InputError(
            f"{directory}: {_gb(missing)} are to come and {_gb(max(free, 0))} may be used on the "
            "disk; free some space or give another folder"
        )


def record(url: str) -> dict:
    """Return the JSON that a server answers with; InputError where it does not."""
    try:
        return _ask("GET", url).json()
    except requests.JSONDecodeError as error:
        raise InputError(f"{url}: makes no sense; try again later") from error


def declared_bytes(url: str) -> int:
    """Return the size that a server says a file has; InputError where it does not."""
    length = _ask("HEAD", url).headers.get("Content-Length", "")
    if not length.isdecimal():
        raise InputError(f"{url}: the server does not tell the size; choose another mirror")
    return int(length)


def fetch(url: str, file: Path, size_bytes: int, checksum: str) -> None:
    """Fetch a file of known size and checksum, going on from what has come before.

    Raises InputError for a server that refuses or has another file, a connection that stays
    broken, a full disk and a wrong checksum; only the last loses what has come.
    """
    _check_address(url)
    part = part_of(file)
    try:
        _fill(url, part, size_bytes)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise InputError(
                f"{part}: cannot be written; check that you may write there"
            ) from error
        raise InputError(
            f"{part}: the disk is full; free some space, then the same command goes on"
        ) from error
    if not is_whole(part, checksum):
        part.unlink()
        raise InputError(
            f"{file}: {url} sent a file of another checksum, which is removed; try again or "
            "from another mirror"
        )
    os.replace(part, file)


def _ask(method: str, url: str) -> requests.Response:
    _check_address(url)
    try:
        response = requests.request(
            method, url, headers=_HEADERS, timeout=TIMEOUT_SECONDS, allow_redirects=True
        )
    except requests.RequestException as error:
        raise InputError(f"{url}: no answer; check the connection and try again") from error
    if response.status_code != 200:
        raise _refused(url, response)
    return response


def _fill(url: str, part: Path, size_bytes: int) -> None:
    if _length(part) > size_bytes:
        part.unlink()
    failures, best = 0, _length(part)  # a server that begins anew each time makes no progress
    with tqdm(
        desc=part.stem, total=size_bytes, initial=_length(part), unit="B", unit_scale=True
    ) as bar:
        while _length(part) < size_bytes:
            try:
                _continue(url, part, size_bytes, bar)
            except (_BrokenError, requests.RequestException) as error:
                failures = 0 if _length(part) > best else failures + 1
                best = max(best, _length(part))
                if failures == TRIES:
                    raise InputError(
                        f"{url}: the connection broke off after {_length(part)} of {size_bytes} "
                        "bytes; the same command goes on from there"
                    ) from error
                time.sleep(WAIT_SECONDS * 2 ** max(failures - 1, 0))


def _continue(url: str, part: Path, size_bytes: int, bar: tqdm) -> None:
    """Append to `part` what one answer of the server brings."""
    start = _length(part)
    headers = _HEADERS | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, headers=headers, timeout=TIMEOUT_SECONDS, stream=True) as response:
        status = response.status_code
        if status in _TRANSIENT:
            raise _BrokenError
        if status == 416 or (status == 206 and not _fits(response, start, size_bytes)):
            part.unlink(missing_ok=True)  # not the file of which this is a part
            bar.reset()
            raise _BrokenError
        if status not in (200, 206):
            raise _refused(url, response)
        if status == 200:
            _check_size(url, response, size_bytes)
            start = 0  # the server cannot go on in the middle
            bar.reset()
        with part.open("ab" if start else "wb") as target:
            for piece in response.iter_content(_CHUNK_BYTES):
                piece = piece[: size_bytes - target.tell()]
                target.write(piece)
                bar.update(len(piece))
                if target.tell() == size_bytes:
                    return
    raise _BrokenError


def _fits(response: requests.Response, start: int, size_bytes: int) -> bool:
    """Tell whether a part of a file is the one that was asked for, of a file of this size."""
    text = response.headers.get("Content-Range", "")
    parts = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", text)
    return bool(parts) and int(parts[1]) == start and parts[3] in ("*", str(size_bytes))


def _check_size(url: str, response: requests.Response, size_bytes: int) -> None:
    declared = response.headers.get("Content-Length", str(size_bytes))
    if declared != str(size_bytes):
        raise InputError(
            f"{url}: is a file of {declared} bytes instead of {size_bytes}; try again later or "
            "from another mirror"
        )


def _check_address(url: str) -> None:
    if not re.match(r"https?://[^/\s]+", url):
        raise InputError(f"{ascii(url)}: is no web address; give one that begins with https://")


def _refused(url: str, response: requests.Response) -> InputError:
    return InputError(
        f"{url}: the server answers {response.status_code}; try again later or give a mirror"
    )


def _length(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
