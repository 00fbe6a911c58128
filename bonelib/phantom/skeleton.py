"""The bones as signed distances, each in a frame of its own.

The pelvis frame has its origin midway between the hip joints, x to the patient's left, y to
the back, z to the head. Hip bones and femurs are described once, for the left side; mirrored
frames make the right ones. Numbers are those of an adult, in mm.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from bonelib.phantom.shapes import Frame, Points, capsule, ellipsoid, intersection, union

BONE_NAMES = {
    1: "hip_left",
    2: "hip_right",
    3: "sacrum",
    4: "femur_left",
    5: "femur_right",
    6: "vertebra_L5",
    7: "vertebra_L4",
}

FEMORAL_HEAD = (88.0, 0.0, 0.0)
FEMORAL_HEAD_RADIUS = 24.5
VERTEBRA_CENTRES = {"vertebra_L5": (0.0, 22.0, 119.0), "vertebra_L4": (0.0, 12.0, 156.0)}
VERTEBRA_TILTS = {"vertebra_L5": 20.0, "vertebra_L4": 9.0}  # degrees; the top leans forward
SPINE_TOP = 170.0  # the upper end plate of L4


@dataclass(frozen=True)
class Bone:
    """One bone: where it is, how far its surface is, how thick its cortex is."""

    number: int  # its id in the label volume, of BONE_NAMES
    frame: Frame
    low: tuple[float, float, float]  # its box in the frame, mm
    high: tuple[float, float, float]
    distance: Callable[[Points], np.ndarray]  # mm, negative inside
    cortex: Callable[[Points], np.ndarray | float]  # thickness, mm
    joint_gap_mm: float  # cartilage that it keeps to a bone painted before it


def _table(levels: dict[float, tuple]) -> Callable:
    """Return a look-up in z of the rows in `levels`, smooth and flat outside them."""
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
        -66: (55, 4, 6, 56, 8, 8, 57, 12, 9, 59, 16, 9, 61, 20, 9, 62, 24, 8),
        -50: (60, 10, 8, 60, 13, 10, 61, 17, 12, 63, 22, 13, 65, 26, 13, 67, 30, 12),
        -30: (62, 14, 6, 62, 17, 8, 63, 20, 10, 66, 25, 12, 69, 29, 12, 71, 33, 11),
        -12: (72, -32, 8, 60, -20, 6, 57, -4, 3.5, 59, 12, 6, 66, 24, 10, 69, 36, 9),
        0: (80, -35, 9, 65, -24, 7, 56, -6, 4, 57, 10, 6, 63, 26, 9, 57, 46, 4),
        12: (86, -36, 10, 69, -24, 9, 58, -7, 5, 58, 9, 6, 63, 25, 9, 68, 42, 7),
        28: (98, -39, 9, 94, -20, 13, 86, -2, 15, 79, 15, 14, 73, 30, 11, 69, 45, 6),
        40: (106, -43, 8, 104, -22, 8, 97, -2, 8, 85, 22, 8, 74, 45, 9, 64, 66, 5),
        55: (114, -47, 6.5, 114, -23, 4.5, 106, 3, 4.5, 88, 31, 5.5, 68, 58, 10, 49, 90, 8),
        75: (122, -51, 7.5, 125, -26, 3.8, 116, 4, 2.8, 94, 34, 4, 70, 60, 10, 46, 95, 9),
        95: (129, -45, 7.5, 133, -20, 3.8, 125, 8, 2.8, 102, 37, 3.5, 76, 62, 8, 52, 89, 10),
        115: (134, -32, 7, 136, -12, 4.2, 130, 10, 3.6, 113, 34, 4.5, 94, 55, 7, 76, 72, 8),
        131: (133, -14, 5.5, 134, -4, 5, 131, 8, 5, 123, 24, 5.5, 114, 38, 6, 103, 50, 5.5),
        142: (130, 2, -5, 130, 7, -5, 128, 12, -5, 125, 18, -5, 121, 25, -5, 117, 31, -5),
    }
)


def _hip(points: Points) -> np.ndarray:
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
    cup = np.maximum(np.abs(radius - 31.5) - 5, opening - 4)
    bone = union(bone, cup, 8)
    for part in (
        capsule(points, (84, -30, 10), (44, -46, 2), 10, 7),  # superior ramus of the pubis
        capsule(points, (44, -46, 2), (13, -50, -12), 7, 9),
        capsule(points, (12, -50, -12), (12, -44, -34), 10, 9),  # body, at the symphysis
        capsule(points, (13, -43, -38), (34, -18, -58), 6.5, 5.5),  # inferior ramus
        capsule(points, (34, -18, -58), (56, 8, -64), 5.5, 8),  # ramus of the ischium
    ):
        bone = union(bone, part, 6)
    return np.maximum(bone, 2.2 - x)  # the symphysis' disc


# The sacrum: front, back and half width at the front, then the canal's half width and depth.
_SACRUM = _table(
    {
        -30: (50, 55, 5, 0, 0),
        -14: (58, 68, 9, 0, 0),
        0: (65, 79, 20, 0, 0),
        15: (69, 93, 35, 4, 2),
        35: (65, 98, 47, 9, 4),
        55: (52, 96, 62, 12, 6),
        75: (33, 88, 70, 14, 7),
        90: (22, 80, 71, 15, 8),
        102: (22, 74, 62, 15, 8),
        114: (26, 70, 48, 15, 8),
    }
)
# Of each pair of foramina: z, x, y, radius.
_FORAMINA = ((72, 27, 56, 6), (52, 24, 70, 5.5), (34, 21, 80, 5), (18, 17, 80, 4))


def _sacrum(points: Points) -> np.ndarray:
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
    crest = np.maximum(np.hypot(x, 0.5 * (y - back - 1)) - 4.5, z - 66)
    bone = union(bone, crest, 5)
    plate = 0.87 * (z - 90) - 0.5 * (y - 22)  # the end plate faces up and forward
    wing = z - 97 + 0.12 * side
    base = plate + (wing - plate) * np.clip((side - 24) / 10, 0, 1)
    arch = z - 102 + 0.8 * np.maximum(y - 50, 0)
    bone = intersection(bone, np.maximum(base, arch), 4)
    bone = np.maximum(bone, -32 - z)
    for left in (-1, 1):
        facet = capsule(points, (25 * left, 64, 86), (24 * left, 61, 112), 8, 6)
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
        -280: (12, -2, 15.5, 5),
        -200: (22, -3, 14.5, 6.5),
        -120: (31, 4, 14.8, 6.5),
        -88: (34, 8, 16, 5),
        -60: (37, 10, 18.5, 3),
        -30: (41, 9, 19, 1.6),
        30: (41, 9, 19, 1.4),
    }
)


def _femur(points: Points) -> np.ndarray:
    x, y, z = points
    centre_x, centre_y, radius, _ = _SHAFT(z)
    shaft = intersection(np.hypot(x - centre_x, y - centre_y) - radius, z + 30, 8)
    bone = np.sqrt(x**2 + y**2 + z**2) - FEMORAL_HEAD_RADIUS
    neck = capsule(points, (6, 1, -5), (40, 9, -34), 16, 17)
    bone = union(bone, neck, 8)
    bone = union(bone, shaft, 8)
    bone = union(bone, ellipsoid(points, (52, 17, -22), (14, 19, 25)), 8)  # greater trochanter
    return union(bone, ellipsoid(points, (24, 21, -60), (10, 9, 13)), 8)  # lesser trochanter


def _femur_cortex(points: Points) -> np.ndarray:
    return _SHAFT(points[2])[3]


def femur_middle(femur: Bone, z_mm: float) -> tuple[float, float]:
    """Return the world x and y of the shaft's middle line at the world's `z_mm`."""
    heights = np.arange(-430.0, 0.0, 5.0)
    x, y, _, _ = _SHAFT(heights)
    line = femur.frame.origin[:, None] + femur.frame.axes @ np.stack([x, y, heights])
    return tuple(np.interp(z_mm, line[2], line[axis]) for axis in (0, 1))


def _vertebra(points: Points) -> np.ndarray:
    x, y, z = points
    side = np.abs(x)
    ratio = np.hypot(x / 27, y / 18.5) + 1e-3
    wall = np.hypot(x, y) * (1 - 1 / ratio) + 2 * (1 - (z / 14) ** 2).clip(0, 1)
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


def build_skeleton(pelvis: Frame, leg_degrees: dict[str, tuple[float, float, float]]) -> list[Bone]:
    """Return the bones in the order of painting, with the femurs turned in their sockets.

    `leg_degrees` holds flexion, abduction and rotation of "left" and "right".
    """
    numbers = {name: number for number, name in BONE_NAMES.items()}
    skeleton = []
    for side, mirror in (("left", False), ("right", True)):
        frame = pelvis.child((0, 0, 0), mirror=mirror)
        box = (0, -72, -76), (146, 106, 142)
        skeleton.append(Bone(numbers[f"hip_{side}"], frame, *box, _hip, lambda _: 1.7, 0))
    skeleton.append(
        Bone(3, pelvis, (-80, 8, -36), (80, 112, 122), _sacrum, lambda _: 1.2, joint_gap_mm=2.4)
    )
    for side, mirror in (("left", False), ("right", True)):
        frame = pelvis.child((0, 0, 0), mirror=mirror).child(FEMORAL_HEAD, leg_degrees[side])
        box = (-42, -36, -430), (70, 42, 28)
        number = numbers[f"femur_{side}"]
        skeleton.append(Bone(number, frame, *box, _femur, _femur_cortex, joint_gap_mm=3.0))
    for name, centre in VERTEBRA_CENTRES.items():
        frame = pelvis.child(centre, (VERTEBRA_TILTS[name], 0, 0))
        box = (-52, -22, -33), (52, 82, 26)
        skeleton.append(
            Bone(numbers[name], frame, *box, _vertebra, lambda _: 1.2, joint_gap_mm=1.6)
        )
    return skeleton
