"""The bones as signed distances, each in its own frame.

The pelvis frame has its origin midway between the hip joints, x to the patient's left, y to
the back, z to the head. Hip bones and femurs are described for the left side; mirrored frames
give the right side. Dimensions are those of an adult, in mm.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from bonelib.phantom.shapes import Frame, Points, capsule, ellipse, ellipsoid, intersection, union

BONE_NAMES = {
    1: "hip_left",
    2: "hip_right",
    3: "sacrum",
    4: "femur_left",
    5: "femur_right",
    6: "vertebra_L5",
    7: "vertebra_L4",
    8: "arm_left",
    9: "arm_right",
}
FEMURS, VERTEBRAE, ARMS = (4, 5), (6, 7), (8, 9)

FEMORAL_HEAD = (88.0, 0.0, 0.0)
FEMORAL_HEAD_RADIUS = 22.8
VERTEBRA_CENTRES = {"vertebra_L5": (0.0, 24.0, 123.0), "vertebra_L4": (0.0, 13.0, 159.0)}
VERTEBRA_TILTS = {"vertebra_L5": 20.0, "vertebra_L4": 9.0}  # degrees; the top leans forward
SPINE_TOP = 173.0  # the upper end plate of L4


@dataclass(frozen=True)
class Ageing:
    """Age-related changes of the bones."""

    density: float  # difference from the mean, for `tissues.spongy`; low in osteoporosis
    wall: float  # thickness of the cortex, relative
    lip_mm: float  # height of osteophytes at the rims of vertebrae and sockets
    sclerosis: float  # extra density where a hip joint bears load

    @classmethod
    def draw(cls, random) -> "Ageing":
        """Draw from a generator."""
        worn = random.random() < 0.4
        return cls(
            density=float(np.clip(random.normal(0, 0.3), -0.8, 0.6)),
            wall=float(np.clip(random.normal(1, 0.15), 0.65, 1.35)),
            lip_mm=float(random.uniform(1, 6)) if worn else 0.0,
            sclerosis=float(random.uniform(0.6, 2.0)) if worn else 0.3,
        )


def _table(levels: dict[float, tuple]) -> Callable:
    """Return a smooth interpolator in z of the rows in `levels`, constant outside them."""
    keys = sorted(levels)
    step = 0.5
    grid = np.arange(keys[0], keys[-1] + step, step)
    rows = np.array([levels[key] for key in keys], np.float64)
    values = PchipInterpolator(keys, rows)(np.clip(grid, keys[0], keys[-1])).astype(np.float32)

    def look_up(z) -> list[np.ndarray]:
        index = np.clip((z - keys[0]) / step + 0.5, 0, len(grid) - 1).astype(np.int32)
        return [column[index] for column in values.T]

    return look_up


# The hip bone's plate: at each height a bent strip from front to back, as x, y and half
# thickness of six points. Ischial tuberosity, acetabulum, greater sciatic notch, wing, crest.
_HIP_STRIP = _table(
    {
        -75: (56, 8, -5, 57, 11, -5, 58, 14, -5, 59, 17, -5, 60, 19, -5, 61, 22, -5),
        -66: (55, 4, 4.7, 56, 8, 6.2, 57, 12, 7, 59, 16, 7, 61, 20, 7, 62, 24, 6.2),
        -50: (60, 10, 5.9, 60, 13, 7.4, 61, 17, 8.9, 63, 22, 9.6, 65, 26, 9.6, 67, 30, 8.9),
        -30: (62, 14, 4.1, 62, 17, 5.4, 63, 20, 6.8, 66, 25, 8.2, 69, 29, 8.2, 71, 33, 7.5),
        -12: (72, -32, 5, 60, -20, 3.7, 57, -4, 2.2, 59, 12, 3.7, 66, 24, 6.2, 69, 36, 5.6),
        0: (80, -35, 5.6, 65, -24, 4.3, 56, -6, 2.5, 57, 10, 3.7, 63, 26, 5.6, 57, 46, 2.5),
        12: (86, -36, 6.6, 69, -24, 5.9, 58, -7, 3.3, 58, 9, 4, 63, 25, 5.9, 68, 42, 4.6),
        28: (98, -39, 5.9, 94, -20, 8.6, 86, -2, 9.9, 79, 15, 9.2, 73, 30, 7.3, 69, 45, 4),
        40: (106, -43, 6.2, 104, -22, 6.2, 97, -2, 6.2, 85, 22, 6.2, 74, 45, 7, 64, 66, 3.9),
        55: (114, -47, 5.6, 114, -23, 3.9, 106, 3, 3.9, 88, 31, 4.7, 66, 58, 8.6, 47, 90, 6.9),
        75: (122, -51, 7, 125, -26, 3.5, 116, 4, 2.6, 94, 34, 3.7, 68, 60, 9.3, 44, 95, 8.4),
        95: (129, -45, 7.3, 133, -20, 3.7, 125, 8, 2.7, 102, 37, 3.4, 74, 62, 7.8, 50, 89, 9.7),
        115: (134, -32, 7, 136, -12, 4.2, 130, 10, 3.6, 113, 34, 4.5, 94, 55, 7, 76, 72, 8),
        131: (133, -14, 5.5, 134, -4, 5, 131, 8, 5, 123, 24, 5.5, 114, 38, 6, 103, 50, 5.5),
        142: (130, 2, -5, 130, 7, -5, 128, 12, -5, 125, 18, -5, 121, 25, -5, 117, 31, -5),
    }
)


def _hip(points: Points, ageing: Ageing) -> np.ndarray:
    x, y, z = points
    values = _HIP_STRIP(z)
    nodes = [values[start : start + 3] for start in range(0, 18, 3)]
    bone = None
    for (x0, y0, r0), (x1, y1, r1) in zip(nodes, nodes[1:], strict=False):
        part = capsule((x, y), (x0, y0), (x1, y1), r0, r1)
        bone = part if bone is None else union(bone, part, 4)
    offsets = [p - c for p, c in zip(points, FEMORAL_HEAD, strict=True)]
    radius = np.sqrt(sum(o**2 for o in offsets))
    opening = 0.74 * offsets[0] - 0.30 * offsets[1] - 0.60 * offsets[2]
    cup = np.maximum(np.abs(radius - 28.5) - 3, opening - 4 - ageing.lip_mm)
    bone = union(bone, cup, 8)
    for part in (
        capsule(points, (84, -30, 10), (44, -46, 2), 8, 5.5),  # superior ramus of the pubis
        capsule(points, (44, -46, 2), (13, -50, -12), 5.5, 7.5),
        capsule(points, (12, -50, -12), (12, -44, -34), 8.5, 7.5),  # body, at the symphysis
        capsule(points, (13, -43, -38), (34, -18, -58), 5.5, 4.7),  # inferior ramus
        capsule(points, (34, -18, -58), (56, 8, -64), 4.7, 6.5),  # ramus of the ischium
    ):
        bone = union(bone, part, 6)
    return np.maximum(bone, 2.2 - x)  # the symphysis' disc


def _hip_density(points: Points, ageing: Ageing) -> np.ndarray:
    radius = np.sqrt(sum((p - c) ** 2 for p, c in zip(points, FEMORAL_HEAD, strict=True)))
    above = np.clip((points[2] - FEMORAL_HEAD[2]) / 20, 0, 1)
    return 0.45 + ageing.sclerosis * above * np.exp((FEMORAL_HEAD_RADIUS - radius) / 8)


# The sacrum: front, back and half width at the front, then the canal's half width and depth.
_SACRUM = _table(
    {
        -26: (50, 55, 4, 0, 0),
        -10: (58, 66, 7, 0, 0),
        6: (65, 77, 15, 0, 0),
        22: (68, 88, 28, 3, 2),
        42: (64, 92, 44, 7, 3.5),
        61: (53, 90, 60, 10, 5),
        80: (36, 83, 69, 13, 6),
        95: (27, 76, 70, 14, 7),
        107: (26, 72, 61, 14, 7),
        118: (30, 69, 46, 14, 7),
    }
)
# Of each pair of foramina: z, x, y, radius.
_FORAMINA = ((77, 27, 56, 6), (58, 24, 69, 5.5), (41, 20, 77, 4.5), (25, 15, 78, 3.5))


def _sacrum(points: Points, ageing: Ageing) -> np.ndarray:
    x, y, z = points
    front, back, half_width, canal_width, canal_depth = _SACRUM(z)
    side = np.abs(x)
    half_depth = (back - front) / 2
    depth = (y - (front + back) / 2) / half_depth  # -1 at the front, 1 at the back
    face = (side - half_width * (0.78 - 0.3 * depth)) * 0.85
    thin = half_depth * (1 - 0.3 * np.minimum(side / half_width, 1) ** 2)
    bow = 5 * (side / 50) ** 2 - 2  # the wings reach forward, the body bulges least
    surface = (np.abs(y - (front + back) / 2 + bow) - thin) * 0.8
    bone = intersection(face, surface, 10)
    crest = np.maximum(np.hypot(x, 0.5 * (y - back - 1)) - 4.5, z - 71)
    bone = union(bone, crest, 5)
    plate = 0.87 * (z - 94) - 0.5 * (y - 26)  # the end plate faces up and forward
    wing = z - 102 + 0.12 * side
    base = plate + (wing - plate) * np.clip((side - 24) / 10, 0, 1)
    arch = z - 107 + 0.8 * np.maximum(y - 50, 0)
    bone = intersection(bone, np.maximum(base, arch), 4)
    bone = np.maximum(bone, -28 - z)
    for left in (-1, 1):
        facet = capsule(points, (25 * left, 64, 91), (24 * left, 61, 115), 7, 5.5)
        bone = union(bone, facet, 4)
    canal = np.hypot(
        x / np.maximum(canal_width, 0.1),
        (y - back + 0.5 * half_depth) / np.maximum(canal_depth, 0.1),
    )
    bone = np.maximum(bone, (1 - canal) * canal_depth)
    for level, centre, middle, radius in _FORAMINA:
        hole = ellipsoid((side, y, z), (centre, middle, level), (radius, 2.2 * radius, radius + 2))
        bone = np.maximum(bone, -hole)
    return bone


# The femur below its neck, in a frame at the head's centre: x, y, radius, cortex.
_SHAFT = _table(
    {
        -430: (-8, 6, 32, 1.2),
        -390: (-4, 5, 29, 1.2),
        -340: (3, 2, 20, 2.5),
        -280: (12, -2, 15.5, 5.5),
        -200: (22, -3, 14.5, 7.8),
        -120: (31, 4, 14.8, 7.6),
        -88: (34, 8, 16, 5),
        -60: (37, 10, 18.5, 2.0),
        -30: (41, 9, 19, 0.8),
        30: (41, 9, 19, 0.7),
    }
)


def _femur(points: Points, ageing: Ageing) -> np.ndarray:
    x, y, z = points
    centre_x, centre_y, radius, _ = _SHAFT(z)
    shaft = intersection(np.hypot(x - centre_x, y - centre_y) - radius, z + 30, 8)
    bone = np.sqrt(x**2 + y**2 + z**2) - FEMORAL_HEAD_RADIUS
    neck = capsule(points, (6, 1, -5), (40, 9, -34), 14, 15)
    bone = union(bone, neck, 8)
    bone = union(bone, shaft, 8)
    bone = union(bone, ellipsoid(points, (52, 16, -27), (12, 15, 20)), 8)  # greater trochanter
    return union(bone, ellipsoid(points, (24, 21, -60), (10, 9, 13)), 8)  # lesser trochanter


def _femur_cortex(points: Points) -> np.ndarray:
    return _SHAFT(points[2])[3]


def _femur_density(points: Points, ageing: Ageing) -> np.ndarray:
    x, y, z = points
    head = np.exp(-((np.sqrt(x**2 + y**2 + z**2) / FEMORAL_HEAD_RADIUS) ** 4))
    load = head * ageing.sclerosis * np.clip(z / 15, 0, 1)
    return np.interp(z, (-420, -360, -115, -75, -30, -10), (0.4, -1.2, -1.2, 0.7, 1.0, 1.6)) + load


def femur_middle(femur: "Bone", z_mm: float) -> tuple[float, float]:
    """Return the world x and y of the shaft's axis at the world's `z_mm`."""
    heights = np.arange(-430.0, 0.0, 5.0)
    x, y, _, _ = _SHAFT(heights)
    line = femur.frame.origin[:, None] + femur.frame.axes @ np.stack([x, y, heights])
    return tuple(np.interp(z_mm, line[2], line[axis]) for axis in (0, 1))


def prosthesis(points: Points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distances to a hip prosthesis, the lining of its cup and the resected bone.

    `points` are in the femur's frame.
    """
    x, y, z = points
    radius = np.sqrt(x**2 + y**2 + z**2)
    cup = np.maximum(np.abs(radius - 25) - 2, 0.74 * x - 0.30 * y - 0.60 * z - 4)
    metal = np.minimum(radius - 15, cup)
    metal = np.minimum(metal, capsule(points, (6, 1, -5), (36, 9, -33), 6.5, 7.5))
    metal = union(metal, capsule(points, (36, 9, -35), (26, 0, -155), 9.5, 5), 4)
    lining = np.maximum(radius - 23, 0.74 * x - 0.30 * y - 0.60 * z)
    along = (40 * x + 9 * y - 34 * z) / 53.3
    return metal, lining, np.maximum(along - 24, radius - 45)


def _vertebra(points: Points, ageing: Ageing) -> np.ndarray:
    x, y, z = points
    side = np.abs(x)
    ratio = np.hypot(x / 27, y / 18.5) + 1e-3
    wall = np.hypot(x, y) * (1 - 1 / ratio) + 2 * (1 - (z / 14) ** 2).clip(0, 1)
    wall = wall - ageing.lip_mm * np.exp(-(((np.abs(z) - 13) / 4) ** 2)) * (0.6 + 0.4 * x / 27)
    bone = intersection(wall, np.abs(z) - 14, 3)
    half = (side, y, z)
    bone = union(bone, capsule(half, (17, 10, 5), (18, 32, 3), 6.5, 6.5), 4)  # pedicle
    flat = (side, y, z * 0.5)
    bone = union(bone, capsule(flat, (18, 34, -1), (0, 47, -4), 4.5, 4.5), 4)  # lamina
    bone = union(bone, capsule(flat, (0, 48, -4), (0, 74, -6), 4, 5), 4)  # spinous process
    bone = union(bone, capsule(half, (19, 26, 4), (46, 31, 6), 6, 4), 4)  # transverse process
    bone = union(bone, ellipsoid(half, (22, 34, 13), (7, 7, 11)), 3)  # upper facet
    bone = union(bone, ellipsoid(half, (17, 43, -19), (7, 6, 12)), 3)  # lower facet
    return np.maximum(bone, 10 - np.hypot(x / 1.25, y - 29))  # canal


def disc_distance(points: Points) -> np.ndarray:
    """Return the distance to the disc below a vertebra, in the vertebra's frame."""
    return ellipsoid(points, (0, 1, -19), (25, 17, 9))


def _arm(points: Points, ageing: Ageing) -> np.ndarray:
    """Return the distance to a forearm and hand, palm inwards, in a frame at the wrist."""
    bone = capsule(points, (-3, -11, 12), (4, -8, 240), 9, 8)
    bone = union(bone, ellipsoid(points, (-1, -9, 12), (11, 15, 13)), 5)
    bone = np.minimum(bone, capsule(points, (3, 14, 14), (0, 15, 240), 6, 10))
    for y, z in ((-12, -9), (2, -8), (14, -10), (-14, -24), (-1, -23), (12, -23)):
        bone = np.minimum(bone, ellipsoid(points, (0, y, z), (9, 6.4, 6.6)))
    bone = np.minimum(bone, capsule(points, (-4, -24, -26), (-10, -46, -64), 5, 5))  # thumb
    for base, tip, length in ((-19, -30, 0.95), (-6, -10, 1.0), (7, 9, 0.97), (18, 26, 0.85)):
        for top, end, radius in ((-33, -88, 4.8), (-94, -130, 4.3), (-135, -157, 3.6)):
            start, stop = (
                (0, base + (tip - base) * -level / 157, level * length) for level in (top, end)
            )
            bone = np.minimum(bone, capsule(points, start, stop, radius, radius))
    return bone


def arm_outline(points: Points) -> np.ndarray:
    """Return the distance to the skin of an arm in a slice, in the frame of `_arm`."""
    x, y, z = points
    heights = (-172, -150, -90, -30, 0, 60, 150, 240)
    width = np.interp(z, heights, (2, 8, 11, 15, 20, 27, 37, 42))
    depth = np.interp(z, heights, (12, 32, 42, 34, 28, 31, 40, 45))
    arm = ellipse(x, y, width, depth)
    thumb = capsule(points, (-4, -24, -26), (-10, -46, -64), 14, 11)
    return np.where((z > -172) & (z < 400), np.minimum(arm, thumb), np.float32(np.inf))


def _arm_cortex(points: Points) -> np.ndarray:
    return np.where(points[2] > 30, 3.2, 1.2)


def _arm_density(points: Points, ageing: Ageing) -> np.ndarray:
    return np.interp(points[2], (-200, 30, 60), (0.3, 0.2, -1.5))


@dataclass(frozen=True)
class Shape:
    """The shape of one kind of bone in its own frame; lengths in mm."""

    low: tuple[float, float, float]  # its box
    high: tuple[float, float, float]
    distance: Callable[[Points, Ageing], np.ndarray]  # to the surface, negative inside
    cortex: Callable[[Points], np.ndarray | float]  # thickness
    density: Callable[[Points, Ageing], np.ndarray | float]  # inside, for `tissues.spongy`
    joint_gap_mm: float  # cartilage between it and a bone painted before it


SHAPES = {
    "hip": Shape((0, -76, -76), (150, 106, 142), _hip, lambda _: 1.9, _hip_density, 0),
    "sacrum": Shape((-80, 8, -36), (80, 112, 122), _sacrum, lambda _: 1.3, lambda *_: 0.0, 2.4),
    "femur": Shape((-42, -36, -430), (70, 42, 28), _femur, _femur_cortex, _femur_density, 3.0),
    "vertebra": Shape((-52, -26, -33), (52, 82, 26), _vertebra, lambda _: 1.1, lambda *_: 0.9, 1.6),
    "arm": Shape((-26, -58, -165), (26, 42, 250), _arm, _arm_cortex, _arm_density, 0.0),
}


@dataclass(frozen=True)
class Bone:
    """One bone of a patient."""

    number: int  # of BONE_NAMES
    frame: Frame
    shape: Shape
    ageing: Ageing

    def distance(self, points: Points) -> np.ndarray:
        """Return the distance to the surface in the frame, negative inside."""
        return self.shape.distance(points, self.ageing)

    def cortex(self, points: Points) -> np.ndarray | float:
        """Return the thickness of the cortex in mm."""
        return self.shape.cortex(points) * self.ageing.wall

    def density(self, points: Points) -> np.ndarray | float:
        """Return the density of the inside, for `tissues.spongy`."""
        return self.shape.density(points, self.ageing) + self.ageing.density


def build_skeleton(
    pelvis: Frame,
    leg_degrees: dict[str, tuple[float, float, float]],
    ageing: Ageing,
    wrists: dict[str, tuple[float, float, float]],
) -> list[Bone]:
    """Return the bones in the order of painting.

    `leg_degrees` holds flexion, abduction and rotation of the femurs, `wrists` the positions
    of the arms in mm from the middle of the hip joints, both by "left" and "right"; without
    wrists there are no arms.
    """
    frames = {"sacrum": pelvis}
    for side, mirror in (("left", False), ("right", True)):
        hip = pelvis.child((0, 0, 0), mirror=mirror)
        frames[f"hip_{side}"] = hip
        frames[f"femur_{side}"] = hip.child(FEMORAL_HEAD, leg_degrees[side])
        if side in wrists:
            x, y, z = wrists[side]
            sign = -1.0 if mirror else 1.0
            frames[f"arm_{side}"] = Frame(np.array([sign * x, y, z]), np.diag([sign, 1, 1]), 1.0)
    for name, centre in VERTEBRA_CENTRES.items():
        frames[name] = pelvis.child(centre, (VERTEBRA_TILTS[name], 0, 0))
    return [
        Bone(number, frames[name], SHAPES[name.split("_")[0]], ageing)
        for number, name in BONE_NAMES.items()
        if name in frames
    ]
