"""A seed -> a patient on the couch: build, bones, organs and findings.

The patient's x grows to the left, y to the back, z to the head, in mm; z is 0 at the hip
joints.
"""

from copy import copy
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from bonelib.phantom.skeleton import FEMURS, SPINE_TOP, Ageing, Frame, build_skeleton
from bonelib.phantom.tissues import Tissue

THIGH_SCANS = 0.3  # share of scans of the thighs; in the paper, pelves are the minority
LONG_SCAN_MM = 400.0  # a scan of this length shows thighs and pelvis
MEAN_FAT_MM = 28.0
WIDTH, DEPTH = 201.0, 124.0  # half the trunk's at the hips, with mean fat
FLESH_WIDTH, FLESH_DEPTH = WIDTH - MEAN_FAT_MM, DEPTH - MEAN_FAT_MM
BOWEL_LOOPS = 26


@dataclass(frozen=True)
class BowelLoop:
    """A tube of bowel bent through `nodes` (x, y, z in mm), and its content."""

    nodes: np.ndarray
    radius: float
    content: Tissue
    gas_above: float  # y in mm; gas lies in front of it


class Patient:
    """One patient on the couch; lengths in mm, angles in degrees."""

    def __init__(self, seed: int, male: bool | None = None, scale: float | None = None):
        """Draw a patient, with sex and scale of the skeleton unless they are given."""
        random = np.random.default_rng([seed, 1])
        drawn_male = bool(random.random() < 0.6)
        self.male = drawn_male if male is None else male
        size = random.normal(0.3 if self.male else -0.5, 0.9)
        self.scale = scale or float(np.clip(1.03 + 0.03 * size, 0.96, 1.09))  # of the skeleton
        fat = np.exp(random.normal(np.log(24 if self.male else 30), 0.42))
        self.fat = float(np.clip(fat, 7, 75))  # mean thickness below the skin
        # Half the trunk's width and depth at the hips, without fat.
        self.flesh_width = float(np.clip(random.normal(FLESH_WIDTH, 5) + 6 * size, 156, 190))
        self.flesh_depth = float(np.clip(random.normal(FLESH_DEPTH, 5) + 3 * size, 85, 110))
        turn = Rotation.from_euler("xyz", random.normal(0, (4, 1.2, 1.5)), degrees=True)
        # A woman's pelvis is wider and lower.
        build = np.diag((1.0, 1.0, 1.0) if self.male else (1.045, 1.0, 0.96)) * self.scale
        middle = np.array([random.normal(0, 2), 0.0, 0.0])
        self.pelvis = Frame(middle, turn.as_matrix() @ build, self.scale)
        abduction, flexion = random.uniform(-2, 5), random.normal(-2, 2)
        legs = {
            side: (1, -1, 1) * random.normal((flexion, abduction, -4), (1, 1, 7))
            for side in ("left", "right")
        }
        self.arms = bool(random.random() < 0.2)  # beside the body
        wrists = {
            side: random.uniform((22, -15, -80), (36, 45, 60)) + (self.half_width, 0, 0)
            for side in ("left", "right")
        }
        self.ageing = Ageing.draw(random)
        self.fat_phases = random.uniform(0, 2 * np.pi, 2)
        self.skeleton = build_skeleton(self.pelvis, legs, self.ageing, wrists if self.arms else {})
        # Numbers of the femurs whose head is a prosthesis.
        self.replaced_hips = tuple(number for number in FEMURS if random.random() < 0.06)
        self.couch_curve = random.choice([900.0, 1600.0, 20000.0])  # radius of its hollow
        self.cushion = float(random.choice([0.0, 0.0, random.uniform(8, 30)]))  # thickness
        self.bowel = _draw_bowel(random, self.flesh_width, self.flesh_depth)
        self.stool = bool(random.random() < 0.4)  # in the rectum, else gas and fluid
        # Half axes.
        self.bladder = random.uniform(28, 44), random.uniform(22, 32), random.uniform(20, 34)
        self.bladder_contrast = random.choice([5.0, -500.0, 500.0, 500.0])  # lies behind this y
        self.catheter = bool(random.random() < 0.15)
        self.ureters_enhanced = bool(random.random() < 0.3)
        self.vessels_enhanced = bool(random.random() < 0.5)
        self.calcified = bool(random.random() < 0.6)
        self.gold_seeds = draw_seeds(random) if self.male and random.random() < 0.5 else ()
        self.skin_markers = markers_at(random.uniform(-20, 60))
        # The share of a scan's spare length that goes to the head.
        self.scan_upwards = random.uniform(0.4, 0.7)
        # The upper end of a scan of the thighs; None for one of the pelvis.
        self.thigh_top = random.uniform(-110, 60) if random.random() < THIGH_SCANS else None

    def replace(self, **traits) -> "Patient":
        """Return a copy with other traits."""
        other = copy(self)
        vars(other).update(traits)
        return other

    @property
    def half_width(self) -> float:
        """Return half the width of the trunk at the hips."""
        return self.flesh_width + self.fat

    @property
    def half_depth(self) -> float:
        """Return half the depth of the trunk at the hips, with room for the sacrum."""
        return max(self.flesh_depth + self.fat, 101 * self.scale)

    @property
    def obesity(self) -> float:
        """Return 0 for mean fat, 1 for the fattest, less than 0 for a thin patient."""
        return (self.fat - MEAN_FAT_MM) / 47

    @property
    def couch_top(self) -> float:
        """Return the y of the surface that the body lies on, at its middle."""
        return 16 + 0.955 * self.half_depth

    def positions_mm(self, num_slices: int, distance_mm: float) -> np.ndarray:
        """Return the z of each slice, feet to head.

        A scan of the pelvis shows femoral shaft, hip and sacrum. A longer one extends at both
        ends, but not above L4; a shorter one ends lower. A scan of the thighs ends at or below
        the hip joint, unless it is long enough for both.
        """
        span = (num_slices - 1) * distance_mm
        lowest, highest = -86 * self.scale, 104 * self.scale
        spare = span - (highest - lowest)
        top = highest + spare * (self.scan_upwards if spare > 0 else 1.0)
        top = min(top, (SPINE_TOP - 6) * self.scale)
        if self.thigh_top is not None and span < LONG_SCAN_MM:
            top = self.thigh_top * self.scale
        return top - distance_mm * np.arange(num_slices - 1, -1, -1, dtype=np.float64)


def draw_seeds(random) -> tuple[tuple[float, ...], ...]:
    """Draw x, y, z of three gold seeds in the prostate."""
    return tuple(map(tuple, random.normal((0, -8, -22), (9, 8, 9), (3, 3))))


def markers_at(z_mm: float) -> tuple[tuple[float, float], ...]:
    """Return three skin markers, x in half widths and z."""
    return tuple((x, z_mm) for x in (-0.8, 0.0, 0.8))


def _draw_bowel(random, flesh_width: float, flesh_depth: float) -> tuple[BowelLoop, ...]:
    loops = []
    opaque = random.random() < 0.7
    for _ in range(BOWEL_LOOPS):
        start = random.uniform((-0.58, -0.8, 25), (0.58, -0.13, 175))
        start *= flesh_width, flesh_depth, 1
        steps = random.normal(0, (26, 12, 16), (3, 3))
        nodes = np.vstack([start, start + np.cumsum(steps, axis=0)]).astype(np.float32)
        content = Tissue.BOWEL_CONTRAST if opaque and random.random() < 0.6 else Tissue.FLUID
        gas_above = nodes[:, 1].mean() - random.uniform(-6, 16)
        loops.append(BowelLoop(nodes, random.uniform(9, 17), content, gas_above))
    return tuple(loops)
