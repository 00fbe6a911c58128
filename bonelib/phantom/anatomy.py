"""A seed -> a patient -> the tissues and bones of any axial slice.

Everything is a formula of the position, so that a slice costs no more than itself. The
patient's z is 0 at the hip joints and grows towards the head, in mm.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from scipy.spatial.transform import Rotation

from bonelib.phantom.shapes import Frame, capsule, ellipse, ellipsoid, intersection, union
from bonelib.phantom.skeleton import SPINE_TOP, Bone, build_skeleton, disc_distance, femur_middle


class Tissue(IntEnum):
    """What a voxel holds; from GAS on it is body, from MARROW on it is bone."""

    AIR = 0
    COUCH_CORE = 1
    COUCH_SHELL = 2
    SKIN_MARKER = 3
    GAS = 4
    FAT = 5
    SKIN = 6
    MUSCLE = 7
    BOWEL_WALL = 8
    FLUID = 9
    BLOOD = 10
    CARTILAGE = 11
    ENHANCED_BLOOD = 12
    BOWEL_CONTRAST = 13
    CALCIFICATION = 14
    GOLD_SEED = 15
    MARROW = 16
    SPARSE_TRABECULAR = 17
    TRABECULAR = 18
    VERTEBRAL_SHELL = 19  # thinner than a voxel
    THIN_CORTICAL = 20
    CORTICAL = 21


SACRUM, FEMURS, VERTEBRAE = 3, (4, 5), (6, 7)
PELVIC_FLOOR = -45.0  # z below which no bowel lies
CROTCH = -72.0  # z where the legs part
THIGH_SCANS = 0.3  # share of scans that show the thighs; the paper calls its pelves the minority
LONG_SCAN_MM = 400.0  # a scan of this length shows thighs and pelvis
SKIN_THICKNESS = 1.8
DENSE_CORTEX = 2.5  # thickness from which a cortex is not thinned by partial volume
COUCH_THICKNESS, COUCH_SHELL = 42.0, 2.4
COUCH_HALF_WIDTH = 235.0

# The artery to each leg: z, then how far inwards and in front of the femur; z, x and y above.
THIGH_ARTERY = ((-400.0, 4, -30), (-250.0, 30, 16), (-100.0, 40, 50))
PELVIC_ARTERY = (
    (0.0, 74, -62),
    (50.0, 58, -34),
    (95.0, 42, -16),
    (140.0, 12, -28),
    (200.0, 6, -30),
)

# Muscles as their middle lines: x, y at each height; fat fills the gaps between them.
MUSCLE_HEIGHTS = (-400, -200, -90, -30, 20, 80, 160)
MUSCLE_LINES = np.array(
    [
        [(75, -45), (92, -62), (98, -66), (102, -62), (108, -62), (122, -75), (118, -80)],
        [(112, -30), (140, -28), (150, -34), (138, -58), (132, -50), (140, -30), (150, -30)],
        [(118, 10), (148, 20), (162, 10), (160, 10), (148, 5), (136, 18), (150, 10)],
        [(90, 45), (112, 62), (128, 64), (118, 82), (112, 80), (110, 70), (95, 70)],
        [(60, 48), (82, 66), (85, 72), (72, 90), (66, 92), (60, 110), (30, 85)],
        [(40, 20), (52, 40), (48, 50), (40, 72), (30, 100), (18, 112), (15, 82)],
        [(42, -15), (50, -5), (45, 0), (45, 22), (46, 30), (40, 10), (36, 15)],
        [(60, -30), (62, -38), (55, -45), (60, -48), (78, -34), (75, -5), (48, -2)],
        [(80, 25), (92, 38), (86, 30), (92, 42), (98, 40), (112, -18), (125, -55)],
        [(100, -10), (112, -18), (112, -35), (116, -38), (118, -18), (125, 45), (130, 60)],
    ],
    np.float32,
)


@dataclass(frozen=True)
class BowelLoop:
    """A bent tube of bowel through `nodes` (x, y, z in mm) and what it holds."""

    nodes: np.ndarray
    radius: float
    content: Tissue
    gas_above: float  # y in mm in front of which gas has gathered


@dataclass(frozen=True)
class Patient:
    """One patient on the couch; lengths in mm, angles in degrees."""

    half_width: float  # of the trunk at the hips
    half_depth: float
    fat: float  # mean thickness below the skin
    fat_phases: tuple[float, float]
    scale: float  # of the skeleton
    pelvis: Frame
    skeleton: tuple[Bone, ...]
    couch_top: float  # y of the couch at its middle
    couch_curve: float  # radius of its hollow
    bowel: tuple[BowelLoop, ...]
    bladder: tuple[float, float, float]  # half axes
    bladder_contrast: float  # y behind which contrast has settled
    vessels_enhanced: bool
    calcified: bool
    male: bool
    gold_seeds: tuple[tuple[float, float, float], ...]
    skin_markers: tuple[tuple[float, float], ...]  # x in half widths, z
    scan_upwards: float  # share of a scan's spare length that goes to the head
    thigh_top: float | None  # upper end of a scan of the thighs; None for one of the pelvis

    @classmethod
    def from_seed(cls, seed: int) -> "Patient":
        """Draw a patient; the same seed gives the same patient."""
        random = np.random.default_rng([seed, 1])
        size = random.normal(0, 1)
        scale = float(np.clip(1.03 + 0.03 * size, 0.97, 1.09))
        half_width = float(np.clip(random.normal(201, 8) + 5 * size, 188, 217))
        half_depth = float(np.clip(random.normal(124, 7) + 3 * size, 110, 138))
        turn = Rotation.from_euler("xyz", random.normal(0, (4, 1.2, 1.5)), degrees=True)
        pelvis = Frame(np.array([random.normal(0, 2), 0.0, 0.0]), turn.as_matrix() * scale, scale)
        abduction, flexion = random.uniform(-2, 5), random.normal(-2, 2)
        legs = {
            side: (
                flexion + random.normal(0, 1),
                -(abduction + random.normal(0, 1)),
                random.normal(-4, 7),
            )
            for side in ("left", "right")
        }
        couch_top = 16 + 0.955 * half_depth
        return cls(
            half_width=half_width,
            half_depth=half_depth,
            fat=float(np.clip(random.normal(28, 6), 16, 40)),
            fat_phases=tuple(random.uniform(0, 2 * np.pi, 2)),
            scale=scale,
            pelvis=pelvis,
            skeleton=tuple(build_skeleton(pelvis, legs)),
            couch_top=couch_top,
            couch_curve=random.choice([900.0, 1600.0, 20000.0]),
            bowel=_draw_bowel(random, half_width, half_depth),
            bladder=(random.uniform(28, 44), random.uniform(22, 32), random.uniform(20, 34)),
            bladder_contrast=random.choice([5.0, 500.0]),
            vessels_enhanced=bool(random.random() < 0.5),
            calcified=bool(random.random() < 0.6),
            male=bool(random.random() < 0.6),
            gold_seeds=tuple(
                tuple(random.normal((0, -8, -22), (9, 8, 9)))
                for _ in range(3 * int(random.random() < 0.4))
            ),
            skin_markers=tuple(
                (x, z) for z in (random.uniform(-20, 60),) for x in (-0.8, 0.0, 0.8)
            ),
            scan_upwards=random.uniform(0.4, 0.7),
            thigh_top=random.uniform(-110, 60) if random.random() < THIGH_SCANS else None,
        )

    def positions_mm(self, num_slices: int, distance_mm: float) -> np.ndarray:
        """Return the z of each slice, feet to head.

        A scan of the pelvis has shaft, hip and sacrum in view. What it is longer than that
        goes to both ends, but not above the vertebra L4; a shorter one ends lower. A scan of
        the thighs ends below or at the hip joint, unless it is long enough for both.
        """
        span = (num_slices - 1) * distance_mm
        lowest, highest = -86 * self.scale, 104 * self.scale
        spare = span - (highest - lowest)
        top = highest + spare * (self.scan_upwards if spare > 0 else 1.0)
        top = min(top, (SPINE_TOP - 6) * self.scale)
        if self.thigh_top is not None and span < LONG_SCAN_MM:
            top = self.thigh_top * self.scale
        return top - distance_mm * np.arange(num_slices - 1, -1, -1, dtype=np.float64)


def _draw_bowel(random, half_width: float, half_depth: float) -> tuple[BowelLoop, ...]:
    loops = []
    opaque = random.random() < 0.6
    for _ in range(26):
        start = np.array(
            [
                random.uniform(-0.5, 0.5) * half_width,
                random.uniform(-0.62, -0.1) * half_depth,
                random.uniform(25, 175),
            ]
        )
        steps = random.normal(0, (26, 12, 16), (3, 3))
        nodes = np.vstack([start, start + np.cumsum(steps, axis=0)]).astype(np.float32)
        content = Tissue.BOWEL_CONTRAST if opaque and random.random() < 0.4 else Tissue.FLUID
        gas_above = nodes[:, 1].mean() - random.uniform(-6, 16)
        loops.append(BowelLoop(nodes, random.uniform(9, 15), content, gas_above))
    return tuple(loops)


def cut_slice(patient: Patient, x_mm, y_mm, z_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the tissues and the bone numbers, both (row, column) uint8, of one slice.

    `x_mm` (columns) and `y_mm` (rows) are the pixel centres in the patient's coordinates.
    """
    x = np.asarray(x_mm, np.float32)[None, :]
    y = np.asarray(y_mm, np.float32)[:, None]
    tissues = np.zeros((y.size, x.size), np.uint8)
    bones = np.zeros_like(tissues)
    canvas = _Canvas(patient, x, y, z_mm, tissues, bones)
    paint_couch(tissues, x, y - canvas.couch_surface)
    canvas.paint_body()
    canvas.paint_organs()
    canvas.paint_vessels()
    canvas.paint_discs()
    canvas.paint_seeds()
    for bone in patient.skeleton:
        canvas.paint_bone(bone)
    return tissues, bones


def paint_couch(tissues: np.ndarray, x, below) -> None:
    """Paint the couch; `x` is from its middle, `below` from its surface, in mm."""
    half_width = COUCH_HALF_WIDTH - np.maximum(below - 20, 0)
    inside = (below > 0) & (below < COUCH_THICKNESS) & (np.abs(x) < half_width)
    tissues[inside] = Tissue.COUCH_CORE
    rim = (below < COUCH_SHELL) | (below > COUCH_THICKNESS - COUCH_SHELL)
    rim = rim | (np.abs(x) > half_width - COUCH_SHELL)
    tissues[inside & rim] = Tissue.COUCH_SHELL


class _Canvas:
    """One slice while it is painted, from the outside to the inside."""

    def __init__(self, patient: Patient, x, y, z: float, tissues, bones):
        self.patient, self.x, self.y, self.z = patient, x, y, np.float32(z)
        self.tissues, self.bones = tissues, bones
        self.couch_surface = patient.couch_top - x**2 / (2 * patient.couch_curve)

    def window(self, low, high) -> tuple[slice, slice] | None:
        """Return the rows and columns between two corners, or None if the slice is outside."""
        columns = np.searchsorted(self.x[0], (low[0], high[0]))
        rows = np.searchsorted(self.y[:, 0], (low[1], high[1]))
        if not low[2] <= self.z <= high[2] or columns[0] == columns[1] or rows[0] == rows[1]:
            return None
        return slice(*rows), slice(*columns)

    def _skin_distance(self):
        patient, z = self.patient, float(self.z)
        waist = np.interp(z, (-100, 0, 70, 130, 170), (0.96, 1, 0.97, 0.9, 0.88))
        belly = np.interp(z, (-60, 20, 100, 170), (0.86, 0.94, 1.04, 1.06))
        trunk = ellipse(
            self.x,
            self.y - 16 + (belly - 1) * patient.half_depth * 0.7,
            patient.half_width * waist,
            patient.half_depth * belly,
            2.4,
        )
        trunk = intersection(trunk, CROTCH + 4 - z, 30)
        if z < 60:
            width = patient.half_width * np.interp(z, (-400, -200, -90), (0.34, 0.42, 0.475))
            depth = patient.half_depth * np.interp(z, (-400, -200, -90), (0.54, 0.72, 0.82))
            inwards = np.interp(z, (-400, -200, -90), (0, 10, 19))
            backwards = np.interp(z, (-400, -200, -90), (2, 12, 6))
            thigh = np.inf
            for bone in patient.skeleton:
                if bone.number in FEMURS:
                    middle = femur_middle(bone, min(z, CROTCH))
                    centre_x = middle[0] - np.copysign(inwards, middle[0])
                    offset_y = self.y - middle[1] - backwards
                    part = ellipse(self.x - centre_x, offset_y, width, depth, 2.15)
                    thigh = np.minimum(thigh, part)
            thigh = intersection(thigh, z - 40, 60)
            trunk = union(trunk, thigh, 14)
        if patient.male and -130 < z < -30:
            front = -0.42 * patient.half_depth
            sack = ellipsoid((self.x, self.y, self.z), (0, front, -84), (28, 28, 26))
            trunk = union(trunk, sack, 10)
        cleft_depth = np.interp(z, (-80, -30, 40, 75), (40, 34, 16, 0))
        back = patient.couch_top
        cleft = capsule((self.x, self.y), (0, back - cleft_depth), (0, back + 10), 0.5, 3.0)
        trunk = intersection(trunk, -cleft, 6)
        return intersection(trunk, self.y - self.couch_surface + 1, 12)

    def paint_body(self):
        patient, z = self.patient, float(self.z)
        skin = self._skin_distance()
        angle = np.arctan2(self.y - 16, self.x)
        thick = 1 + 0.22 * np.sin(2 * angle + patient.fat_phases[0])
        thick += 0.15 * np.sin(3 * angle + patient.fat_phases[1])
        fat = patient.fat * thick * np.interp(z, (-300, -120, 0, 100), (0.5, 0.75, 1, 1.05))
        self.tissues[skin < 0] = Tissue.FAT
        self.tissues[(skin < 0) & (skin > -SKIN_THICKNESS)] = Tissue.SKIN
        perineum = np.exp(-((self.x / 55) ** 2)) * np.interp(z, (-60, -30), (0.8, 0))
        flesh = skin < -fat * (1 - perineum)
        rows, columns = np.nonzero(flesh)
        self.tissues[rows, columns] = self._muscles(self.x[0, columns], self.y[rows, 0])
        self._paint_cavity(skin, fat)
        for marker_x, marker_z in patient.skin_markers:
            if abs(z - marker_z) < 4:
                ring = np.abs(self.x - marker_x * patient.half_width) < 2.2
                front = (self.y < 30) & (skin > 0) & (skin < 2.6)
                self.tissues[ring & front] = Tissue.SKIN_MARKER

    def _muscles(self, x, y) -> np.ndarray:
        scale = self.patient.half_width / 200
        lines = [
            [np.interp(self.z, MUSCLE_HEIGHTS, line[:, axis]) for axis in (0, 1)]
            for line in MUSCLE_LINES
        ]
        nearest = np.full(x.shape, np.inf, np.float32)
        second = nearest.copy()
        wobble = 5 * np.sin(x / 17 + self.z / 40) + 5 * np.sin(y / 13 - self.z / 55)
        side = np.abs(x) + wobble
        for line_x, line_y in lines:
            distance = np.hypot(side - line_x * scale, y + wobble - line_y * scale)
            second = np.minimum(second, np.maximum(nearest, distance))
            nearest = np.minimum(nearest, distance)
        gap = 3.6 + 2.4 * np.sin(x / 29 + y / 23 + self.z / 60)
        return np.where(second - nearest < gap, Tissue.FAT, Tissue.MUSCLE).astype(np.uint8)

    def _paint_cavity(self, skin, fat):
        z = float(self.z)
        if z < PELVIC_FLOOR:
            self.cavity = np.full(self.tissues.shape, np.inf, np.float32)
            return
        heights = (PELVIC_FLOOR, -10, 30, 60, 100, 170)
        centre_y = np.interp(z, heights, (10, 6, 0, -22, -34, -34))
        width = np.interp(z, heights, (30, 47, 56, 86, 112, 122)) * self.patient.scale
        depth = np.interp(z, heights, (30, 48, 60, 60, 52, 52)) * self.patient.half_depth / 124
        cavity = ellipse(self.x, self.y - centre_y, width, depth, 2.3)
        psoas_x = np.interp(z, (20, 60, 100, 170), (78, 66, 50, 42))
        psoas_y = np.interp(z, (20, 60, 100, 170), (-34, -12, 4, 6))
        psoas = ellipse(np.abs(self.x) - psoas_x, self.y - psoas_y, 21, 24)
        spine = ellipse(self.x, self.y - 40, 40, np.interp(z, (70, 100), (10, 58)))
        cavity = np.maximum(cavity, np.maximum(skin + fat + 9, -np.minimum(psoas, spine)))
        self.tissues[cavity < 0] = Tissue.FAT
        self.cavity = cavity

    def paint_organs(self):
        patient, z = self.patient, self.z
        for loop in patient.bowel:
            low, high = loop.nodes.min(axis=0) - 20, loop.nodes.max(axis=0) + 20
            window = self.window(low, high)
            if window is None:
                continue
            points = self.x[:, window[1]], self.y[window[0]], z
            distance = np.inf
            for start, end in zip(loop.nodes, loop.nodes[1:], strict=False):
                rod = capsule(points, start, end, loop.radius, loop.radius)
                distance = np.minimum(distance, rod)
            distance = np.maximum(distance, self.cavity[window] + 1)
            content = np.where(points[1] < loop.gas_above, Tissue.GAS, loop.content)
            self._fill(window, distance, content, wall_mm=2.2)
        rectum_x = np.interp(z, (-60, 0, 40, 90), (0, 0, 8, 25))
        rectum_y = np.interp(z, (-60, -30, 10, 40, 90), (55, 50, 50, 38, -10))
        radius = np.interp(z, (-65, -60, -40, 0, 80, 95), (0, 9, 15, 19, 14, 0))
        if -64 < z < 90:
            distance = np.hypot(self.x - rectum_x, (self.y - rectum_y) * 1.15) - radius
            content = np.where(self.y < rectum_y - 4 + 0 * self.x, Tissue.GAS, Tissue.FLUID)
            self._fill((slice(None), slice(None)), distance, content, wall_mm=3.5)
        points = self.x, self.y, z
        gland = ellipsoid(points, (0, -6, -24), (24, 20, 20 if patient.male else 16))
        self.tissues[gland < 0] = Tissue.MUSCLE
        width, depth, height = patient.bladder
        bladder = ellipsoid(points, (0, -14, 2 + height * 0.8), (width, depth, height))
        content = np.where(
            self.y > patient.bladder_contrast + 0 * self.x, Tissue.BOWEL_CONTRAST, Tissue.FLUID
        )
        self._fill((slice(None), slice(None)), bladder, content, wall_mm=3)

    def _fill(self, window, distance, content, wall_mm: float):
        region = self.tissues[window]
        region[distance < 0] = Tissue.BOWEL_WALL
        inside = distance < -wall_mm
        region[inside] = np.broadcast_to(content, region.shape)[inside]

    def paint_vessels(self):
        patient, z = self.patient, float(self.z)
        size = np.interp(z, (-400, 0, 140, 160), (3.2, 4.2, 6, 8))
        blood = Tissue.ENHANCED_BLOOD if patient.vessels_enhanced else Tissue.BLOOD
        body = self.tissues >= Tissue.GAS
        for side, femur in zip((1, -1), FEMURS, strict=True):
            (bone,) = (bone for bone in patient.skeleton if bone.number == femur)
            line = [
                (height, side * middle[0] - inwards, middle[1] - forwards)
                for height, inwards, forwards in THIGH_ARTERY
                for middle in (femur_middle(bone, height),)
            ]
            heights, artery_xs, artery_ys = zip(*line, *PELVIC_ARTERY, strict=True)
            artery_x = np.interp(z, heights, artery_xs)
            artery_y = np.interp(z, heights, artery_ys)
            away = np.hypot(self.x - side * artery_x, self.y - artery_y)
            vein = np.hypot(self.x - side * (artery_x - 11), self.y - artery_y - 7)
            self.tissues[body & (vein < size * 1.25)] = Tissue.BLOOD
            self.tissues[body & (away < size)] = blood
            if patient.calcified and np.sin(z / 6 + side) > 0.2:
                plaque = (np.abs(away - size) < 0.9) & (self.y > artery_y)
                self.tissues[body & plaque] = Tissue.CALCIFICATION

    def paint_discs(self):
        for bone in self.patient.skeleton:
            window = self.window(*bone.frame.bounds(bone.low, bone.high))
            if bone.number in VERTEBRAE and window is not None:
                points = bone.frame.local((self.x[:, window[1]], self.y[window[0]], self.z))
                self.tissues[window][disc_distance(points) < 0] = Tissue.CARTILAGE

    def paint_seeds(self):
        for x, y, z in self.patient.gold_seeds:
            if abs(self.z - z) < 2.5:
                rows, columns = np.nonzero(np.hypot(self.x - x, self.y - y) < 1.2)
                self.tissues[rows, columns] = Tissue.GOLD_SEED

    def paint_bone(self, bone: Bone):
        window = self.window(*bone.frame.bounds(bone.low, bone.high))
        if window is None:
            return
        points = bone.frame.local((self.x[:, window[1]], self.y[window[0]], self.z))
        distance = bone.distance(points) * bone.frame.scale
        tissues, bones = self.tissues[window], self.bones[window]
        older = bones > 0
        gap = older & (distance < bone.joint_gap_mm)
        tissues[older & (distance < bone.joint_gap_mm + 1.2)] = Tissue.THIN_CORTICAL
        tissues[gap] = Tissue.CARTILAGE
        bones[gap] = 0
        inside = distance < 0
        cortex = bone.cortex(points)
        inner = distance < -cortex
        bones[inside] = bone.number
        shell = np.where(cortex > DENSE_CORTEX, np.uint8(Tissue.CORTICAL), Tissue.THIN_CORTICAL)
        if bone.number in (SACRUM, *VERTEBRAE):
            shell = np.uint8(Tissue.VERTEBRAL_SHELL)
        tissues[inside] = np.broadcast_to(shell, inside.shape)[inside]
        filling = np.uint8(Tissue.SPARSE_TRABECULAR if bone.number == SACRUM else Tissue.TRABECULAR)
        if bone.number in FEMURS:
            height = points[2]
            sparse = np.where(height > -28, filling, np.uint8(Tissue.SPARSE_TRABECULAR))
            filling = np.where((height < -75) & (height > -330), np.uint8(Tissue.MARROW), sparse)
        tissues[inner] = np.broadcast_to(filling, inside.shape)[inner]
