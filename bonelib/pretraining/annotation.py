"""A folder of annotated subjects -> annotations: bones, soft tissues and the outline of the body.

`data/README.md` shows the layout of the folder.

Positions are in mm from the corner of the annotation's field: x to the patient's left, y to
the back, z to the head.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from skimage.morphology import convex_hull_image, isotropic_closing, isotropic_dilation

from bonelib import provenance, scans
from bonelib.datasets.folder import read_columns, read_names, read_split
from bonelib.errors import InputError
from bonelib.labels import on_grid
from bonelib.phantom.tissues import Tissue
from bonelib.scans import read_volume

TISSUES_FILE, RANGE_FILE = "tissues.csv", "range.csv"
LABEL_STEMS, BODY_STEMS = ("label", "labels"), ("mask",)
BONE_KINDS = ("hip", "femur", "sacrum", "vertebra", "bone")  # a name may go on: femur_left
SOFT_TISSUES = {
    tissue.name.lower(): tissue
    for tissue in Tissue
    if Tissue.GAS <= tissue < Tissue.MARROW and tissue != Tissue.GOLD_SEED
}
MAXIMUM_NAMES = 255  # structures are kept in 8 bits
SQUARE_TOLERANCE = 0.01  # relative difference of a pixel's sides
SMOOTHING_PIXELS = 0.8  # blur that smooths the steps of an edge and keeps thin sheets
OUTLINE_BRIDGE_MM = 80.0  # gap between labels that the outline closes
OUTLINE_LAYER_MM = 18.0  # skin and fat around the labels
THIGH_MM = 40.0  # of muscle around the femur
BELLY_WALL_MM = 10.0  # of muscle below the fat


@dataclass(frozen=True)
class Annotation:
    """A label map with its outline, feet to head; see the module for positions."""

    structures: np.ndarray  # (slice, row, column) uint8: 0 unlabelled, else 1 + index of names
    body: np.ndarray  # (slice, row, column) bool
    names: tuple[str, ...]
    ids: tuple[int, ...]  # of the names, in the label map's file
    grid: sitk.Image  # an image on the annotation's grid

    @property
    def spacing_mm(self) -> float:
        """Return the width of a pixel."""
        return self.grid.GetSpacing()[0]

    @property
    def distance_mm(self) -> float:
        """Return the distance of slices."""
        return self.grid.GetSpacing()[2]

    def where(self, *kinds: str) -> np.ndarray:
        """Return where structures of these kinds are: (slice, row, column) bool."""
        chosen = np.array([False, *(kind_of(name) in kinds for name in self.names)])
        return chosen[self.structures]


def kind_of(name: str) -> str:
    """Return the entry of `BONE_KINDS` or `SOFT_TISSUES` for a name in tissues.csv.

    Raises InputError for an unknown name.
    """
    bone = re.match(rf"({'|'.join(BONE_KINDS)})(_|$)", name)
    if not bone and name not in SOFT_TISSUES:
        raise InputError(
            f"unknown tissue '{name}': choose one of {', '.join((*BONE_KINDS, *SOFT_TISSUES))}; "
            "a bone may go on after '_', as in femur_left"
        )
    return bone[1] if bone else name


def bones_of(names: dict[int, str]) -> dict[int, str]:
    """Return the bones among `names`, which are tissues by id."""
    return {number: name for number, name in names.items() if kind_of(name) in BONE_KINDS}


@dataclass(frozen=True)
class Subject:
    """One annotated person on disk."""

    name: str
    split: str
    label_path: Path
    mask_path: Path | None  # of the body
    slices: tuple[int, int] | None  # the first and the last to use, from the feet; None: all
    names: dict[int, str]  # bones and tissues by id

    def record(self) -> dict:
        """Return everything that its annotation depends on."""
        paths = [path for path in (self.label_path, self.mask_path) if path is not None]
        files = [file for path in paths for file in scans.source_files(path)]
        return {
            "subject": self.name,
            "slices": self.slices,
            "names": self.names,
            "sources": provenance.content_hash(files, self.label_path.parent),
        }

    def read(self, deformed_by: int | None = None) -> Annotation:
        """Read the annotation; a seed deforms it."""
        annotation = read_annotation(self.label_path, self.mask_path, self.names, self.slices)
        return annotation if deformed_by is None else deform(annotation, deformed_by)


def read_label_maps(directory: Path) -> list[Subject]:
    """Return the subjects in a folder, in the order of its split file."""
    split = read_split(directory)
    names = read_names(directory / TISSUES_FILE, ("id", "tissue"))
    try:
        bones = bones_of(names)
    except InputError as error:
        raise InputError(f"{directory / TISSUES_FILE}: {error}") from error
    if not bones:
        raise InputError(f"{directory / TISSUES_FILE}: names no bone; give at least one")
    ranges = _read_ranges(directory / RANGE_FILE, list(split.series))
    subjects = []
    for row in split.itertuples():
        folder = directory / row.series
        label, mask = (_volume_called(folder, stems) for stems in (LABEL_STEMS, BODY_STEMS))
        if label is None:
            raise InputError(
                f"{folder}: has no label map; add a volume called {' or '.join(LABEL_STEMS)} "
                f"({', '.join(scans.VOLUME_SUFFIXES)})"
            )
        slices = ranges.get(row.series)
        subjects.append(Subject(row.series, row.split, label, mask, slices, names))
    return subjects


def _volume_called(folder: Path, stems: tuple[str, ...]) -> Path | None:
    found = sorted(
        file for file in folder.iterdir() if file.is_file() and scans.volume_stem(file) in stems
    )
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise InputError(f"{folder}: has {names}; leave exactly one")
    return found[0] if found else None


def _read_ranges(file: Path, known: list[str]) -> dict[str, tuple[int, int]]:
    """Return the first and last slice to use of each series; the file is optional."""
    if not file.exists():
        return {}
    ranges = {}
    table = read_columns(file, ("series", "first", "last"))
    for series_id, first, last in table.itertuples(index=False, name=None):
        line = f"line '{series_id},{first},{last}'"
        if series_id not in known or series_id in ranges:
            raise InputError(f"{file}: {line} does not name one series of {known}; correct it")
        if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
            raise InputError(
                f"{file}: {line} needs a first and a higher last slice, counted from the feet, "
                "from 0; correct it"
            )
        ranges[series_id] = int(first), int(last)
    return ranges


def read_annotation(
    label_path: Path,
    mask_path: Path | None,
    names: dict[int, str],
    slices: tuple[int, int] | None = None,
) -> Annotation:
    """Read a label map and, if there is one, the mask of the body.

    `names` gives bones and tissues by id; other ids are unlabelled. `slices` is the first and
    the last slice to keep, counted from 0 at the feet. Raises InputError for a map without
    bone, without square pixels, or with neither muscles nor a mask, so without an outline.
    """
    image = read_volume(label_path)
    width_mm, height_mm, _ = image.GetSpacing()
    if abs(width_mm - height_mm) > SQUARE_TOLERANCE * width_mm:
        raise InputError(
            f"{label_path}: pixels of {width_mm:g} x {height_mm:g} mm are not square; "
            "resample the map by nearest neighbour"
        )
    if slices is not None:
        first, last = slices
        if last >= image.GetSize()[2]:
            raise InputError(
                f"{label_path}: has slices 0 to {image.GetSize()[2] - 1}, not {first} to {last}; "
                "correct range.csv"
            )
        image = image[:, :, first : last + 1]
    if len(names) > MAXIMUM_NAMES:
        raise InputError(f"{label_path}: {len(names)} ids are named; name {MAXIMUM_NAMES} at most")
    ids = sorted(names)
    found = sitk.GetArrayViewFromImage(image)
    structures = np.zeros(found.shape, np.uint8)
    first = {}  # two ids of one bone, such as sacrum and S1, are one structure
    for index, number in enumerate(ids):
        is_bone = kind_of(names[number]) in BONE_KINDS
        same = first.setdefault(names[number] if is_bone else number, index)
        structures[found == number] = same + 1
    annotation = Annotation(
        structures, structures > 0, tuple(names[number] for number in ids), tuple(ids), image
    )
    if not annotation.where(*BONE_KINDS).any():
        present = ", ".join(map(str, np.unique(found)[:20]))
        raise InputError(
            f"{label_path}: no bone in it: it holds ids {present}; correct tissues.csv"
        )
    if mask_path is not None:
        try:
            mask = sitk.GetArrayFromImage(on_grid(read_volume(mask_path), image))
        except InputError as error:
            raise InputError(f"{mask_path}: {error}") from error
        body = _filled(annotation.body | (mask > 0))
    elif annotation.where("muscle").any():
        return _add_outline(annotation)
    else:
        raise InputError(
            f"{label_path}: labels no muscle, so the outline of the body is unknown; "
            "add the body as a volume called mask beside it"
        )
    return replace(annotation, body=body)


def _filled(body: np.ndarray) -> np.ndarray:
    return np.stack([ndimage.binary_fill_holes(part) for part in body])


def _add_outline(annotation: Annotation) -> Annotation:
    """Add a layer of skin and fat around the labels, and the muscles that no label shows.

    Those fill the thighs, the surroundings of the pelvis's bones and the wall of the belly.
    """
    bridge, layer, thigh, wall = (
        length_mm / annotation.spacing_mm
        for length_mm in (OUTLINE_BRIDGE_MM / 2, OUTLINE_LAYER_MM, THIGH_MM, BELLY_WALL_MM)
    )
    femurs, hips = annotation.where("femur"), annotation.where("hip")
    spine = annotation.where("vertebra", "sacrum")
    structures, margin = annotation.structures.copy(), round(bridge + layer) + 1
    body, muscle = [], 1 + len(annotation.names)
    for labels, femur, hip, above in zip(structures, femurs, hips, spine, strict=True):
        if femur.any():
            femur = isotropic_dilation(femur, thigh)
        labelled = np.pad((labels > 0) | femur, margin)
        inside = isotropic_closing(labelled, bridge)[margin:-margin, margin:-margin]
        inside = ndimage.binary_fill_holes(inside)
        if above.any():
            room = ndimage.distance_transform_edt(inside) > wall
        else:
            room = convex_hull_image(hip) if hip.any() else np.zeros_like(hip)
        labels[inside & ~room & (labels == 0)] = muscle
        body.append(ndimage.binary_fill_holes(isotropic_dilation(inside, layer)))
    names, ids = (*annotation.names, "muscle"), (*annotation.ids, max(annotation.ids) + 1)
    return replace(annotation, structures=structures, body=np.stack(body), names=names, ids=ids)


def deform(annotation: Annotation, seed: int) -> Annotation:
    """Return the annotation rotated and stretched in plane at random, on its own grid."""
    random = np.random.default_rng([seed, 5])
    angle = np.radians(np.clip(random.normal(0, 2.5), -6, 6))
    stretch = np.exp(np.clip(random.normal(0, 0.035, 2), -0.08, 0.08))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag(stretch)
    rows, columns = np.nonzero(annotation.body.any(axis=0))
    middle = np.array([(axis.min() + axis.max()) / 2 for axis in (columns, rows)])
    affine = np.column_stack([matrix, middle - matrix @ middle])
    size = annotation.body.shape[:0:-1]

    def warp(plane):
        return cv2.warpAffine(plane, affine, size, flags=cv2.INTER_LINEAR)

    structures = np.stack([smooth(part, warp) for part in annotation.structures])
    body = np.stack([warp(part.astype(np.float32)) > 0.5 for part in annotation.body])
    return replace(annotation, structures=structures, body=body | (structures > 0))


def smooth(structures: np.ndarray, warp: Callable) -> np.ndarray:
    """Return a slice's structures after `warp`, which maps a float32 plane, with smooth edges."""
    winner = best = None
    for number in np.union1d(0, structures):
        plane = (structures == number).astype(np.float32)
        score = warp(cv2.GaussianBlur(plane, (0, 0), SMOOTHING_PIXELS))
        if winner is None:
            winner, best = np.zeros(score.shape, np.uint8), score
        ahead = score > best
        winner[ahead], best[ahead] = number, score[ahead]
    return winner
