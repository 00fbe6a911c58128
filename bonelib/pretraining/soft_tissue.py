"""An annotation and a random generator -> what fills the belly, and the vessels.

Bowel, bladder, organs and arteries, placed by the bones and by the space that muscles and
bones enclose.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from bonelib.phantom.tissues import Tissue
from bonelib.pretraining.annotation import Annotation, disk

COARSE_MM = 4.0  # of the grid that the cavity is found on
CAVITY_BRIDGE_MM = 64.0  # widest gap in the wall of the belly and the pelvis
CAVITY_LEAST_MM = 28.0  # narrower spaces between muscles hold fat
CAVITY_DEPTH_MM = 9.0  # below the skin
CAVITY_START_MM = 25.0  # above the lowest slice of hip or sacrum
BOWEL_SHARE = 0.95  # of the cavity that loops would fill if they did not overlap

# The artery to a leg, from the middle of the femur: depth below the head's top, inwards, forwards.
LEG_ARTERY_MM = (
    (-25, 22, 38),
    (40, 18, 40),
    (90, 30, 34),
    (130, 32, 24),
    (250, 32, 8),
    (400, 12, -26),
)


@dataclass(frozen=True)
class Tube:
    """Bowel or a vessel through `nodes` (x, y, z in mm) and what it holds."""

    nodes: np.ndarray
    radius: float
    wall_mm: float
    content: Tissue
    mottled: bool = False  # with specks of gas and fat, as stool
    gas_above: float = -np.inf  # y in front of which gas has gathered


@dataclass(frozen=True)
class Organ:
    """An ellipsoid in the belly; what is heavier than its content settles at the back."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    wall_mm: float
    content: Tissue
    settled: Tissue
    level: float = np.inf  # y behind which it has settled


@dataclass(frozen=True)
class Artery:
    """A line with one place a slice, and the vein beside it."""

    nodes: np.ndarray  # x, y, z in mm, upwards
    radius: float
    vein_offset: tuple[float, float]
    content: Tissue
    calcified: bool


def _voxels_mm(mask: np.ndarray, voxel_mm: np.ndarray) -> np.ndarray:
    """Return the (voxel, 3) positions x, y, z of a (slice, row, column) mask's voxels."""
    places = np.argwhere(mask)[:, ::-1]
    return places * voxel_mm + voxel_mm * (0.5, 0.5, 0)


def find_cavity(annotation: Annotation, fat_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the inside of belly and pelvis, uint8 on coarse pixels, and their size in mm.

    It is what muscles and bones enclose, or what lies deep where no muscle is labelled.
    """
    factor = max(round(COARSE_MM / annotation.spacing_mm), 1)
    size = tuple(-(-side // factor) for side in annotation.body.shape[:0:-1])
    voxel_mm = np.array([*(side / coarse for side, coarse in zip(
        annotation.body.shape[:0:-1], size, strict=True)), 1.0])  # fmt: skip
    voxel_mm *= (annotation.spacing_mm, annotation.spacing_mm, annotation.distance_mm)
    coarse_mm = voxel_mm[0]
    muscled = annotation.where("muscle").any()
    solid = annotation.structures > 0
    ring = annotation.where("hip", "sacrum")
    pelvis = np.flatnonzero(ring.any(axis=(1, 2)))
    spine = np.flatnonzero(annotation.where("vertebra").any(axis=(1, 2)))
    ring[spine] = solid[spine]  # the belly lies inside the hull of its wall
    bridge, least = disk(CAVITY_BRIDGE_MM, coarse_mm), disk(CAVITY_LEAST_MM, coarse_mm)
    depth_mm = CAVITY_DEPTH_MM if muscled else fat_mm + 14
    margin = len(bridge)
    planes = []
    for parts in zip(solid, annotation.body, ring, strict=True):
        part, body, around = (
            np.pad(cv2.resize(plane.astype(np.float32), size, interpolation=cv2.INTER_AREA), margin)
            for plane in parts
        )
        wall = (part > 0.3).astype(np.uint8)
        deep = cv2.distanceTransform((body > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
        inside = deep * coarse_mm > depth_mm
        if muscled:
            closed = cv2.morphologyEx(wall, cv2.MORPH_CLOSE, bridge)
            inside &= ndimage.binary_fill_holes(closed) | (_hull(around > 0.3) > 0)
        else:
            wall = cv2.dilate(wall, disk(24, coarse_mm))
        inside = cv2.morphologyEx((inside & (wall == 0)).astype(np.uint8), cv2.MORPH_OPEN, least)
        planes.append(inside[margin:-margin, margin:-margin])
    cavity = np.stack(planes)
    start = len(cavity)
    if len(pelvis):
        start = pelvis[0] + round(CAVITY_START_MM / annotation.distance_mm) * bool(pelvis[0])
    elif len(spine):
        start = spine[0]
    cavity[:start] = 0
    parts, count = ndimage.label(cavity)
    if count > 1:
        cavity = (parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])).astype(np.uint8)
    return cavity, voxel_mm


def _hull(mask: np.ndarray) -> np.ndarray:
    """Return the convex hull of a plane's mask, uint8."""
    hull = np.zeros(mask.shape, np.uint8)
    if mask.any():
        points = np.argwhere(mask)[:, ::-1].astype(np.int32)
        cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    return hull


def draw_tubes(random, cavity: np.ndarray, voxel_mm, enhanced: bool) -> Iterator[Tube]:
    """Yield bowel and small vessels; later ones lie over earlier ones."""
    if cavity.any():
        yield from _draw_bowel(random, cavity, voxel_mm)
        yield from _draw_mesentery(random, cavity, voxel_mm, enhanced)
        yield from _draw_colon(random, cavity, voxel_mm)
        yield from _draw_rectum(random, cavity, voxel_mm)


def _draw_bowel(random, cavity: np.ndarray, voxel_mm: np.ndarray) -> list[Tube]:
    places = _voxels_mm(cavity, voxel_mm)
    fillings = random.dirichlet((3, 1.5, 1.5, 1.5))  # fluid, stool, contrast, thin contrast
    if random.random() < 0.4:  # no oral contrast
        fillings[2:] = 0
    fillings /= fillings.sum()
    kinds = (Tissue.FLUID, Tissue.BLOOD, Tissue.BOWEL_CONTRAST, Tissue.ENHANCED_BLOOD)
    left_mm3 = random.uniform(0.6, 1.2) * BOWEL_SHARE * len(places) * voxel_mm.prod()
    loops = []
    while left_mm3 > 0:
        radius = float(np.clip(np.exp(random.normal(2.55, 0.32)), 6, 30))
        steps = random.normal(0, (1.7 * radius, 1.1 * radius, 1.2 * radius), (3, 3))
        start = places[random.integers(len(places))]
        nodes = np.vstack([start, start + np.cumsum(steps, axis=0)])
        kind = random.choice(4, p=fillings)
        gas = random.random() < 0.4
        loops.append(
            Tube(
                nodes=nodes,
                radius=radius,
                wall_mm=float(random.uniform(1.2, 3.2)),
                content=kinds[kind],
                mottled=kind == 1,
                gas_above=nodes[:, 1].mean() + radius * random.uniform(-1, 0.6) if gas else -np.inf,
            )
        )
        left_mm3 -= np.pi * radius**2 * np.linalg.norm(steps, axis=1).sum()
    return loops


def _draw_mesentery(random, cavity, voxel_mm, enhanced: bool) -> list[Tube]:
    """Return the small vessels and nodes in the fat of the belly."""
    places = _voxels_mm(cavity, voxel_mm)
    content = Tissue.ENHANCED_BLOOD if enhanced else Tissue.BLOOD
    vessels = []
    for _ in range(round(len(places) * voxel_mm.prod() / 40_000)):
        start = places[random.integers(len(places))]
        steps = random.normal(0, (14, 10, 12), (3, 3))
        nodes = np.vstack([start, start + np.cumsum(steps, axis=0)])
        vessels.append(Tube(nodes, float(random.uniform(0.9, 2.6)), 0.0, content))
    return vessels


def _draw_colon(random, cavity, voxel_mm) -> list[Tube]:
    """Return the ascending and the descending colon, at the flanks of the upper belly."""
    filled = np.flatnonzero(cavity.any(axis=(1, 2)))
    start_mm = filled[:1].sum() * voxel_mm[2] + random.uniform(110, 150)
    levels = filled[filled * voxel_mm[2] > start_mm]
    colon = []
    for side in (0, 1):
        radius = float(random.uniform(14, 28))
        nodes = []
        for level in levels[:: max(round(24 / voxel_mm[2]), 1)]:
            rows, columns = np.nonzero(cavity[level])
            x = np.percentile(columns, (4, 96)[side]) * voxel_mm[0] + (1, -1)[side] * radius
            y = np.percentile(rows, 62) * voxel_mm[1] + random.normal(0, 6)
            nodes.append((x, y, level * voxel_mm[2]))
        if len(nodes) > 1:
            nodes = np.array(nodes)
            gas_above = nodes[:, 1].mean() + radius * random.uniform(-1, 1)
            stool = bool(random.random() < 0.7)
            content = Tissue.BLOOD if stool else Tissue.FLUID
            colon.append(Tube(nodes, radius, 2.2, content, stool, gas_above))
    return colon


def _draw_rectum(random, cavity, voxel_mm) -> list[Tube]:
    filled = np.flatnonzero(cavity.any(axis=(1, 2)))
    radius = float(random.uniform(10, 19))
    nodes = []
    for level in filled[filled * voxel_mm[2] < filled[:1].sum() * voxel_mm[2] + 110]:
        rows, columns = np.nonzero(cavity[level])
        back = rows.max() * voxel_mm[1] - radius
        nodes.append((columns.mean() * voxel_mm[0], back, level * voxel_mm[2]))
    if len(nodes) < 4:
        return []
    nodes = ndimage.gaussian_filter1d(np.array(nodes), 3, axis=0)[:: max(len(nodes) // 6, 1)]
    gas_above = nodes[:, 1].mean() + radius * random.uniform(-1.2, 0.8)
    stool = bool(random.random() < 0.5)
    return [Tube(nodes, radius, 3.0, Tissue.BLOOD if stool else Tissue.FLUID, stool, gas_above)]


def draw_organs(random, cavity, voxel_mm, annotation: Annotation) -> tuple[Organ, ...]:
    """Return bladder and prostate, and as far up as the scan goes kidneys and liver."""
    filled = np.flatnonzero(cavity.any(axis=(1, 2)))
    organs = []
    if annotation.where("hip").any() and len(filled):
        height = float(random.uniform(20, 36))
        floor_z = filled[0] * voxel_mm[2]
        level = min(filled[0] + round(height / voxel_mm[2]), filled[-1])
        rows, columns = np.nonzero(cavity[level])
        if len(rows):
            x, front = columns.mean() * voxel_mm[0], np.percentile(rows, 10) * voxel_mm[1]
            depth = float(random.uniform(20, 32))
            y = front + depth + random.uniform(0, 12)
            gland = Tissue.MUSCLE
            organs.append(Organ((x, y + 8, floor_z), (25, 21, 22), 0.0, gland, gland))
            organs.append(
                Organ(
                    centre=(x, y, floor_z + height + 4),
                    radii=(float(random.uniform(26, 44)), depth, height),
                    wall_mm=float(random.uniform(2, 4.5)),
                    content=Tissue.FLUID,
                    settled=Tissue.BOWEL_CONTRAST,
                    level=y + float(random.choice([-np.inf, 4.0, 15.0, np.inf, np.inf])),
                )
            )
    spine = annotation.where("vertebra")
    levels = np.flatnonzero(spine.any(axis=(1, 2)))
    if len(levels) and len(filled):
        rows, columns = np.nonzero(spine[levels[len(levels) // 2]])
        x, y = columns.mean() * annotation.spacing_mm, rows.min() * annotation.spacing_mm
        base_z = levels[0] * annotation.distance_mm
        for side in (-1, 1):
            centre = x + side * random.uniform(58, 70), y + 20, base_z + random.uniform(120, 150)
            kidney = Tissue.ENHANCED_BLOOD if random.random() < 0.4 else Tissue.BLOOD
            organs.append(Organ(centre, (27, 25, 54), 0.0, kidney, kidney))
        centre = x - 85, y - 35, base_z + random.uniform(190, 230)
        organs.append(Organ(centre, (80, 85, 100), 0.0, Tissue.CARTILAGE, Tissue.CARTILAGE))
    return tuple(organs)


def draw_arteries(random, annotation: Annotation, enhanced: bool) -> tuple[Artery, ...]:
    """Return a line for each leg: the aorta in front of the spine, and on along the femur."""
    trunk = [
        (z, columns.mean(), rows[np.abs(columns - columns.mean()) < 12].min(initial=rows.max()))
        for z, columns, rows in _levels_mm(annotation, "vertebra")
    ]
    content = Tissue.ENHANCED_BLOOD if enhanced else Tissue.BLOOD
    calcified = bool(random.random() < 0.6)
    middle = annotation.body.shape[2] / 2 * annotation.spacing_mm
    bones = list(_levels_mm(annotation, "hip", "sacrum", "femur"))
    if bones:
        middle = np.median(np.concatenate([columns for _, columns, _ in bones]))
    arteries = []
    for side in (-1, 1):
        femur = [
            (z, columns[own].mean(), rows[own].mean())
            for z, columns, rows in _levels_mm(annotation, "femur")
            for own in [np.sign(columns - middle) == side]
            if own.any()
        ]
        below = min(femur[-1][0] if femur else np.inf, trunk[0][0] if trunk else np.inf)
        depths, inwards, forwards = np.array(LEG_ARTERY_MM).T
        shift = random.normal(0, 4, 2)
        line = []
        for z, x, y in femur[:: max(len(femur) // 12, 1)]:
            if z <= below:
                depth = femur[-1][0] - z
                inward = np.interp(depth, depths, inwards) + shift[0]
                line.append((x - side * inward, y - np.interp(depth, depths, forwards), z))
        for z, x, front in trunk[:: max(len(trunk) // 12, 1)]:
            apart = 22 * np.exp(-(z - trunk[0][0]) / 12)  # above, both are one
            line.append((x + 8 + side * apart, front - 10 + shift[1] / 2, z))
        if len(line) > 1:
            radius = float(random.uniform(4, 6))
            offset = (-11.0 * side, 6.0)
            arteries.append(Artery(np.array(line), radius, offset, content, calcified))
    return tuple(arteries)


def _levels_mm(annotation: Annotation, *kinds: str) -> Iterator[tuple]:
    """Yield z, the columns' x and the rows' y, in mm, of each slice that shows the kinds."""
    chosen = annotation.where(*kinds)
    for index in np.flatnonzero(chosen.any(axis=(1, 2))):
        rows, columns = np.nonzero(chosen[index])
        spacing_mm = annotation.spacing_mm
        yield index * annotation.distance_mm, columns * spacing_mm, rows * spacing_mm
