"""One series of a data set -> its scan, the mask of its bones, its label map."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK

from bonelib import labels, scans
from bonelib.errors import InputError, InputWarning
from bonelib.settings import CLASS_SCHEMES, IGNORE

BONE_NAMES_FILE = "bone_names.csv"

SMALLEST_OVERLAP = 0.5  # share of the bone's voxels inside the scan; less: the origins differ
LONGEST_LIST = 20  # of the ids that a message lists

Names = dict[int, str] | None  # by id of the mask; None: every id is bone


@dataclass(frozen=True)
class Case:
    """One series of a data set, not read yet."""

    series_id: str
    split: str
    scan_path: Path  # a DICOM folder, a volume file or an archive of either
    mask_path: Path  # a file or a folder
    bone_names: dict[int | str, str] | None  # by id or pattern; see `labels.read_mask`
    directory: Path  # of the data set
    series: str | None = None  # which DICOM series of the scan's folder
    class_scheme: str = "bone"  # of the label map

    def scan(self) -> SimpleITK.Image:
        """Read the scan in HU."""
        return scans.read_scan(self.scan_path, self.series)

    def annotation(self, scan: SimpleITK.Image | None = None) -> tuple[SimpleITK.Image, Names]:
        """Read the ids of the mask on the scan's grid, and the names of the ids that count.

        Pass `scan` if it is read already. Raises InputError for a mask that holds no bone
        or does not overlap the scan; warns of ids without a name.
        """
        scan = self.scan() if scan is None else scan
        mask, names = labels.read_mask(
            self.mask_path, scan, self.bone_names, self.scan_path, self.series
        )
        self._check_ids(mask, names)
        try:
            structures = labels.on_grid(mask, scan)
        except InputError as error:
            raise InputError(f"{self.mask_path}: {error}") from error
        self._check_overlap(labels.bone_of(mask, names), scan)
        return structures, names

    def label_map(
        self,
        scan: SimpleITK.Image | None = None,
        annotation: tuple[SimpleITK.Image, Names] | None = None,
    ) -> SimpleITK.Image:
        """Return the classes of the scheme and `IGNORE` on the scan's grid.

        Pass `scan` and `annotation` if they are read already. Raises InputError as
        `annotation` does, and where no name of a bone belongs to a class.
        """
        scan = self.scan() if scan is None else scan
        structures, names = annotation or self.annotation(scan)
        self._check_classes(names)
        return labels.label_map(scan, structures, names, class_scheme=self.class_scheme)

    def source_files(self) -> list[Path]:
        """Return the files that the case is read from, sorted."""
        return sorted({*scans.source_files(self.scan_path), *scans.source_files(self.mask_path)})

    @property
    def source(self) -> str:
        """Return the scan's path inside the data set, for results; the rest stays private."""
        return self.scan_path.relative_to(self.directory).as_posix()

    @property
    def recipe(self) -> dict:
        """Return everything besides the files that determines scan and label map."""
        return {name: getattr(self, name) for name in ("bone_names", "series", "class_scheme")}

    def _check_ids(self, mask: SimpleITK.Image, names: Names) -> None:
        ids = set(np.unique(SimpleITK.GetArrayViewFromImage(mask)).tolist()) - {0}
        named = ids if names is None else set(names)
        bones = {number for number in named if (names or {}).get(number) != labels.IGNORE_NAME}
        if not ids & bones:
            wanted = "any" if self.bone_names is None else ", ".join(map(str, self.bone_names))
            raise InputError(
                f"{self.mask_path}: no bone in it: it holds ids {_listed({0, *ids})}, bone is "
                f"{wanted}; give the mask of the bones or correct {BONE_NAMES_FILE}"
            )
        if ids - named:
            warnings.warn(
                f"ids {_listed(ids - named)} of a mask are not among the bone names; they count "
                "as patient",
                InputWarning,
                stacklevel=3,
            )

    def _check_classes(self, names: Names) -> None:
        called = [labels.UNNAMED] if names is None else names.values()
        if all(labels.class_of(name, self.class_scheme) == IGNORE for name in called):
            classes = ", ".join(CLASS_SCHEMES[self.class_scheme])
            raise InputError(
                f"{self.mask_path}: has no bone of a class in the scheme '{self.class_scheme}' "
                f"({classes}); name its bones in {BONE_NAMES_FILE}, or set class_scheme=bone"
            )

    def _check_overlap(self, bone: SimpleITK.Image, scan: SimpleITK.Image) -> None:
        """Raise InputError where most of the bone lies outside the scan."""
        field = SimpleITK.Image(scan.GetSize(), SimpleITK.sitkUInt8)
        field.CopyInformation(scan)
        covered = SimpleITK.Resample(
            field + 1, bone, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor, 0
        )
        inside = SimpleITK.GetArrayViewFromImage(covered) > 0
        share = inside[SimpleITK.GetArrayViewFromImage(bone) == 1].mean()
        if share < SMALLEST_OVERLAP:
            raise InputError(
                f"{self.mask_path}: most of the bone ({100 * (1 - share):.0f} %) lies outside of "
                "the scan; export scan and mask with the same origin"
            )


def _listed(ids: set[int]) -> str:
    shown = sorted(ids)[:LONGEST_LIST]
    return ", ".join(map(str, shown)) + (", …" if len(ids) > LONGEST_LIST else "")
