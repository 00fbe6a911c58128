"""Signed distances in mm, negative inside, of the phantom's building blocks.

Points are a tuple (x, y, z) of arrays in mm that broadcast against each other.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

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
