"""An annotation and a seed -> a CT series of it.

The annotation gives bones, muscles and the outline of the body. Everything else in a scan is
drawn from the seed: skin and fat, the belly, the inside of the bones, the couch.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage
from skimage.morphology import isotropic_closing

from bonelib.datasets.folder import start_conversion
from bonelib.labels import image_like
from bonelib.phantom.anatomy import DENSE_CORTEX, PERIOSTEUM, SKIN_THICKNESS, paint_couch
from bonelib.phantom.rendering import Scanner
from bonelib.phantom.series import PhantomSeries, scan_slices, series_seed, write_dataset
from bonelib.phantom.skeleton import capsule
from bonelib.phantom.tissues import Tissue, draw_texture, spongy, texture_plane
from bonelib.pretraining.annotation import (
    BONE_KINDS,
    SMOOTHING_PIXELS,
    SOFT_TISSUES,
    Annotation,
    Subject,
    bones_of,
    kind_of,
    read_label_maps,
    smooth,
)
from bonelib.pretraining.soft_tissue import Tube, draw_belly, draw_vessels, find_cavity
from bonelib.provenance import code_hash
from bonelib.settings import Settings

FINE_PIXEL_MM = 0.55  # tissues are drawn in pixels of about this width, for partial volume

# Thickness of the shell in mm, and mean density of the inside on the scale of `tissues.spongy`.
SHELL_MM = {"hip": 1.25, "femur": 0.75, "sacrum": 0.85, "vertebra": 0.5, "bone": 1.1}
DENSITY = {"hip": 0.5, "femur": 1.55, "sacrum": 0.0, "vertebra": 0.55, "bone": 0.3}
THIN_SHELLED = ("sacrum", "vertebra")
# The shaft's wall in mm at depths in mm below the top of the femur's head.
SHAFT_DEPTHS_MM, SHAFT_WALLS_MM = (0, 55, 85, 120, 170, 320, 380), (1, 1.2, 2.4, 6, 8.4, 5, 1.5)
MARROW_DEPTHS_MM = (115.0, 330.0)  # between which the shaft is hollow
VESSEL_DEPTH_MM = 6.0  # least depth of large vessels below the skin
ARCH_GAP_MM, JOINT_GAP_MM = 9.0, 8.0  # widest gaps in a vertebral arch and in a joint
JOINT_MM = (0.8, 3.5)  # width of a joint between bones whose labels touch
PLAQUE_MM = 0.8  # half the thickness of a calcified plaque


@dataclass(frozen=True)
class AnnotatedPatient:
    """An annotation with the anatomy that it lacks, drawn from a seed; lengths in mm."""

    annotation: Annotation
    seed: int
    oversampling: int  # fine pixels along each side of a pixel of the annotation
    cavity: np.ndarray  # (slice, row, column) bool, in coarse pixels
    belly: list[Tube]  # later ones lie over earlier ones
    vessels: list[Tube]
    bone_density: float  # on the scale of DENSITY; low in osteoporosis
    bone_thickness: float  # of the shells, relative
    muscle_fat: float  # 0 lean to 1 wasted
    joint_mm: float  # between bones whose labels touch
    fat_mm: float  # below the skin, where no muscle is labelled
    couch: tuple[float, float, float]  # x of its middle, y of its top, radius of its hollow
    textures: tuple[np.ndarray, np.ndarray]

    @classmethod
    def from_seed(cls, annotation: Annotation, seed: int) -> "AnnotatedPatient":
        """Draw the anatomy that the annotation lacks."""
        random, traits = (np.random.default_rng([seed, stream]) for stream in (6, 9))
        fat_mm = float(random.uniform(14, 34))
        cavity, cavity_mm = find_cavity(annotation, fat_mm)
        enhanced = random.random() < 0.5
        curve = random.choice([900.0, 1600.0, 20000.0])
        _, rows, columns = np.nonzero(annotation.body[:: max(len(annotation.body) // 40, 1)])
        x, y = (np.array([columns, rows]) + 0.5) * annotation.spacing_mm
        middle = (x.min() + x.max()) / 2 + random.normal(0, 8)
        top = (y + (x - middle) ** 2 / (2 * curve)).max() + random.uniform(0.5, 3)
        return cls(
            annotation=annotation,
            seed=seed,
            oversampling=max(round(annotation.spacing_mm / FINE_PIXEL_MM), 1),
            cavity=cavity,
            belly=draw_belly(random, cavity, cavity_mm, enhanced),
            vessels=draw_vessels(random, annotation, enhanced),
            bone_density=float(np.clip(traits.normal(0, 0.3), -0.8, 0.6)),
            bone_thickness=float(np.clip(traits.normal(1, 0.15), 0.65, 1.35)),
            muscle_fat=float(traits.beta(1.5, 4)),
            joint_mm=float(traits.uniform(*JOINT_MM)),
            fat_mm=fat_mm,
            couch=(middle, top, curve),
            textures=(draw_texture(random), draw_texture(random)),
        )

    def cut_slice(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return tissues and bones of a slice, both (row, column) uint8 in fine pixels.

        Bones have their numbers in the annotation's structures.
        """
        return _Slice(self, index).paint()


class _Slice:
    """One slice, painted from the outside to the inside."""

    def __init__(self, patient: AnnotatedPatient, index: int):
        annotation = patient.annotation
        self.patient, self.index = patient, index
        self.random = np.random.default_rng([patient.seed, 7, index])
        self.pixel_mm = annotation.spacing_mm / patient.oversampling
        self.z = index * annotation.distance_mm
        rows, columns = (side * patient.oversampling for side in annotation.body.shape[1:])
        self.size = columns, rows
        self.x = ((np.arange(columns) + 0.5) * self.pixel_mm).astype(np.float32)[None, :]
        self.y = ((np.arange(rows) + 0.5) * self.pixel_mm).astype(np.float32)[:, None]
        self.labels = annotation.structures[index]
        self.structures = smooth(self.labels, self.enlarge)
        self.body = (self.finer(annotation.body[index]) > 0.5) | (self.structures > 0)
        self.depth = self.depth_mm(self.body)
        self.first, self.second = (
            texture_plane(texture, (rows, columns), self.pixel_mm, self.z)
            for texture in patient.textures
        )
        self.tissues = np.zeros((rows, columns), np.uint8)

    def enlarge(self, plane: np.ndarray) -> np.ndarray:
        return cv2.resize(plane, self.size, interpolation=cv2.INTER_LINEAR)

    def finer(self, mask: np.ndarray) -> np.ndarray:
        """Return a mask's share of the surroundings of each fine pixel, float32."""
        plane = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), SMOOTHING_PIXELS)
        return self.enlarge(plane)

    def depth_mm(self, mask: np.ndarray) -> np.ndarray:
        """Return the distance to the nearest pixel outside the mask."""
        padded = np.pad(mask.astype(np.uint8), 1)
        return cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1] * self.pixel_mm

    def paint(self) -> tuple[np.ndarray, np.ndarray]:
        patient = self.patient
        names = patient.annotation.names
        kinds = np.array([0, *(SOFT_TISSUES.get(kind_of(name), 0) for name in names)], np.uint8)
        bone = np.array([False, *(kind_of(name) in BONE_KINDS for name in names)])
        self.paint_couch()
        self.paint_fat()
        self.paint_belly()
        soft = kinds[self.structures]
        self.tissues[soft > 0] = soft[soft > 0]
        self.paint_fat_in_muscle(soft == Tissue.MUSCLE)
        self.paint_tubes(patient.vessels, self.depth > VESSEL_DEPTH_MM)
        self.paint_gaps(bone)
        bones = np.where(bone[self.structures], self.structures, 0).astype(np.uint8)
        joints = (bones > 0) & (self.seam_mm(bones) < patient.joint_mm / 2)
        self.tissues[joints], bones[joints] = Tissue.CARTILAGE, 0
        for number in np.unique(bones[bones > 0]):
            self.paint_bone(number, kind_of(names[number - 1]))
        return self.tissues, bones

    def paint_couch(self):
        middle, top, curve = self.patient.couch
        surface = top - (self.x - middle) ** 2 / (2 * curve)
        paint_couch(self.tissues, self.x - middle, self.y - surface)

    def paint_fat(self):
        patient, depth_mm = self.patient, self.depth
        self.tissues[self.body] = Tissue.FAT
        septa = (np.abs(self.first) < 0.09) & (self.second > 0.6) & self.body
        self.tissues[septa] = Tissue.SKIN
        if not patient.annotation.where("muscle").any():
            fat_mm = patient.fat_mm * (1 + 0.15 * self.first)
            self.tissues[depth_mm > fat_mm] = Tissue.MUSCLE
            self.paint_fat_in_muscle(depth_mm > fat_mm)
        skin_mm = SKIN_THICKNESS * (1.2 + 0.2 * self.second)
        self.tissues[self.body & (depth_mm < skin_mm)] = Tissue.SKIN

    def paint_belly(self):
        plane = self.patient.cavity[self.index]
        if not plane.any():
            return
        score = self.enlarge(cv2.GaussianBlur(plane.astype(np.float32), (0, 0), 0.8))
        inside = (score > 0.5) & self.body & (self.structures == 0)
        self.tissues[inside] = Tissue.FAT
        fascia = inside & (score < 0.56)
        self.tissues[fascia & (self.second > -0.3)] = Tissue.BOWEL_WALL
        room = inside & ~fascia
        strands = room & (np.abs(self.second) < 0.07) & (self.first > 0.3)
        self.tissues[strands] = Tissue.BOWEL_WALL
        self.paint_tubes(self.patient.belly, room)

    def paint_tubes(self, tubes: list[Tube], room: np.ndarray):
        """Paint tubes where there is `room`."""
        for tube in tubes:
            window = self.window(tube.nodes, tube.radius + 3)
            if window is not None:
                self.paint_tube(tube, window, room[window])

    def window(self, nodes: np.ndarray, margin_mm: float) -> tuple[slice, slice] | None:
        """Return the rows and columns around `nodes`, or None if the slice misses them."""
        low, high = nodes.min(axis=0) - margin_mm, nodes.max(axis=0) + margin_mm
        if not low[2] <= self.z <= high[2]:
            return None
        columns, rows = (
            np.clip((low[axis] / self.pixel_mm, high[axis] / self.pixel_mm), 0, self.size[axis])
            for axis in (0, 1)
        )
        window = slice(*rows.astype(int)), slice(*columns.astype(int))
        return window if self.tissues[window].size else None

    def paint_tube(self, tube: Tube, window, room: np.ndarray):
        points = self.x[:, window[1]], self.y[window[0]], np.float32(self.z)
        distance = np.inf
        for start, end in zip(tube.nodes, tube.nodes[1:], strict=False):
            if min(start[2], end[2]) - tube.radius - 3 < self.z:
                rod = capsule(points, start, end, tube.radius, tube.radius)
                distance = np.minimum(distance, rod)
        if tube.wall_mm:
            distance = distance + 0.1 * tube.radius * self.first[window]
        region = self.tissues[window]
        content = np.full(region.shape, tube.content, np.uint8)
        if tube.stool:
            specks = self.second[window] + 0.7 * self.random.standard_normal(content.shape)
            content[specks > 1.5] = Tissue.FAT
            content[specks > 2.0] = Tissue.GAS
        content[np.broadcast_to(points[1] < tube.level, content.shape)] = tube.front
        region[room & (distance < 0)] = Tissue.BOWEL_WALL
        inside = room & (distance < -tube.wall_mm)
        region[inside] = content[inside]
        if tube.calcified:
            plaque = room & (np.abs(distance) < PLAQUE_MM) & (self.second[window] > 0.7)
            region[plaque] = Tissue.CALCIFICATION

    def paint_fat_in_muscle(self, muscle):
        """Paint the fat between muscles that touch and the streaks within."""
        seam_mm = self.seam_mm(self.structures)
        share = self.patient.muscle_fat
        seam = seam_mm < 0.35 + 0.5 * share + 0.35 * self.first
        streaks = np.abs(self.second) < (0.03 + 0.15 * share) * np.clip(0.6 + self.first, 0, 2)
        self.tissues[muscle & (seam | streaks)] = Tissue.FAT

    def seam_mm(self, structures: np.ndarray) -> np.ndarray:
        """Return the distance of each pixel to the nearest border of two structures."""
        edges = np.zeros(structures.shape, np.uint8)
        for axis in (0, 1):
            first, second = (np.delete(structures, end, axis) for end in (-1, 0))
            border = (first != second) & (first > 0) & (second > 0)
            edges[: border.shape[0], : border.shape[1]] |= border
        return cv2.distanceTransform(1 - edges, cv2.DIST_L2, 3) * self.pixel_mm

    def paint_gaps(self, bone):
        """Paint the spinal canal and the cartilage of joints, which bones enclose."""
        names, spacing_mm = self.patient.annotation.names, self.patient.annotation.spacing_mm
        mask = bone[self.labels]
        spine = [index for index, name in enumerate(names, 1) if kind_of(name) in THIN_SHELLED]
        ring = isotropic_closing(np.isin(self.labels, spine), ARCH_GAP_MM / 2 / spacing_mm)
        canal = ndimage.binary_fill_holes(ring) & ~mask
        joints = isotropic_closing(mask, JOINT_GAP_MM / 2 / spacing_mm) & ~mask
        free = self.structures == 0
        self.tissues[free & (self.finer(joints) > 0.5)] = Tissue.CARTILAGE
        inner = free & (self.finer(canal) > 0.5)
        self.tissues[inner] = Tissue.FAT
        self.tissues[self.depth_mm(inner) > 1.5] = Tissue.FLUID

    def paint_bone(self, number: int, kind: str):
        whole = self.structures == number
        rows, columns = np.flatnonzero(whole.any(axis=1)), np.flatnonzero(whole.any(axis=0))
        window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        inside, patient = whole[window], self.patient
        depth_mm = self.depth_mm(inside)
        shell_mm = SHELL_MM[kind]
        below_mm = self._below_top(number) if kind == "femur" else 0.0
        if kind == "femur":
            shell_mm *= np.interp(below_mm, SHAFT_DEPTHS_MM, SHAFT_WALLS_MM)
        shell_mm = shell_mm * patient.bone_thickness * (1 + 0.22 * self.first[window])
        shell_mm = np.minimum(shell_mm, 0.45 * depth_mm.max())
        thick = (shell_mm > DENSE_CORTEX) & (depth_mm > PERIOSTEUM)
        shell = np.where(thick, Tissue.CORTICAL, Tissue.THIN_CORTICAL)
        if kind in THIN_SHELLED:
            shell[:] = Tissue.VERTEBRAL_SHELL
        self._paint_inside(window, inside, depth_mm, kind, below_mm)
        share = np.clip(shell_mm / patient.annotation.distance_mm, 0, 1)
        ends = self._ends(number)[window] & (self.random.random(inside.shape) < share)
        outer = inside & ((depth_mm - self.pixel_mm / 2 < shell_mm) | ends)
        self.tissues[window][outer] = shell[outer]

    def _below_top(self, number: int) -> float:
        """Return the depth in mm of the slice below the femur's head, which may be cut off."""
        annotation = self.patient.annotation
        levels = np.flatnonzero((annotation.structures == number).any(axis=(1, 2)))
        cut = SHAFT_DEPTHS_MM[3] if levels[-1] == len(annotation.body) - 1 else 0.0
        return cut + (levels[-1] - self.index) * annotation.distance_mm

    def _ends(self, number: int) -> np.ndarray:
        """Return where the bone ends between this slice and one of its neighbours."""
        volume = self.patient.annotation.structures
        neighbours = [k for k in (self.index - 1, self.index + 1) if 0 <= k < len(volume)]
        going_on = np.all([volume[k] == number for k in neighbours], axis=0)
        return self.finer(going_on) < 0.5

    def _paint_inside(self, window, inside, depth_mm, kind: str, below_mm: float):
        patient = self.patient
        density = DENSITY[kind] + patient.bone_density + 0.3 * self.second[window]
        density += 0.35 * self.random.standard_normal(inside.shape, np.float32)
        density += 0.5 * np.exp(-depth_mm / 3)
        if kind == "femur":
            density += np.interp(below_mm, (20, 50, 80, 110), (0.5, 0.1, -0.5, -0.9))
        filling = spongy(density)
        if kind == "femur" and MARROW_DEPTHS_MM[0] < below_mm < MARROW_DEPTHS_MM[1]:
            filling = np.minimum(filling, Tissue.SPARSE_TRABECULAR)
        self.tissues[window][inside] = filling[inside]


def render_annotation(annotation: Annotation, seed: int) -> PhantomSeries:
    """Return a CT series of the annotation on its own grid; `seed` draws the rest.

    Bones carry the ids of the label map.
    """
    patient = AnnotatedPatient.from_seed(annotation, seed)
    slices = (
        (index * annotation.distance_mm, *(plane[None] for plane in patient.cut_slice(index)))
        for index in range(len(annotation.body))
    )
    scanner = _draw_scanner(seed)
    image, tissues, bones = scan_slices(
        slices, scanner, patient.oversampling, annotation.spacing_mm
    )
    ids = np.array([0, *annotation.ids])
    numbers = ids.astype(np.uint8 if ids.max() <= 255 else np.int32)[bones]
    scan, bones = (image_like(voxels, annotation.grid) for voxels in (image, numbers))
    return PhantomSeries(scan, tissues, bones, scanner.protocol)


def _draw_scanner(seed: int) -> Scanner:
    """Return a scanner for which contrast is anything from a trace to brighter than bone."""
    scanner, random = Scanner.from_seed(seed), np.random.default_rng([seed, 8])
    tissue_hu = scanner.tissue_hu.copy()
    tissue_hu[Tissue.BOWEL_CONTRAST, 0] = random.uniform(130, 650)
    tissue_hu[Tissue.ENHANCED_BLOOD, 0] = random.uniform(100, 330)
    return replace(scanner, tissue_hu=tissue_hu)


def render(directory: Path, subjects: list[Subject], settings: Settings, workers: int = 1) -> None:
    """Write a CT series of each subject to `directory`, as `series.write_dataset` does."""
    code = code_hash(__name__)
    records = [
        {
            "series": subject.name,
            "split": subject.split,
            "seed": series_seed(subject.name, settings),
            "code": code,
            **subject.record(),
        }
        for subject in subjects
    ]
    bones = bones_of(subjects[0].names) if subjects else {}
    make = partial(_make_series, subjects={subject.name: subject for subject in subjects})
    write_dataset(directory, records, make, bones, workers)


def _make_series(record: dict, subjects: dict[str, Subject]) -> PhantomSeries:
    return render_annotation(subjects[record["subject"]].read(), record["seed"])


def convert(directory: Path, output: Path, settings: Settings, workers: int = 1) -> None:
    """Render the subjects in `directory` as a `folder` data set in `output`.

    Raises InputError for incorrect tables or label maps.
    """
    subjects = read_label_maps(directory)
    start_conversion(output, {"name": "label_maps"})
    render(output, subjects, settings, workers)
