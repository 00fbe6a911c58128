"""A mask of bone -> the pose of a standard pelvis in it, and distances to the standard's bones.

The standard is the phantom's adult. It is moved, turned and stretched until its surface fits
that of the mask. Points are (z, y, x) in mm, towards the head, the back and the patient's left.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from bonelib.phantom.skeleton import BONE_NAMES, Ageing, Bone, Frame, build_skeleton

STEP_MM = 3.0  # of the standard's grid and of the mask that it is fitted to
LOWEST_MM = np.array([-180.0, -93.0, -165.0])  # the standard's box; femurs continue below it
HIGHEST_MM = np.array([186.0, 120.0, 165.0])
SPINE_TOP_MM = 165.0  # the standard's last vertebra; above it, the spine is a straight column
SPINE_MIDDLE_MM, SPINE_RADIUS_MM = (30.0, 0.0), 50.0  # of that column: (y, x); with processes
SPINE = "spine"
NAMES = ("hip_left", "hip_right", "sacrum", "femur_left", "femur_right", SPINE)
CAP_MM = 20.0  # distances are cut to this, so that bone without a counterpart has no pull
CLOSE_MM = 8.0  # surfaces closer than this count as the same
UNSEEN_MM = 10.0  # a point of the standard outside the scan counts as this far from bone
SAMPLES = 1200  # surface points compared in each direction
STARTS, START_STEP_MM = 4, 15.0
MIN_VISIBLE = 0.15  # share of the standard's surface below the spine that the scan must show
# One unit of the fit: of shifts in mm, of rotations in rad, of logarithms of stretches.
UNITS = np.repeat([20.0, 0.2, 0.1], 3)
STIFFNESS = 1.0  # keeps rotations near 0 and stretches near 1 and alike in all directions


@dataclass(frozen=True)
class Pose:
    """Position, rotation and size: standard = stretch @ rotation @ (point - centre), in mm."""

    values: np.ndarray  # centre, rotation vector, logarithms of the stretches

    @property
    def matrix(self) -> np.ndarray:
        """Return stretch @ rotation."""
        turn = Rotation.from_rotvec(self.values[3:6]).as_matrix()
        return np.exp(self.values[6:])[:, None] * turn

    def to_standard(self, points_mm: np.ndarray) -> np.ndarray:
        """Map points of the mask to the standard's frame."""
        return (points_mm - self.values[:3]) @ self.matrix.T

    def from_standard(self, points_mm: np.ndarray) -> np.ndarray:
        """Map points of the standard to the mask's frame."""
        return points_mm @ np.linalg.inv(self.matrix).T + self.values[:3]


@dataclass(frozen=True)
class Field:
    """What a scan shows of the space around a mask; positions are mm from the mask's corner."""

    scanned: np.ndarray  # bool (slice, row, column)
    spacing_mm: np.ndarray
    corner_mm: np.ndarray  # the mask's, from the scan's

    @classmethod
    def of_scan(cls, shape, spacing_mm, corner_mm, body: np.ndarray | None) -> "Field":
        """Return the field of a scan.

        Empty slices, and what lies above or below the patient in a column, may be padding or
        the corners of a straightened scan, so they count as not scanned.
        """
        scanned = np.broadcast_to(True, shape)
        if body is not None:
            below = np.maximum.accumulate(body, axis=0)
            above = np.maximum.accumulate(body[::-1], axis=0)[::-1]
            scanned = ((below & above) | ~body.any(axis=0)) & body.any(axis=(1, 2), keepdims=True)
        return cls(scanned, np.array(spacing_mm, float), np.array(corner_mm, float))

    def shows(self, points_mm: np.ndarray) -> np.ndarray:
        """Tell which points (point, 3) were scanned."""
        at = np.floor((points_mm + self.corner_mm) / self.spacing_mm).astype(int)
        inside = ((at >= 0) & (at < self.scanned.shape)).all(axis=1)
        inside[inside] = self.scanned[tuple(at[inside].T)]
        return inside

    def heights_mm(self) -> tuple[float, float]:
        """Return the lowest and the highest z of what was scanned."""
        slices = np.flatnonzero(self.scanned.any(axis=(1, 2)))
        ends_mm = np.array([slices[0], slices[-1] + 1]) * self.spacing_mm[0]
        return tuple(ends_mm - self.corner_mm[0])


@cache
def standard_bones() -> dict[str, Bone]:
    """Return the bones of the standard by name."""
    legs = {"left": (0.0, 0.0, 0.0), "right": (0.0, 0.0, 0.0)}
    frame = Frame(np.zeros(3), np.eye(3), 1.0)
    skeleton = build_skeleton(frame, legs, Ageing(0.0, 1.0, 0.0, 0.3), {})
    return {BONE_NAMES[bone.number]: bone for bone in skeleton}


@cache
def standard() -> np.ndarray:
    """Return the signed distance in mm, negative inside, to each of `NAMES`: (name, z, y, x)."""
    axes = [np.arange(*ends, STEP_MM) for ends in zip(LOWEST_MM, HIGHEST_MM + 1, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    inside = {name: np.zeros(z.shape, bool) for name in NAMES if not name.endswith("right")}
    for name, bone in standard_bones().items():
        if not name.endswith("right"):  # the left one's mirror image
            part = inside[SPINE if name.startswith("vertebra") else name]
            part |= bone.distance(bone.frame.local((x, y, z))) <= 0
    signed = {name: _signed_distance(part, STEP_MM) for name, part in inside.items()}
    mirrored = {name.replace("left", "right"): part[..., ::-1] for name, part in signed.items()}
    return np.stack([(mirrored | signed)[name] for name in NAMES])


def _signed_distance(inside, step_mm):
    measure = ndimage.distance_transform_edt
    return (step_mm * (measure(~inside) - measure(inside))).astype(np.float32)


def locate(bone: np.ndarray, step_mm: float, field: Field) -> tuple[Pose, float]:
    """Return the best pose of the standard, and the share of its visible surface that fits.

    The share is 0 if too little of the standard is within the scan. `bone` is a mask on an
    isotropic grid of `step_mm` whose corner is at 0.
    """
    surface = bone & ~ndimage.binary_erosion(bone, border_value=1)
    points = _some(np.argwhere(surface) * step_mm, SAMPLES)
    distance = step_mm * ndimage.distance_transform_edt(~surface)
    distance = np.minimum(distance, CAP_MM).astype(np.float32)
    nearest = np.minimum(np.abs(standard()).min(axis=0), CAP_MM)
    inner = standard().min(axis=0)
    model = np.argwhere((inner <= 0) & (inner > -1.5 * STEP_MM)) * STEP_MM + LOWEST_MM
    model = _some(model, SAMPLES)
    pelvic = _sample(standard()[NAMES.index(SPINE)], model, 0) > STEP_MM

    def compare(pose: Pose) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        to_model = _sample(nearest, _as_thigh_below(pose.to_standard(points)), CAP_MM)
        back = pose.from_standard(model)
        seen = field.shows(back)
        to_mask = ndimage.map_coordinates(
            distance, (back / step_mm).T, order=1, mode="constant", cval=CAP_MM
        )
        return to_model, to_mask, seen

    def residuals(units: np.ndarray) -> np.ndarray:
        to_model, to_mask, seen = compare(Pose(units * UNITS))
        _, _, _, *turns, x, y, z = units
        shape = np.array([*turns, x, y, z, x - y, y - z])
        return np.r_[
            to_model / np.sqrt(len(points)),
            np.where(seen, to_mask, 0) / np.sqrt(len(model)),
            STIFFNESS * shape,
        ]

    def cost(units: np.ndarray) -> float:
        _, _, seen = compare(Pose(units * UNITS))
        unseen = UNSEEN_MM**2 * (1 - seen.mean())
        return (residuals(units) ** 2).sum() + unseen

    starts = sorted(_starts(bone, step_mm, field), key=cost)[:STARTS]
    fits = [least_squares(residuals, start, diff_step=1e-2, max_nfev=25).x for start in starts]
    best = Pose(min(fits, key=cost) * UNITS)
    _, to_mask, seen = compare(best)
    enough = seen[pelvic].mean() >= MIN_VISIBLE
    return best, float((to_mask[seen & pelvic] < CLOSE_MM).mean()) if enough else 0.0


def _starts(bone, step_mm, field):
    """Yield upright poses at all heights, in units of the fit, with the centres of bone aligned.

    The scan may show half of the pelvis, so the standard's centre is that of all its bone, of
    its left half or of its right half.
    """
    points = _some(np.argwhere(bone) * step_mm, 20 * SAMPLES)
    model = _some(np.argwhere(standard().min(axis=0) <= 0) * STEP_MM + LOWEST_MM, 20 * SAMPLES)
    low, high = np.add(field.heights_mm(), (-STEP_MM, STEP_MM))
    for height in np.arange(low - HIGHEST_MM[0], high - LOWEST_MM[0], START_STEP_MM):
        z, local = model[:, 0] + height, points[:, 0] - height
        seen = model[(z >= low) & (z <= high)]
        shown = points[(local >= LOWEST_MM[0]) & (local <= HIGHEST_MM[0])]
        for part in (seen, seen[seen[:, 2] > 0], seen[seen[:, 2] < 0]):
            if len(part) and len(shown):
                middle = shown.mean(axis=0) - part.mean(axis=0)
                yield np.r_[height, middle[1:], np.zeros(6)] / UNITS


def distances(pose: Pose, points_mm: np.ndarray) -> np.ndarray:
    """Return the distances in mm of points (point, 3) to each of `NAMES`: (point, name)."""
    places = pose.to_standard(points_mm)
    inside = np.clip(_as_thigh_below(places), LOWEST_MM, HIGHEST_MM)
    beyond = np.linalg.norm(_as_thigh_below(places) - inside, axis=1)
    found = np.stack([_sample(part, inside, 0) + beyond for part in standard()], axis=1)
    above = places[:, 0] > SPINE_TOP_MM
    aside = np.linalg.norm(places[above, 1:] - SPINE_MIDDLE_MM, axis=1)
    spine = NAMES.index(SPINE)
    found[above, spine] = np.minimum(found[above, spine], aside - SPINE_RADIUS_MM)
    return found


def _as_thigh_below(places: np.ndarray) -> np.ndarray:
    """Move places below the standard's box to its lowest slice, so that femurs continue."""
    return np.c_[np.maximum(places[:, :1], LOWEST_MM[0]), places[:, 1:]]


def _sample(volume, places, outside) -> np.ndarray:
    indices = ((places - LOWEST_MM) / STEP_MM).T
    return ndimage.map_coordinates(volume, indices, order=1, mode="constant", cval=outside)


def _some(points: np.ndarray, count: int) -> np.ndarray:
    """Return about `count` of the points, evenly spaced in their order."""
    return points[:: max(1, len(points) // count)]
