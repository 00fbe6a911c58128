"""The archives of a download -> folders below data/raw, unpacked once.

The folder that holds the archives is the user's and stays as it is.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from bonelib import archives, paths, provenance
from bonelib.errors import InputError

MARKER = "archives.json"  # name of each archive that is unpacked: its size and time


def archives_in(directory: Path) -> list[Path]:
    """Return the archives that lie in a folder itself, sorted."""
    return sorted(entry for entry in directory.iterdir() if archives.is_archive(entry))


def unpacked_root(
    dataset: str, directory: Path, packed: list[Path], wanted: Callable[[str], bool]
) -> Path:
    """Unpack the members `wanted` of each archive to a folder of its own, and return their root.

    What was unpacked from an archive of the same size and time is left as it is; what came
    from one that has changed or gone is removed.
    """
    root = paths.raw_public(dataset, directory)
    states = {
        archive.name: [archive.stat().st_size, archive.stat().st_mtime_ns] for archive in packed
    }
    folders = {archive.name: root / _stem(archive.name) for archive in packed}
    if len(set(folders.values())) < len(folders):
        raise InputError(f"{directory}: two archives differ by their suffix only; keep one of them")
    done = provenance.read_json(root / MARKER)
    for name in list(done):
        folder = root / _stem(name)
        if done[name] != states.get(name) or not folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
            del done[name]
    for archive in packed:
        if archive.name not in done:
            # Noted before, so that what a killed run has unpacked is known to be ours to remove.
            provenance.write_json(root / MARKER, done | {archive.name: None})
            archives.unpack(archive, folders[archive.name], wanted)
            done[archive.name] = states[archive.name]
            provenance.write_json(root / MARKER, done)
    return root


def _stem(archive_name: str) -> str:
    name = archive_name.lower()
    suffix = max((suffix for suffix in archives.SUFFIXES if name.endswith(suffix)), key=len)
    return archive_name[: -len(suffix)]
