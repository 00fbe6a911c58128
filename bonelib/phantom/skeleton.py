"""The bones as signed distances, each in its own frame; `skeleton.yaml` holds the dimensions.

Distances are in mm, negative inside. Points are a tuple (x, y, z) of arrays in mm that
broadcast against each other.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation

_DIMENSIONS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
BONE_NAMES = _DIMENSIONS["names"]
FEMURS = (4, 5)  # numbers in BONE_NAMES
FEMORAL_HEAD, HEAD_RADIUS = _DIMENSIONS["femoral_head"].values()
SPINE_TOP = _DIMENSIONS["spine_top"]

Points = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Frame:
    """A position, orientation and scale: world = origin + axes @ local, both in mm."""

    origin: np.ndarray  # (3,), mm
    axes: np.ndarray  # (3, 3), columns are the local axes times the scale
    scale: float

    def child(self, origin, degrees=(0.0, 0.0, 0.0), mirror: bool = False) -> "Frame":
        """Return a frame at `origin` in this one, rotated about x, y and z by `degrees`.

        With `mirror` its x axis is reversed, which turns a left bone into a right one.
        """
        flip = np.diag([-1.0 if mirror else 1.0, 1.0, 1.0])
        turn = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
        return Frame(
            self.origin + self.axes @ flip @ np.asarray(origin), self.axes @ flip @ turn, self.scale
        )

    def local(self, points: Points) -> Points:
        """Return world `points` in this frame."""
        inverse = np.linalg.inv(self.axes).astype(np.float32)
        x, y, z = (np.float32(p) - np.float32(o) for p, o in zip(points, self.origin, strict=True))
        return tuple(row[0] * x + row[1] * y + row[2] * z for row in inverse)

    def bounds(self, low, high) -> np.ndarray:
        """Return the world's (2, 3) lowest and highest corner of the local box low..high."""
        corners = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij")).reshape(3, -1)
        world = self.origin[:, None] + self.axes @ corners
        return np.stack([world.min(axis=1), world.max(axis=1)])


def ellipsoid(points: Points, centre, radii):
    """Return the distance to an ellipsoid, to first order near its surface."""
    offsets = [(p - c) / r for p, c, r in zip(points, centre, radii, strict=True)]
    ratio = np.sqrt(sum(o**2 for o in offsets)) + 1e-3
    gradient = np.sqrt(sum((o / r) ** 2 for o, r in zip(offsets, radii, strict=True)))
    return ratio * (ratio - 1) / (gradient + 1e-5)


def capsule(points: Points, start, end, start_radius, end_radius):
    """Return the distance to a rod with round ends and a linearly changing radius."""
    axis = [e - s for s, e in zip(start, end, strict=True)]
    offsets = [p - s for p, s in zip(points, start, strict=True)]
    length_squared = sum(a**2 for a in axis) + 1e-6
    along = sum(o * a for o, a in zip(offsets, axis, strict=True)) / length_squared
    along = np.clip(along, 0, 1)
    distance = np.sqrt(sum((o - along * a) ** 2 for o, a in zip(offsets, axis, strict=True)))
    return distance - (start_radius + along * (end_radius - start_radius))


def ellipse(x, y, half_width, half_depth, exponent=2.0):
    """Return the distance along the ray from the centre to a (super)ellipse around 0, 0."""
    ratio = (np.abs(x / half_width) ** exponent + np.abs(y / half_depth) ** exponent) ** (
        1 / exponent
    )
    return np.hypot(x, y) * (1 - 1 / (ratio + 1e-4))


def union(first, second, blend_mm):
    """Return the union, with its crease filled over about `blend_mm`."""
    overlap = np.maximum(blend_mm - np.abs(first - second), 0) / blend_mm
    return np.minimum(first, second) - overlap**2 * blend_mm / 4


def intersection(first, second, blend_mm):
    """Return the intersection, with its edge rounded over about `blend_mm`."""
    return -union(-first, -second, blend_mm)


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


@dataclass(frozen=True)
class Bone(ABC):
    """One bone of a patient; subclasses have its shape."""

    number: int  # of BONE_NAMES
    frame: Frame
    ageing: Ageing

    @property
    def dimensions(self) -> dict:
        """Return the dimensions in `skeleton.yaml`."""
        return _DIMENSIONS[type(self).__name__.lower()]

    @abstractmethod
    def distance(self, points: Points) -> np.ndarray:
        """Return the distance to the surface in the frame, negative inside."""

    def cortex(self, points: Points) -> np.ndarray | float:
        """Return the thickness of the cortex in mm."""
        return self.dimensions["cortex"] * self.ageing.wall

    def density(self, points: Points) -> np.ndarray | float:
        """Return the density of the inside, for `tissues.spongy`."""
        return self.dimensions["density"] + self.ageing.density


def _add_parts(bone, points: Points, parts: list[dict]):
    """Return the bone blended with rods and ellipsoids, each in turn."""
    for part in parts:
        if "rod" in part:
            distance = capsule(points, *part["rod"], *part["radii"])
        else:
            distance = ellipsoid(points, part["centre"], part["radii"])
        blend = part.get("blend")
        bone = union(bone, distance, blend) if blend else np.minimum(bone, distance)
    return bone


def _by_height(levels: dict[float, list]) -> Callable:
    """Return a smooth interpolator in z of the rows in `levels`, constant outside them."""
    heights, rows = list(levels), np.array(list(levels.values()), np.float64)
    step = 0.5
    grid = np.arange(heights[0], heights[-1] + step, step)
    inside = np.clip(grid, heights[0], heights[-1])
    values = PchipInterpolator(heights, rows)(inside).astype(np.float32)

    def look_up(z) -> list[np.ndarray]:
        index = np.clip((z - heights[0]) / step + 0.5, 0, len(grid) - 1).astype(np.int32)
        return [column[index] for column in values.T]

    return look_up


_HIP_STRIP = _by_height(_DIMENSIONS["hip"]["strip"])
_SACRUM = _by_height(_DIMENSIONS["sacrum"]["profile"])
_SHAFT = _by_height(_DIMENSIONS["femur"]["shaft"])


def _radius(x, y, z) -> np.ndarray:
    return np.sqrt(x**2 + y**2 + z**2)


class Hip(Bone):
    """A hip bone: plate, cup of the joint and rami."""

    def distance(self, points: Points) -> np.ndarray:
        x, y, z = points
        strip = _HIP_STRIP(z)
        nodes = [strip[start : start + 3] for start in range(0, len(strip), 3)]
        bone = np.inf
        for (x0, y0, r0), (x1, y1, r1) in zip(nodes, nodes[1:], strict=False):
            bone = union(bone, capsule((x, y), (x0, y0), (x1, y1), r0, r1), 4)
        offsets = [p - c for p, c in zip(points, FEMORAL_HEAD, strict=True)]
        opening = 0.74 * offsets[0] - 0.30 * offsets[1] - 0.60 * offsets[2]
        cup = np.maximum(np.abs(_radius(*offsets) - 28.5) - 3, opening - 4 - self.ageing.lip_mm)
        bone = _add_parts(union(bone, cup, 8), points, self.dimensions["rami"])
        return np.maximum(bone, 2.2 - x)  # the symphysis' disc

    def density(self, points: Points) -> np.ndarray:
        offsets = [p - c for p, c in zip(points, FEMORAL_HEAD, strict=True)]
        above = np.clip(offsets[2] / 20, 0, 1)
        load = self.ageing.sclerosis * above * np.exp((HEAD_RADIUS - _radius(*offsets)) / 8)
        return 0.45 + load + self.ageing.density


class Sacrum(Bone):
    """A sacrum with its canal and foramina."""

    def distance(self, points: Points) -> np.ndarray:
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
        for hole in self.dimensions["foramina"]:
            radius = hole["radius"]
            radii = radius, 2.2 * radius, radius + 2
            bone = np.maximum(bone, -ellipsoid((side, y, z), hole["centre"], radii))
        return bone


class Femur(Bone):
    """The upper part of a femur."""

    def distance(self, points: Points) -> np.ndarray:
        x, y, z = points
        centre_x, centre_y, radius, _ = _SHAFT(z)
        shaft = intersection(np.hypot(x - centre_x, y - centre_y) - radius, z + 30, 8)
        bone = _add_parts(_radius(*points) - HEAD_RADIUS, points, self.dimensions["neck"])
        return _add_parts(union(bone, shaft, 8), points, self.dimensions["trochanters"])

    def cortex(self, points: Points) -> np.ndarray:
        return _SHAFT(points[2])[3] * self.ageing.wall

    def density(self, points: Points) -> np.ndarray:
        z, inside = points[2], self.dimensions["inside"]
        head = np.exp(-((_radius(*points) / HEAD_RADIUS) ** 4))
        load = head * self.ageing.sclerosis * np.clip(z / 15, 0, 1)
        return np.interp(z, inside["z"], inside["density"]) + load + self.ageing.density

    def middle(self, z_mm: float) -> tuple[float, float]:
        """Return the world x and y of the shaft's axis at the world's `z_mm`."""
        heights = np.arange(-430.0, 0.0, 5.0)
        x, y, _, _ = _SHAFT(heights)
        line = self.frame.origin[:, None] + self.frame.axes @ np.stack([x, y, heights])
        return tuple(np.interp(z_mm, line[2], line[axis]) for axis in (0, 1))

    def prosthesis(self, points: Points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the distances to a prosthesis, the lining of its cup and the resected bone."""
        x, y, z = points
        radius = _radius(*points)
        cup = np.maximum(np.abs(radius - 25) - 2, 0.74 * x - 0.30 * y - 0.60 * z - 4)
        metal = np.minimum(radius - 15, cup)
        metal = np.minimum(metal, capsule(points, (6, 1, -5), (36, 9, -33), 6.5, 7.5))
        metal = union(metal, capsule(points, (36, 9, -35), (26, 0, -155), 9.5, 5), 4)
        lining = np.maximum(radius - 23, 0.74 * x - 0.30 * y - 0.60 * z)
        along = (40 * x + 9 * y - 34 * z) / 53.3
        return metal, lining, np.maximum(along - 24, radius - 45)


class Vertebra(Bone):
    """A lumbar vertebra."""

    def distance(self, points: Points) -> np.ndarray:
        x, y, z = points
        ratio = np.hypot(x / 27, y / 18.5) + 1e-3
        wall = np.hypot(x, y) * (1 - 1 / ratio) + 2 * (1 - (z / 14) ** 2).clip(0, 1)
        rim = np.exp(-(((np.abs(z) - 13) / 4) ** 2))
        wall = wall - self.ageing.lip_mm * rim * (0.6 + 0.4 * x / 27)
        bone = intersection(wall, np.abs(z) - 14, 3)
        half, flat = (np.abs(x), y, z), (np.abs(x), y, z * 0.5)
        bone = _add_parts(bone, half, self.dimensions["pedicle"])
        bone = _add_parts(bone, flat, self.dimensions["lamina"])
        bone = _add_parts(bone, half, self.dimensions["processes"])
        return np.maximum(bone, 10 - np.hypot(x / 1.25, y - 29))  # canal

    def disc(self, points: Points) -> np.ndarray:
        """Return the distance to the disc below."""
        return ellipsoid(points, (0, 1, -19), (25, 17, 9))


class Arm(Bone):
    """The bones of a forearm and hand."""

    def distance(self, points: Points) -> np.ndarray:
        bone = _add_parts(np.inf, points, self.dimensions["parts"])
        fingers = self.dimensions["fingers"]
        for knuckle, tip, length in fingers["rays"]:
            for top, end, radius in fingers["bones"]:
                ends = (
                    (0, knuckle + (tip - knuckle) * -level / 157, level * length)
                    for level in (top, end)
                )
                bone = np.minimum(bone, capsule(points, *ends, radius, radius))
        return bone

    def cortex(self, points: Points) -> np.ndarray:
        return np.where(points[2] > 30, 3.2, 1.2) * self.ageing.wall

    def density(self, points: Points) -> np.ndarray:
        inside = self.dimensions["inside"]
        return np.interp(points[2], inside["z"], inside["density"]) + self.ageing.density

    def skin(self, points: Points) -> np.ndarray:
        """Return the distance to the skin in a slice."""
        x, y, z = points
        heights, width, depth = self.dimensions["skin"].values()
        arm = ellipse(x, y, np.interp(z, heights, width), np.interp(z, heights, depth))
        thumb = capsule(points, (-4, -24, -26), (-10, -46, -64), 14, 11)
        return np.where((z > -172) & (z < 400), np.minimum(arm, thumb), np.float32(np.inf))


KINDS = {"hip": Hip, "sacrum": Sacrum, "femur": Femur, "vertebra": Vertebra, "arm": Arm}


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
    for side, sign in (("left", 1.0), ("right", -1.0)):
        hip = pelvis.child((0, 0, 0), mirror=sign < 0)
        frames[f"hip_{side}"] = hip
        frames[f"femur_{side}"] = hip.child(FEMORAL_HEAD, leg_degrees[side])
        if side in wrists:
            x, y, z = wrists[side]
            frames[f"arm_{side}"] = Frame(np.array([sign * x, y, z]), np.diag([sign, 1, 1]), 1.0)
    for name, vertebra in _DIMENSIONS["vertebrae"].items():
        frames[name] = pelvis.child(vertebra["centre"], (vertebra["tilt"], 0, 0))
    return [
        KINDS[name.split("_")[0]](number, frames[name], ageing)
        for number, name in BONE_NAMES.items()
        if name in frames
    ]
