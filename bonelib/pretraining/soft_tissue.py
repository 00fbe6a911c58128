"""An annotation and a random generator -> the bowel, bladder and vessels that it lacks.

They are placed by the bones and in the space that muscles and bones enclose.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.morphology import convex_hull_image, isotropic_dilation, isotropic_opening

from bonelib.phantom.tissues import Tissue
from bonelib.pretraining.annotation import Annotation

COARSE_MM = 4.0  # pixel of the grid on which the cavity is found
CAVITY_LEAST_MM = 28.0  # narrower spaces between muscles hold fat
CAVITY_DEPTH_MM = 9.0  # below the skin
CAVITY_START_MM = 25.0  # above the lowest slice of hip or sacrum
UNLABELLED_MUSCLE_MM = 12.0  # thickness around bones, where muscles are not labelled
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
VEIN_OFFSET_MM = (11.0, 6.0, 0.0)  # inwards, backwards, up
SHEATH_MM = 2.5  # fat around a large vessel


@dataclass(frozen=True)
class Tube:
    """Bowel, bladder or vessel: a rod bent through `nodes` (x, y, z in mm), and its content."""

    nodes: np.ndarray
    radius: float
    content: Tissue
    wall_mm: float = 0.0
    front: Tissue = Tissue.GAS  # content in front of `level`
    level: float = -np.inf  # y
    stool: bool = False  # mottled with gas and fat
    calcified: bool = False  # with plaques in its wall


def find_cavity(annotation: Annotation, fat_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the inside of belly and pelvis, bool on a coarse grid, and its voxel (x, y, z) in mm.

    In the pelvis it lies within the convex hull of hips and sacrum, above within that of all
    labels; where no muscle is labelled, it lies deep in the body.
    """
    step = max(round(COARSE_MM / annotation.spacing_mm), 1)
    pixel_mm = step * annotation.spacing_mm
    coarse = np.s_[:, ::step, ::step]
    labelled, body = annotation.structures[coarse] > 0, annotation.body[coarse]
    wall = annotation.where("hip", "sacrum")[coarse]
    pelvis = np.flatnonzero(wall.any(axis=(1, 2)))
    spine = annotation.where("vertebra").any(axis=(1, 2))
    wall[spine] = labelled[spine]
    muscled = annotation.where("muscle").any()
    depth_mm = CAVITY_DEPTH_MM if muscled else fat_mm + UNLABELLED_MUSCLE_MM
    cavity = np.zeros(body.shape, bool)
    for index in np.flatnonzero(wall.any(axis=(1, 2))):
        inside = ndimage.distance_transform_edt(np.pad(body[index], 1))[1:-1, 1:-1]
        inside = inside * pixel_mm > depth_mm
        if muscled:
            inside &= convex_hull_image(wall[index]) & ~labelled[index]
        else:
            inside &= ~isotropic_dilation(labelled[index], UNLABELLED_MUSCLE_MM / pixel_mm)
        cavity[index] = isotropic_opening(inside, CAVITY_LEAST_MM / 2 / pixel_mm)
    if len(pelvis) and pelvis[0] > 0:
        cavity[: pelvis[0] + round(CAVITY_START_MM / annotation.distance_mm)] = False
    parts, count = ndimage.label(cavity)
    if count > 1:
        cavity = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    return cavity, np.array([pixel_mm, pixel_mm, annotation.distance_mm])


def draw_belly(
    random: np.random.Generator, cavity: np.ndarray, voxel_mm: np.ndarray, enhanced: bool
) -> list[Tube]:
    """Return bowel, small vessels and bladder; later ones lie over earlier ones."""
    if not cavity.any():
        return []
    places = np.argwhere(cavity)[:, ::-1] * voxel_mm
    volume_mm3 = len(places) * voxel_mm.prod()
    content = Tissue.ENHANCED_BLOOD if enhanced else Tissue.BLOOD
    vessels = [
        Tube(_wander(random, places, (14, 10, 12)), random.uniform(0.9, 2.6), content)
        for _ in range(round(volume_mm3 / 40_000))
    ]
    bladder = _draw_bladder(random, cavity, voxel_mm)
    return [*_draw_bowel(random, places, volume_mm3), *vessels, bladder]


def _wander(random, places: np.ndarray, deviations_mm: tuple) -> np.ndarray:
    """Return four nodes of a random walk that starts at one of the places."""
    start = places[random.integers(len(places))]
    steps = random.normal(0, deviations_mm, (3, 3))
    return np.vstack([start, start + np.cumsum(steps, axis=0)])


def _draw_bowel(random, places: np.ndarray, volume_mm3: float) -> Iterator[Tube]:
    fillings = random.dirichlet((3, 1.5, 1.5, 1.5))
    if random.random() < 0.4:  # no oral contrast
        fillings[2:] = 0
    fillings /= fillings.sum()
    # Fluid, stool, contrast, thin contrast.
    contents = (Tissue.FLUID, Tissue.BLOOD, Tissue.BOWEL_CONTRAST, Tissue.ENHANCED_BLOOD)
    left_mm3 = random.uniform(0.6, 1.2) * BOWEL_SHARE * volume_mm3
    while left_mm3 > 0:
        radius = float(np.clip(np.exp(random.normal(2.55, 0.32)), 6, 30))
        nodes = _wander(random, places, (1.7 * radius, 1.1 * radius, 1.2 * radius))
        filling = random.choice(4, p=fillings)
        has_gas = random.random() < 0.4
        level = nodes[:, 1].mean() + radius * random.uniform(-1, 0.6)
        yield Tube(
            nodes,
            radius,
            contents[filling],
            wall_mm=random.uniform(1.2, 3.2),
            level=level if has_gas else -np.inf,
            stool=filling == 1,
        )
        left_mm3 -= np.pi * radius**2 * np.linalg.norm(np.diff(nodes, axis=0), axis=1).sum()


def _draw_bladder(random, cavity: np.ndarray, voxel_mm: np.ndarray) -> Tube:
    """Return a bladder on the cavity's floor, in which contrast may have settled."""
    lowest = np.argmax(cavity.any(axis=(1, 2)))
    radius = random.uniform(20, 34)
    floor = cavity[lowest : lowest + max(round(2 * radius / voxel_mm[2]), 1)].any(axis=0)
    rows, columns = np.nonzero(floor)
    x, front = columns.mean() * voxel_mm[0], np.percentile(rows, 10) * voxel_mm[1]
    centre = np.array([x, front + radius, lowest * voxel_mm[2] + radius])
    half_width = np.array([random.uniform(4, 12), 0, 0])
    level = centre[1] + random.choice([-np.inf, 4.0, 15.0, np.inf, np.inf])
    return Tube(
        np.array([centre - half_width, centre + half_width]),
        radius,
        Tissue.BOWEL_CONTRAST,
        wall_mm=random.uniform(2, 4.5),
        front=Tissue.FLUID,
        level=level,
    )


def draw_vessels(random, annotation: Annotation, enhanced: bool) -> list[Tube]:
    """Return aorta, iliac and femoral arteries, each with its vein and the fat around both."""
    content = Tissue.ENHANCED_BLOOD if enhanced else Tissue.BLOOD
    calcified = bool(random.random() < 0.6)
    femurs = list(_levels_mm(annotation, "femur"))
    middle = annotation.body.shape[2] / 2 * annotation.spacing_mm
    if femurs:
        middle = np.median(np.concatenate([columns for _, columns, _ in femurs]))
    tubes = []
    for side in (-1, 1):
        nodes = _artery_nodes(annotation, femurs, middle, side, random.normal(0, 4, 2))
        if len(nodes) > 1:
            radius = random.uniform(4, 6)
            vein = nodes + np.array([-side, 1, 1]) * VEIN_OFFSET_MM
            tubes += [
                Tube(nodes, radius + SHEATH_MM, Tissue.FAT),
                Tube(vein, radius + SHEATH_MM, Tissue.FAT),
                Tube(vein, radius, Tissue.BLOOD),
                Tube(nodes, radius, content, calcified=calcified),
            ]
    return tubes


def _artery_nodes(annotation, femurs: list, middle: float, side: int, shift) -> np.ndarray:
    """Return the nodes of one side's artery, upwards: along the femur, then before the spine."""
    trunk = [
        (z, columns.mean(), rows[np.abs(columns - columns.mean()) < 12].min(initial=rows.max()))
        for z, columns, rows in _levels_mm(annotation, "vertebra")
    ]
    femur = [
        (z, columns[own].mean(), rows[own].mean())
        for z, columns, rows in femurs
        for own in [np.sign(columns - middle) == side]
        if own.any()
    ]
    top = femur[-1][0] if femur else np.inf
    depths, inwards, forwards = np.array(LEG_ARTERY_MM).T
    nodes = []
    for z, x, y in femur[:: max(len(femur) // 12, 1)]:
        if not trunk or z <= trunk[0][0]:
            inward = np.interp(top - z, depths, inwards) + shift[0]
            nodes.append((x - side * inward, y - np.interp(top - z, depths, forwards), z))
    for z, x, front in trunk[:: max(len(trunk) // 12, 1)]:
        apart = 22 * np.exp(-(z - trunk[0][0]) / 12)  # above, both arteries are one
        nodes.append((x + 8 + side * apart, front - 10 + shift[1] / 2, z))
    return np.array(nodes)


def _levels_mm(annotation: Annotation, kind: str) -> Iterator[tuple]:
    """Yield z, the columns' x and the rows' y, in mm, of each slice that shows the kind."""
    chosen = annotation.where(kind)
    for index in np.flatnonzero(chosen.any(axis=(1, 2))):
        rows, columns = np.nonzero(chosen[index])
        spacing_mm = annotation.spacing_mm
        yield index * annotation.distance_mm, columns * spacing_mm, rows * spacing_mm
