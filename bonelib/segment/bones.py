"""A mask of all bone -> single bones, each with an id and a name.

Femurs, hip bones, the sacrum and the spine are identified by a standard pelvis that is fitted
to the mask; bones that touch are cut at their narrowest place. Vertebrae are counted upwards
from the sacrum (`vertebra_1` lies on top of it and is usually L5, which a mask cannot prove),
or from the lowest one visible if the sacrum is not (`vertebra_from_lowest_1`). A thigh alone
is `femur`, because its shaft does not show its side. Any other bone (rib, arm, coccyx) is named
by its position only: `bone_left_1`, `bone_middle_1`, the largest first.
"""

import numpy as np
from scipy import ndimage, sparse
from scipy.signal import find_peaks
from scipy.special import softmax
from skimage.measure import block_reduce
from skimage.segmentation import watershed

from bonelib.segment import standard_pelvis
from bonelib.segment.standard_pelvis import NAMES, SPINE, Field

STEP_MM = 1.5  # voxel size of the working grid, about the networks' pixels
HALVING = 2  # of the working grid for fitting the pelvis: fine enough, in an eighth of the time
EDGE = 10  # voxels by which a bone is continued where the edge of the scan cuts it
SMOOTHING = 0.5  # voxels; removes the grid's steps from the depth
NEIGHBOURS = np.ones((3, 3, 3), bool)

MIN_FIT = 0.6  # share of the standard's surface within the scan that the mask must show
FAR_MM = 12.0  # parts farther from every bone of the standard are identified by contact alone
BLUR_MM = 3.0  # between a patient's bones and the fitted standard's
ALMOST_NONE, MIN_CHANCE = 1e-6, 0.01  # parts that no walk connects with a bone stay nameless
TRUST = 0.25  # weight of a voxel's distances beside a contact whose bone is 1 mm deep
SMALLEST_BONE_MM3 = 1000.0  # smaller pieces are specks
MAX_OTHERS = 100  # ids have 8 bits
MIDDLE_MM = 25.0  # half the width of what is called the middle

SHAFT_DEPTH_MM = 10.0  # least radius of a femoral shaft; a forearm's bones are thinner
SHAFT_HEIGHT_MM = 30.0
SHAFT_ROUNDNESS = 0.6  # share of a shaft's section that its largest inscribed disk covers
SIDED_HIP_MM3 = 40_000.0  # this much of a hip bone shows its side
COLUMN_OFFSET_MM = 30.0  # of a spine from the patient's middle
COLUMN_DEPTH_MM = 9.0
COLUMN_HALF_WIDTH_MM = 50.0  # with its processes; ribs reach farther

BODY_DEPTH_MM = 8.0  # a vertebral body is deeper than this, arches and processes are not
BODY_DISTANCE_MM = 20.0  # least distance between the centres of two bodies
DISC_DIP_MM = 1.0  # least loss of depth at a disc
PROFILE_SMOOTHING_MM = 2.0
VERTEBRA_HEIGHT_MM = 37.0  # distance between the centres of the standard's vertebrae
VERTEBRA_SIZES = (0.6, 1.3)  # relative to the standard's
BODY_CENTRE = 0.7  # voxels at least this deep, relative to the deepest, are a body's centre


def separate(
    bone: np.ndarray, spacing_mm: tuple[float, float, float], body: np.ndarray | None = None
) -> tuple[np.ndarray, dict[int, str]]:
    """Return the bones of a mask as ids, uint8 of the same shape, and the names by id.

    `bone` is bool (slice, row, column): slices from feet to head, rows from front to back,
    columns from the patient's right to left; `spacing_mm` has the same order. Every voxel of
    the mask gets an id, specks that of the nearest bone; 0 is no bone. `body`, the mask of the
    patient, tells padding from what was scanned, and where the patient's middle is if no
    pelvis shows it.
    """
    ids = np.zeros(bone.shape, np.uint8)
    if not bone.any():
        return ids, {}
    box, coarse, field, middle_mm = _working_grid(bone, spacing_mm, body)
    labels, names = _name(coarse, field, middle_mm)
    nearest = ndimage.distance_transform_edt(
        labels == 0, return_distances=False, return_indices=True
    )
    back = map(_nearest_indices, bone[box].shape, coarse.shape)
    ids[box] = labels[tuple(nearest)][np.ix_(*back)] * bone[box]
    return ids, names


def pelvis_fit(bone: np.ndarray, spacing_mm: tuple[float, float, float], body: np.ndarray) -> float:
    """Return how much of a standard pelvis' surface a mask shows, 0 to 1; below `MIN_FIT` none.

    The arguments are those of `separate`.
    """
    if not bone.any():
        return 0.0
    _, coarse, field, _ = _working_grid(bone, spacing_mm, body)
    return _locate(coarse, field)[1]


def _locate(bone, field):
    halved = block_reduce(bone, HALVING, np.max)
    return standard_pelvis.locate(halved, HALVING * STEP_MM, field)


def _working_grid(bone, spacing_mm, body):
    """Return the box of the bone, the mask in it at `STEP_MM`, its field and the middle in mm."""
    (box,) = ndimage.find_objects(bone.view(np.uint8))
    box = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in box)
    sizes = bone[box].shape
    counts = np.maximum(np.round(np.multiply(sizes, spacing_mm) / STEP_MM).astype(int), 1)
    coarse = bone[box][np.ix_(*map(_nearest_indices, counts, sizes))]
    if not coarse.any():  # specks between the grid's points
        coarse = np.ones_like(coarse)
    corner_mm = np.multiply([part.start for part in box], spacing_mm)
    field = Field.of_scan(bone.shape, spacing_mm, corner_mm, body)
    middle_mm = coarse.shape[2] * STEP_MM / 2
    if body is not None:  # not the middle of the bone, which may show on one side only
        halves = body.sum(axis=(0, 1)).cumsum()
        middle_mm = np.searchsorted(halves, halves[-1] / 2) * spacing_mm[2] - corner_mm[2]
    return box, coarse, field, middle_mm


def _nearest_indices(count: int, size: int) -> np.ndarray:
    """Return the indices of `count` evenly spaced points among `size` voxels."""
    return np.minimum(((np.arange(count) + 0.5) * size / count).astype(int), size - 1)


def _name(bone, field, middle_mm) -> tuple[np.ndarray, dict[int, str]]:
    """Return ids on the working grid, 0 for voxels that take their neighbours' id, and names.

    Positions are in mm from the grid's corner.
    """
    depth_mm = _depth(bone)
    pieces = _cut_at_narrows(bone, depth_mm)
    pose, fit = _locate(bone, field)
    if fit >= MIN_FIT:
        kinds = _kinds_by_pelvis(bone, depth_mm, pieces, pose)
    else:
        kinds = _kinds_without_pelvis(bone, depth_mm, middle_mm)
    parts = {name: kinds == number for number, name in enumerate(NAMES, start=1)}
    spine = _count_vertebrae(parts.pop(SPINE), depth_mm, pieces)
    prefix = "vertebra_" if parts["sacrum"].any() else "vertebra_from_lowest_"
    parts = _without_unsure_side(parts)
    if fit >= MIN_FIT and "femur_left" in parts:
        middle_mm = pose.values[2]
    parts |= {f"{prefix}{number}": spine == number for number in range(1, spine.max() + 1)}
    parts |= _others(bone & (kinds == 0), middle_mm)
    parts = {name: part for name, part in parts.items() if _volume_mm3(part) >= SMALLEST_BONE_MM3}
    if not parts:
        parts = {f"bone_{_side(_column_mm(bone) - middle_mm)}_1": bone}
    ids = np.zeros(bone.shape, np.uint8)
    for number, part in enumerate(parts.values(), start=1):
        ids[part] = number
    return ids, dict(enumerate(parts, start=1))


# Pieces of bone


def _depth(bone: np.ndarray) -> np.ndarray:
    """Return the distance in mm to the nearest voxel without bone; cut bones are continued."""
    inside = np.pad(bone, EDGE, mode="edge")
    depth_mm = (STEP_MM * ndimage.distance_transform_edt(inside)).astype(np.float32)
    core = (slice(EDGE, -EDGE),) * 3
    return np.where(bone, ndimage.gaussian_filter(depth_mm, SMOOTHING)[core], 0)


def _cut_at_narrows(bone: np.ndarray, depth_mm: np.ndarray) -> np.ndarray:
    """Return the numbers of the pieces of bone, one around each local maximum of depth."""
    tops = bone & (depth_mm == ndimage.maximum_filter(depth_mm, footprint=NEIGHBOURS))
    return watershed(-depth_mm, ndimage.label(tops, NEIGHBOURS)[0], mask=bone)


def _mean_distances(pieces: np.ndarray, distances_mm: np.ndarray) -> np.ndarray:
    """Return the mean distance of each piece to each bone, (piece, bone).

    `pieces` holds the number of each voxel's piece, (voxel,); `distances_mm` is (voxel, bone).
    """
    counts = np.maximum(np.bincount(pieces), 1)
    return np.stack([np.bincount(pieces, column) / counts for column in distances_mm.T], axis=1)


def _components(bone: np.ndarray) -> list[tuple[np.ndarray, tuple[slice, ...]]]:
    """Return mask and place of each connected part that is no speck, the largest first."""
    labels, _ = ndimage.label(bone, NEIGHBOURS)
    places = ndimage.find_objects(labels)
    parts = [(labels[place] == number, place) for number, place in enumerate(places, start=1)]
    parts = [entry for entry in parts if _volume_mm3(entry[0]) >= SMALLEST_BONE_MM3]
    return sorted(parts, key=lambda entry: -entry[0].sum())


def _volume_mm3(part: np.ndarray) -> float:
    return part.sum() * STEP_MM**3


def _column_mm(part: np.ndarray, first: int = 0) -> float:
    """Return the mean distance of a part from the first column of the grid."""
    return STEP_MM * (first + np.nonzero(part)[2].mean())


# Femurs, hip bones, sacrum and spine


def _kinds_by_pelvis(bone, depth_mm, pieces, pose) -> np.ndarray:
    """Return for each voxel which of `NAMES` it is, from 1; 0: none of them, or no bone.

    Each piece is split by the nearest bone of the standard. A part then belongs to the bone
    that a random walker from it most likely reaches: it stops the likelier, the larger the part
    is, and crosses wide contacts more often than narrow ones (Grady 2005, "with priors").
    Parts far from all bones, such as the shaft of a bent leg, only pass it on.
    """
    far_mm = standard_pelvis.distances(pose, np.argwhere(bone) * STEP_MM)
    nearest = far_mm.argmin(axis=1)
    _, part_of = np.unique(pieces[bone] * len(NAMES) + nearest, return_inverse=True)
    mean_mm = _mean_distances(part_of, far_mm)
    trust = TRUST * np.bincount(part_of) * (mean_mm.min(axis=1) < FAR_MM)
    contacts = _contacts(bone, depth_mm, part_of)
    walks = sparse.csgraph.laplacian(contacts) + sparse.diags(trust + ALMOST_NONE)
    stops = trust[:, None] * softmax(-mean_mm / BLUR_MM, axis=1)
    chances = sparse.linalg.spsolve(walks.tocsc(), stops)
    kinds = np.zeros(bone.shape, np.uint8)
    reached = chances.max(axis=1) > MIN_CHANCE
    kinds[bone] = np.where(reached, 1 + chances.argmax(axis=1), 0)[part_of]
    return kinds


def _contacts(bone: np.ndarray, depth_mm: np.ndarray, part_of: np.ndarray) -> sparse.csr_array:
    """Return the summed depth in mm of the faces between any two parts, (part, part)."""
    parts = np.full(bone.shape, -1)
    parts[bone] = part_of
    contacts = sparse.csr_array((part_of.max() + 1,) * 2)
    for axis in range(bone.ndim):
        ends = np.moveaxis(parts, axis, 0), np.moveaxis(depth_mm, axis, 0)
        (one, one_mm), (other, other_mm) = (
            [array[side] for array in ends] for side in np.s_[:-1, 1:]
        )
        touching = (one >= 0) & (other >= 0) & (one != other)
        weights = np.minimum(one_mm, other_mm)[touching].astype(float)
        pairs = one[touching], other[touching]
        contacts += sparse.coo_array((weights, pairs), contacts.shape)
    return contacts + contacts.T


def _kinds_without_pelvis(bone, depth_mm, middle_mm) -> np.ndarray:
    """Return for each voxel which of `NAMES` it is, from 1, where no pelvis is in the scan.

    The largest part decides: if it is a round shaft, all shafts are femurs; if it is a deep
    column in the middle, it is a spine, and shafts beside it may be arms.
    """
    spine_number = 1 + NAMES.index(SPINE)
    kinds = np.zeros(bone.shape, np.uint8)
    for part, place in _components(bone):
        columns_mm = STEP_MM * (place[2].start + np.arange(part.shape[2]))
        deep = part & (depth_mm[place] >= COLUMN_DEPTH_MM)
        is_column = _volume_mm3(deep) >= SMALLEST_BONE_MM3  # a pubis is deep in one spot
        axis_mm = np.median(columns_mm[np.nonzero(deep)[2]]) if is_column else np.inf
        if _is_shaft(part, depth_mm[place]):
            side = "left" if _column_mm(part, place[2].start) > middle_mm else "right"
            number = 1 + NAMES.index(f"femur_{side}")
        elif abs(axis_mm - middle_mm) <= COLUMN_OFFSET_MM:
            number = spine_number
            part = part & (np.abs(columns_mm - axis_mm) <= COLUMN_HALF_WIDTH_MM)
        else:
            continue
        spine_seen = (kinds == spine_number).any()
        if not kinds.any() or spine_seen == (number == spine_number):
            kinds[place][part] = number
    return kinds


def _is_shaft(part: np.ndarray, depth_mm: np.ndarray) -> bool:
    if len(part) * STEP_MM < SHAFT_HEIGHT_MM:
        return False
    radius_mm = np.where(part, depth_mm, 0).max(axis=(1, 2))
    area_mm2 = part.sum(axis=(1, 2)) * STEP_MM**2
    roundness = np.median(np.pi * radius_mm**2 / area_mm2)
    return np.median(radius_mm) >= SHAFT_DEPTH_MM and roundness >= SHAFT_ROUNDNESS


def _without_unsure_side(parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the parts, with no side in their names if they cannot show it.

    One femur alone does not show its side; two do, and so do a sacrum or most of a hip bone.
    """
    volumes = {name: _volume_mm3(part) for name, part in parts.items()}
    femurs = min(volumes["femur_left"], volumes["femur_right"])
    hip = max(volumes["hip_left"], volumes["hip_right"])
    if max(femurs, volumes["sacrum"]) >= SMALLEST_BONE_MM3 or hip >= SIDED_HIP_MM3:
        return parts
    return {
        "femur": parts["femur_left"] | parts["femur_right"],
        "hip": parts["hip_left"] | parts["hip_right"],
    }


# Vertebrae


def _count_vertebrae(spine: np.ndarray, depth_mm: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """Return the number of each voxel's vertebra, from 1 upwards; 0 outside of the spine.

    Discs are no bone, so vertebral bodies are deep places on top of each other. A standard
    vertebra is placed on each body, and each piece belongs to the one nearest to it on
    average. Without any body the whole spine is one vertebra.
    """
    centres_mm = _body_centres(spine, depth_mm)
    counted = spine.astype(np.uint8)
    if len(centres_mm) > 1:
        points_mm = np.argwhere(spine) * STEP_MM
        far_mm = np.stack(list(_vertebra_distances(centres_mm, points_mm)), axis=1)
        numbers = pieces[spine]
        counted[spine] = 1 + _mean_distances(numbers, far_mm).argmin(axis=1)[numbers]
    return counted


def _body_centres(spine: np.ndarray, depth_mm: np.ndarray) -> np.ndarray:
    """Return the centre of each vertebral body in mm, (z, y, x), from the lowest up."""
    depth = np.where(spine, depth_mm, 0)
    profile = ndimage.gaussian_filter1d(depth.max(axis=(1, 2)), PROFILE_SMOOTHING_MM / STEP_MM)
    peaks, _ = find_peaks(
        np.pad(profile, 1),  # so that a body cut by the edge of the scan is a peak, too
        height=BODY_DEPTH_MM,
        distance=BODY_DISTANCE_MM / STEP_MM,
        prominence=DISC_DIP_MM,
    )
    centres = []
    for level in _with_missed_bodies(peaks - 1):
        plane = depth[level]
        centres.append([level, *np.argwhere(plane >= BODY_CENTRE * plane.max()).mean(axis=0)])
    return STEP_MM * np.reshape(centres, (-1, 3))


def _with_missed_bodies(levels: np.ndarray) -> np.ndarray:
    """Return the levels of bodies with evenly spaced ones added where no disc was seen."""
    gaps_mm = STEP_MM * np.diff(levels)
    single = gaps_mm[gaps_mm < 1.5 * VERTEBRA_HEIGHT_MM]
    height_mm = np.median(single) if len(single) else VERTEBRA_HEIGHT_MM
    counts = np.maximum(np.round(gaps_mm / height_mm), 1).astype(int)
    between = [
        np.linspace(low, high, count, endpoint=False)
        for low, high, count in zip(levels, levels[1:], counts, strict=False)
    ]
    return np.round(np.concatenate([*between, levels[-1:]])).astype(int)


def _vertebra_distances(centres_mm: np.ndarray, points_mm: np.ndarray):
    """Yield the distance in mm of the points to a standard vertebra on each of the bodies."""
    vertebra = standard_pelvis.standard_bones()["vertebra_L4"]
    axes = np.gradient(centres_mm, axis=0)
    for centre, axis in zip(centres_mm, axes, strict=True):
        size = np.clip(np.linalg.norm(axis) / VERTEBRA_HEIGHT_MM, *VERTEBRA_SIZES)
        up = axis / np.linalg.norm(axis)
        left = np.array([0.0, 0.0, 1.0]) - up[2] * up
        left /= np.linalg.norm(left)
        back = np.cross(left, up)
        z, y, x = np.stack([up, back, left]) @ (points_mm - centre).T / size
        yield size * vertebra.distance(tuple(part.astype(np.float32) for part in (x, y, z)))


# All other bones


def _others(bone: np.ndarray, middle_mm: float) -> dict[str, np.ndarray]:
    """Return the masks of bones not identified, named by their side and numbered by size."""
    counts = {"left": 0, "middle": 0, "right": 0}
    found = {}
    for part, place in _components(bone)[:MAX_OTHERS]:
        side = _side(_column_mm(part, place[2].start) - middle_mm)
        counts[side] += 1
        mask = np.zeros(bone.shape, bool)
        mask[place] = part
        found[f"bone_{side}_{counts[side]}"] = mask
    return found


def _side(offset_mm: float) -> str:
    if abs(offset_mm) < MIDDLE_MM:
        return "middle"
    return "left" if offset_mm > 0 else "right"
