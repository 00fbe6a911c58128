"""Folders of a public data set -> the volume files below them, without junk."""

from pathlib import Path

from bonelib import scans

_JUNK = "__MACOSX"


def volumes_below(roots: list[Path]) -> list[tuple[str, Path]]:
    """Return stem and path of each volume file; one that is there twice, packed and not, once."""
    found = {}
    for root in roots:
        for file in scans.source_files(root):  # leaves out hidden files, as macOS' ._ are
            stem = scans.volume_stem(file)
            if stem is not None and _JUNK not in file.parts:
                found.setdefault((file.parent, stem), []).append(file)
    # Of .nii and .nii.gz, the owners' own is the packed one.
    return [(stem, max(files, key=lambda file: len(file.name)))
            for (_, stem), files in found.items()]  # fmt: skip
