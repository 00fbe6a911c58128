"""Paths and names -> one case: its scan, the mask of its bones, its label map."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK

from bonelib import labels, paths, scans
from bonelib.errors import InputError, InputWarning
from bonelib.settings import CLASS_SCHEMES, IGNORE

BONE_NAMES_FILE = "bone_names.csv"

SMALLEST_OVERLAP = 0.5  # share of the bone's voxels in the scan; less, and the origins differ

Names = dict[int, str] | None  # of a mask's ids; None: every id is bone


@dataclass(frozen=True)
class Case:
    """One series of a data set, not read yet."""

    series_id: str
    split: str
    scan_path: Path  # a DICOM folder, a volume file or an archive of either
    mask_path: Path  # a file or a folder
    bone_names: dict[int | str, str] | None  # ids or patterns; None: as `labels.read_mask` says
    directory: Path  # that holds all files, and to which names of files are relative
    series: str | None = None  # which DICOM series of the scan's folder
    complete: bool = True  # False: the scan shows bones that nobody drew
    region_mm: tuple[float, float] | None = None  # lowest and highest z (LPS) of what is used
    other_ids: frozenset[int] = frozenset()  # of the mask: known, and no bone
    class_scheme: str = "bone"  # of the label map

    def scan(self) -> SimpleITK.Image:
        """Read the scan in HU, cut to the region of the case."""
        scan = scans.read_scan(self.scan_path, self.series)
        return scan if self.region_mm is None else self._cut(scan)

    def annotation(self, scan: SimpleITK.Image | None = None) -> tuple[SimpleITK.Image, Names]:
        """Read the mask's ids on the scan's grid, and the names of those that count.

        Pass `scan` where it is read already. Raises InputError for a mask that holds no bone
        or lies apart from the scan, and warns of ids that nobody named.
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

    def structures(self, scan: SimpleITK.Image | None = None) -> SimpleITK.Image:
        """Read the mask's ids on the scan's grid, as `annotation` does."""
        return self.annotation(scan)[0]

    def label_map(
        self,
        scan: SimpleITK.Image | None = None,
        annotation: tuple[SimpleITK.Image, Names] | None = None,
    ) -> SimpleITK.Image:
        """Return the scheme's classes and `IGNORE` on the scan's grid.

        Pass `scan` and `annotation` where they are read already. Raises InputError as
        `annotation` does, and where no bone's name is one of a class.
        """
        scan = self.scan() if scan is None else scan
        structures, names = annotation or self.annotation(scan)
        self._check_classes(names)
        unlabelled = not self.complete
        return labels.label_map(scan, structures, names, unlabelled, self.class_scheme)

    def source_files(self) -> list[Path]:
        """Return the files that the case is made of, sorted."""
        return sorted({*scans.source_files(self.scan_path), *scans.source_files(self.mask_path)})

    @property
    def source(self) -> str:
        """Name the scan for results: below the data set's folder, and never the way to that."""
        if paths.DATA.is_relative_to(self.directory):  # an unpacked mask, a scan elsewhere
            return self.scan_path.name
        return self.scan_path.relative_to(self.directory).as_posix()

    @property
    def recipe(self) -> dict:
        """Return what besides the files decides on scan and label map."""
        names = ("bone_names", "series", "complete", "region_mm", "class_scheme")
        return {name: getattr(self, name) for name in names}

    def _cut(self, scan: SimpleITK.Image) -> SimpleITK.Image:
        columns, rows, count = scan.GetSize()
        heights_mm = np.array(
            [
                scan.TransformContinuousIndexToPhysicalPoint((columns / 2, rows / 2, index))[2]
                for index in range(count)
            ]
        )
        low_mm, high_mm = self.region_mm
        used = np.flatnonzero((heights_mm >= low_mm) & (heights_mm <= high_mm))
        if len(used) < 2:
            raise InputError(
                f"{self.scan_path}: lies apart from its mask; get both files again from one source"
            )
        return scan[:, :, int(used[0]) : int(used[-1]) + 1]

    def _check_ids(self, mask: SimpleITK.Image, names: Names) -> None:
        ids = set(np.unique(SimpleITK.GetArrayViewFromImage(mask)).tolist()) - {0}
        bones = ids if names is None else _bones(names)
        if not ids & bones:
            wanted = "any" if self.bone_names is None else ", ".join(map(str, self.bone_names))
            present = ", ".join(map(str, [0, *sorted(ids)][:20]))
            raise InputError(
                f"{self.mask_path}: no bone in it: it holds ids {present}, bone is {wanted}; "
                f"give the mask of the bones or correct {BONE_NAMES_FILE}"
            )
        unknown = sorted(ids - set(names or ids) - self.other_ids)
        if unknown:
            listed = ", ".join(map(str, unknown[:20])) + (", …" if len(unknown) > 20 else "")
            warnings.warn(
                f"ids {listed} of a mask are not among the bone names; they count as patient",
                InputWarning,
                stacklevel=3,
            )

    def _check_classes(self, names: Names) -> None:
        called = [labels.UNNAMED] if names is None else names.values()
        if all(labels.class_of(name, self.class_scheme) == IGNORE for name in called):
            classes = ", ".join(CLASS_SCHEMES[self.class_scheme])
            raise InputError(
                f"{self.mask_path}: names no bone of a class of the scheme '{self.class_scheme}' "
                f"({classes}); name its bones in {BONE_NAMES_FILE}, or set class_scheme=bone"
            )

    def _check_overlap(self, bone: SimpleITK.Image, scan: SimpleITK.Image) -> None:
        """Raise InputError where most of the bone lies outside of the scan.

        A case that uses a region of its scan leaves bone out on purpose.
        """
        if self.region_mm is not None:
            return
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


def _bones(names: dict[int, str]) -> set[int]:
    return {number for number, name in names.items() if name != labels.IGNORE_NAME}
