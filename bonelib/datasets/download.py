"""The name of a public data set and a folder -> its archives there, whole."""

import dataclasses
from pathlib import Path

from bonelib.datasets import transfer
from bonelib.datasets.catalogue import CATALOGUE, File, Release
from bonelib.errors import InputError

ZENODO = "https://zenodo.org"


def download(
    name: str, directory: Path | str, variant: str | None = None, mirror: str | None = None
) -> list[Path]:
    """Fetch the archives of a data set into a folder and return their paths.

    `variant` is one of the release's, the first where none is given; `mirror` is the address
    of a folder with the same files. What is there and whole is not fetched again, and what
    broke off goes on. Raises InputError for an unknown name, for a data set that its owner
    hands out otherwise, which says how, and for all that goes wrong on the way.
    """
    release = _release(name, variant)
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{directory}: cannot be made a folder; give one that you may write to"
        ) from error
    urls = {file.name: _url(release, file, mirror) for file in release.files}
    missing = [
        file
        for file in release.files
        if not (file.checksum and transfer.is_whole(directory / file.name, file.checksum))
    ]
    if mirror and all(file.checksum for file in missing):
        described = [_sized(file, urls[file.name]) for file in missing]
    else:
        described = _described(release, missing)
    missing = [
        file for file in described if not transfer.is_whole(directory / file.name, file.checksum)
    ]
    transfer.check_space(directory, {directory / file.name: file.size_bytes for file in missing})
    for file in missing:
        transfer.fetch(urls[file.name], directory / file.name, file.size_bytes, file.checksum)
    return [directory / file.name for file in release.files]


def _release(name: str, variant: str | None) -> Release:
    if name not in CATALOGUE:
        raise InputError(f"unknown data set '{name}'; choose one of {', '.join(CATALOGUE)}")
    releases = CATALOGUE[name].releases
    variant = next(iter(releases)) if variant is None else variant
    if variant not in releases:
        known = ", ".join(filter(None, releases)) or "none: leave it out"
        raise InputError(f"{name}: has no variant '{variant}'; choose one of {known}")
    release = releases[variant]
    if isinstance(release, str):
        raise InputError(f"{name}: cannot be fetched by a program; {release}")
    return release


def _url(release: Release, file: File, mirror: str | None) -> str:
    folder = mirror.rstrip("/") if mirror else f"{ZENODO}/records/{release.record}/files"
    return f"{folder}/{file.name}"


def _sized(file: File, url: str) -> File:
    """Return the file with the size that a mirror says, where the catalogue has none."""
    return dataclasses.replace(file, size_bytes=file.size_bytes or transfer.declared_bytes(url))


def _described(release: Release, files: list[File]) -> list[File]:
    """Return the files with size and checksum, which the record gives where the catalogue lacks."""
    if all(file.checksum and file.size_bytes for file in files):
        return files
    url = f"{ZENODO}/api/records/{release.record}"
    record = transfer.record(url)
    try:
        listed = {
            item["key"]: (str(item["checksum"]), int(item["size"])) for item in record["files"]
        }
        return [
            File(
                file.name,
                file.checksum or listed[file.name][0],
                file.size_bytes or listed[file.name][1],
            )
            for file in files
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{url}: does not list the data set's files; try again later") from error
