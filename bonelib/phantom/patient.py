"""A seed -> a patient on the couch: build, bones, organs and findings.

The patient's x grows to the left, y to the back, z to the head, in mm; z is 0 at the hip
joints.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from bonelib.phantom.shapes import Frame
from bonelib.phantom.skeleton import SPINE_TOP, Ageing, Bone, build_skeleton
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


@dataclass(frozen=True)
class Patient:
    """One patient on the couch; lengths in mm, angles in degrees."""

    male: bool
    flesh_width: float  # half the trunk's width at the hips, without fat
    flesh_depth: float
    fat: float  # mean thickness below the skin
    fat_phases: tuple[float, float]
    scale: float  # of the skeleton
    pelvis: Frame
    skeleton: tuple[Bone, ...]
    ageing: Ageing
    replaced_hips: tuple[int, ...]  # numbers of the femurs whose head is a prosthesis
    arms: bool  # beside the body
    couch_curve: float  # radius of its hollow
    cushion: float  # thickness of a mattress on the couch
    bowel: tuple[BowelLoop, ...]
    stool: bool  # in the rectum, else gas and fluid
    bladder: tuple[float, float, float]  # half axes
    bladder_contrast: float  # y; contrast lies behind it
    catheter: bool
    ureters_enhanced: bool
    vessels_enhanced: bool
    calcified: bool
    gold_seeds: tuple[tuple[float, float, float], ...]
    skin_markers: tuple[tuple[float, float], ...]  # x in half widths, z
    scan_upwards: float  # share of a scan's spare length that goes to the head
    thigh_top: float | None  # upper end of a scan of the thighs; None for one of the pelvis

    @classmethod
    def from_seed(
        cls, seed: int, male: bool | None = None, scale: float | None = None
    ) -> "Patient":
        """Draw a patient, with sex and scale of the skeleton unless they are given."""
        random = np.random.default_rng([seed, 1])
        drawn_male = bool(random.random() < 0.6)
        male = drawn_male if male is None else male
        size = random.normal(0.3 if male else -0.5, 0.9)
        scale = scale or float(np.clip(1.03 + 0.03 * size, 0.96, 1.09))
        fat = float(np.clip(np.exp(random.normal(np.log(24 if male else 30), 0.42)), 7, 75))
        flesh_width = float(np.clip(random.normal(FLESH_WIDTH, 5) + 6 * size, 156, 190))
        flesh_depth = float(np.clip(random.normal(FLESH_DEPTH, 5) + 3 * size, 85, 110))
        turn = Rotation.from_euler("xyz", random.normal(0, (4, 1.2, 1.5)), degrees=True)
        # A woman's pelvis is wider and lower.
        build = np.diag((1.0, 1.0, 1.0) if male else (1.045, 1.0, 0.96)) * scale
        pelvis = Frame(np.array([random.normal(0, 2), 0.0, 0.0]), turn.as_matrix() @ build, scale)
        abduction, flexion = random.uniform(-2, 5), random.normal(-2, 2)
        legs = {
            side: (1, -1, 1) * random.normal((flexion, abduction, -4), (1, 1, 7))
            for side in ("left", "right")
        }
        arms = bool(random.random() < 0.2)
        wrists = {
            side: random.uniform((22, -15, -80), (36, 45, 60)) + (flesh_width + fat, 0, 0)
            for side in ("left", "right")
        }
        ageing = Ageing.draw(random)
        return cls(
            male=male,
            flesh_width=flesh_width,
            flesh_depth=flesh_depth,
            fat=fat,
            fat_phases=tuple(random.uniform(0, 2 * np.pi, 2)),
            scale=scale,
            pelvis=pelvis,
            skeleton=tuple(build_skeleton(pelvis, legs, ageing, wrists if arms else {})),
            ageing=ageing,
            replaced_hips=tuple(number for number in (4, 5) if random.random() < 0.06),
            arms=arms,
            couch_curve=random.choice([900.0, 1600.0, 20000.0]),
            cushion=float(random.choice([0.0, 0.0, random.uniform(8, 30)])),
            bowel=_draw_bowel(random, flesh_width, flesh_depth),
            stool=bool(random.random() < 0.4),
            bladder=(random.uniform(28, 44), random.uniform(22, 32), random.uniform(20, 34)),
            bladder_contrast=random.choice([5.0, -500.0, 500.0, 500.0]),
            catheter=bool(random.random() < 0.15),
            ureters_enhanced=bool(random.random() < 0.3),
            vessels_enhanced=bool(random.random() < 0.5),
            calcified=bool(random.random() < 0.6),
            gold_seeds=draw_seeds(random) if male and random.random() < 0.5 else (),
            skin_markers=markers_at(random.uniform(-20, 60)),
            scan_upwards=random.uniform(0.4, 0.7),
            thigh_top=random.uniform(-110, 60) if random.random() < THIGH_SCANS else None,
        )

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
