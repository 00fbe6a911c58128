"""A patient -> the tissues and bones of any axial slice.

Every tissue is a formula of the position in the patient, in mm, so single slices can be
computed.
"""

from pathlib import Path

import numpy as np
import yaml

from bonelib.phantom.patient import DEPTH, FLESH_DEPTH, FLESH_WIDTH, MEAN_FAT_MM, Patient
from bonelib.phantom.skeleton import (
    Arm,
    Bone,
    Femur,
    Points,
    Vertebra,
    capsule,
    ellipse,
    ellipsoid,
    intersection,
    union,
)
from bonelib.phantom.tissues import Tissue, spongy

PELVIC_FLOOR = -45.0  # lowest z of bowel
CROTCH = -72.0  # z where the legs part
GENITALS = (-140.0, -10.0)  # their range of z
SKIN_THICKNESS = 1.8
DENSE_CORTEX = 2.5  # minimum thickness of a fully dense cortex
SHEET = 1.15  # a thinner cortex is a sheet of trabeculae
UNEVEN_CORTEX = 0.4  # relative variation of thickness in patches of one bone
MOST_UNEVEN = 0.7  # maximum variation in mm
PERIOSTEUM = 1.6  # less dense outer layer of a thick cortex
COUCH_THICKNESS, COUCH_SHELL = 42.0, 2.4
COUCH_HALF_WIDTH = 235.0

_DATA = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())


def cut_slice(patient: Patient, x_mm, y_mm, z_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the tissues and the bone numbers of one slice, both (row, column) uint8.

    `x_mm` (columns) and `y_mm` (rows) are the pixel centres in the patient's coordinates.
    """
    canvas = _Canvas(patient, x_mm, y_mm, z_mm)
    canvas.paint_support()
    canvas.paint_body()
    canvas.paint_bowel()
    canvas.paint_pelvic_organs()
    canvas.paint_vessels()
    for bone in canvas.of_kind(Vertebra):
        canvas.paint_disc(bone)
    canvas.paint_foreign()
    for bone in patient.skeleton:
        canvas.paint_bone(bone)
    for bone in canvas.of_kind(Femur):
        if bone.number in patient.replaced_hips:
            canvas.paint_prosthesis(bone)
    return canvas.tissues, canvas.bones


def paint_couch(tissues: np.ndarray, x, below) -> None:
    """Paint the couch; `x` is measured from its middle, `below` from its surface, in mm."""
    half_width = COUCH_HALF_WIDTH - np.maximum(below - 20, 0)
    inside = (below > 0) & (below < COUCH_THICKNESS) & (np.abs(x) < half_width)
    tissues[inside] = Tissue.COUCH_CORE
    rim = (below < COUCH_SHELL) | (below > COUCH_THICKNESS - COUCH_SHELL)
    rim = rim | (np.abs(x) > half_width - COUCH_SHELL)
    tissues[inside & rim] = Tissue.COUCH_SHELL


class _Canvas:
    """One slice, painted from the outside to the inside."""

    def __init__(self, patient: Patient, x_mm, y_mm, z_mm: float):
        self.patient, self.z = patient, np.float32(z_mm)
        self.x = np.asarray(x_mm, np.float32)[None, :]
        self.y = np.asarray(y_mm, np.float32)[:, None]
        self.tissues, self.bones = np.zeros((2, self.y.size, self.x.size), np.uint8)
        self.points = self.x, self.y, self.z
        self.mirrored = np.abs(self.x), self.y, self.z  # for what both sides have
        self.couch_surface = patient.couch_top - self.x**2 / (2 * patient.couch_curve)
        self.groin_y = -0.42 * np.sqrt(DEPTH * patient.half_depth)

    def at(self, profile: str) -> float:
        """Return the value of a profile in `anatomy.yaml` at the slice's height."""
        return np.interp(self.z, *_DATA["profiles"][profile])

    def of_kind(self, kind: type[Bone]) -> list[Bone]:
        return [bone for bone in self.patient.skeleton if isinstance(bone, kind)]

    def _box(self, low, high) -> tuple[tuple[slice, slice], Points] | None:
        """Return the pixels between two corners, and their points; None outside of its heights."""
        if not low[2] <= self.z <= high[2]:
            return None
        columns = slice(*np.searchsorted(self.x[0], (low[0], high[0])))
        rows = slice(*np.searchsorted(self.y[:, 0], (low[1], high[1])))
        return (rows, columns), (self.x[:, columns], self.y[rows], self.z)

    def _bone_box(self, bone: Bone, low, high) -> tuple[tuple[slice, slice], Points] | None:
        """Return the pixels of a box in a bone's frame, and their points in that frame."""
        box = self._box(*bone.frame.bounds(low, high))
        return box and (box[0], bone.frame.local(box[1]))

    def paint_support(self):
        below = self.y - self.couch_surface
        paint_couch(self.tissues, self.x, below - self.patient.cushion)
        wide = np.abs(self.x) < COUCH_HALF_WIDTH - 8
        self.tissues[(below > 0) & (below < self.patient.cushion) & wide] = Tissue.CUSHION

    def _outlines(self):
        """Return the distances to the skin and to the trunk and thighs without appendages."""
        patient, z = self.patient, float(self.z)
        core = self._trunk()
        if z < 60:
            crease_mm = np.clip(14 - 16 * patient.obesity, 2, 16)  # a fold between fat parts
            core = union(core, self._thighs(), crease_mm)
        back = patient.couch_top
        deepest = back - self.at("cleft_depth")
        cleft = capsule((self.x, self.y), (0, deepest), (0, back + 10), 0.5, 3.0)
        couch = self.y - self.couch_surface + 1
        return tuple(
            intersection(intersection(outline, -cleft, 6), couch, 12)
            for outline in (self._add_front(core), core)
        )

    def _trunk(self):
        patient = self.patient
        waist = self.at("waist") + max(patient.obesity, 0) * self.at("obese_waist")
        belly = self.at("belly") + max(patient.obesity, 0) * self.at("obese_belly")
        trunk = ellipse(
            self.x,
            self.y - 16 + (belly - 1) * patient.half_depth * 0.7,
            patient.half_width * waist,
            patient.half_depth * belly,
            2.4,
        )
        return intersection(trunk, CROTCH + 4 - float(self.z), 30)

    def _thighs(self):
        patient, z = self.patient, float(self.z)
        width = patient.flesh_width * self.at("thigh_flesh_width")
        width += patient.fat * self.at("thigh_fat_width")
        depth = patient.flesh_depth * self.at("thigh_flesh_depth")
        depth += patient.fat * self.at("thigh_fat_depth")
        thighs = np.inf
        for femur in self.of_kind(Femur):
            middle_x, middle_y = femur.middle(min(z, CROTCH))
            centre_x = middle_x - np.copysign(self.at("thigh_inwards"), middle_x)
            offset_y = self.y - middle_y - self.at("thigh_backwards")
            part = ellipse(self.x - centre_x, offset_y, width, depth, 2.15)
            thighs = np.minimum(thighs, part)
        return intersection(thighs, z - 40, 60)

    def _add_front(self, trunk):
        """Return the outline with a hanging belly and the genitals."""
        patient, points, front = self.patient, self.points, self.groin_y
        if patient.obesity > 0.2:
            apron = (0, -0.72 * patient.half_depth, 62)
            radii = 0.8 * patient.half_width, 0.42 * patient.half_depth, 40 + 35 * patient.obesity
            trunk = union(trunk, ellipsoid(points, apron, radii), 3)
        if not GENITALS[0] < self.z < GENITALS[1]:
            return trunk
        if patient.male:
            scrotum = ellipsoid(points, (0, front, -84), (28, 28, 26))
            return union(union(trunk, scrotum, 10), self._penis(), 4)
        mound = ellipsoid(points, (0, front, -52), (38, 26, 30))
        trunk = union(trunk, mound, 8)
        fold = capsule(points, (0, front - 34, -66), (0, front + 12, -84), 2.0, 1.5)
        return intersection(trunk, -fold, 4)

    def _penis(self):
        front = self.groin_y
        return capsule(self.points, (0, front - 20, -58), (8, front - 34, -100), 14, 13)

    def paint_body(self):
        patient, z = self.patient, float(self.z)
        skin, core = self._outlines()
        angle = np.arctan2(self.y - 16, self.x)
        uneven = 0.22 * np.sin(2 * angle + patient.fat_phases[0])
        uneven += 0.15 * np.sin(3 * angle + patient.fat_phases[1])
        thick = patient.fat + min(patient.fat, MEAN_FAT_MM) * uneven
        fat = np.maximum(thick * self.at("fat"), 3)
        self.tissues[skin < 0] = Tissue.FAT
        self.tissues[(skin < 0) & (skin > -SKIN_THICKNESS)] = Tissue.SKIN
        perineum = np.exp(-((self.x / 55) ** 2)) * self.at("perineum")
        flesh = core < -fat * (1 - perineum)
        rows, columns = np.nonzero(flesh)
        self.tissues[rows, columns] = self._muscles(self.x[0, columns], self.y[rows, 0])
        self._paint_cavity(skin, fat)
        if patient.male and GENITALS[0] < z < GENITALS[1]:
            gland = ellipsoid(self.mirrored, (14, self.groin_y, -86), (10, 13, 17))
            gland = np.minimum(gland, self._penis() + 3)
            self.tissues[(gland < 0) & (skin < -SKIN_THICKNESS)] = Tissue.MUSCLE
        for marker_x, marker_z in patient.skin_markers:
            if abs(z - marker_z) < 4:
                ring = np.abs(self.x - marker_x * patient.half_width) < 2.2
                front = (self.y < 30) & (skin > 0) & (skin < 2.6)
                self.tissues[ring & front] = Tissue.SKIN_MARKER
        for arm in self.of_kind(Arm):
            outline = np.maximum(arm.skin(arm.frame.local(self.points)), 1.5 - skin)
            layers = (0, Tissue.SKIN), (-SKIN_THICKNESS, Tissue.FAT), (-4, Tissue.MUSCLE)
            for depth, tissue in layers:
                self.tissues[outline < depth] = tissue

    def _muscles(self, x, y) -> np.ndarray:
        scale = self.patient.flesh_width / FLESH_WIDTH
        nearest = np.full(x.shape, np.inf, np.float32)
        second = nearest.copy()
        wobble = 5 * np.sin(x / 17 + self.z / 40) + 5 * np.sin(y / 13 - self.z / 55)
        side = np.abs(x) + wobble
        for line in _DATA["muscles"]:
            line_x, line_y = (
                np.interp(self.z, _DATA["muscle_heights"], part) for part in zip(*line, strict=True)
            )
            distance = np.hypot(side - line_x * scale, y + wobble - line_y * scale)
            second = np.minimum(second, np.maximum(nearest, distance))
            nearest = np.minimum(nearest, distance)
        gap = 3.6 + 2.4 * np.sin(x / 29 + y / 23 + self.z / 60)
        return np.where(second - nearest < gap, Tissue.FAT, Tissue.MUSCLE).astype(np.uint8)

    def _paint_cavity(self, skin, fat):
        if self.z < PELVIC_FLOOR:
            self.cavity = np.full(self.tissues.shape, np.inf, np.float32)
            return
        width = self.at("cavity_width") * self.patient.scale
        depth = self.at("cavity_depth") * self.patient.flesh_depth / FLESH_DEPTH
        cavity = ellipse(self.x, self.y - self.at("cavity_y"), width, depth, 2.3)
        side = np.abs(self.x)
        psoas = ellipse(side - self.at("psoas_x"), self.y - self.at("psoas_y"), 21, 24)
        spine = ellipse(self.x, self.y - 40, 40, self.at("spine_depth"))
        cavity = np.maximum(cavity, np.maximum(skin + fat + 9, -np.minimum(psoas, spine)))
        self.tissues[cavity < 0] = Tissue.FAT
        self.cavity = cavity

    def paint_bowel(self):
        for loop in self.patient.bowel:
            box = self._box(loop.nodes.min(axis=0) - 20, loop.nodes.max(axis=0) + 20)
            if box is None:
                continue
            window, points = box
            distance = np.inf
            for start, end in zip(loop.nodes, loop.nodes[1:], strict=False):
                rod = capsule(points, start, end, loop.radius, loop.radius)
                distance = np.minimum(distance, rod)
            distance = np.maximum(distance, self.cavity[window] + 1)
            content = np.where(points[1] < loop.gas_above, Tissue.GAS, loop.content)
            self._fill(window, distance, content, wall_mm=2.2)

    def paint_pelvic_organs(self):
        patient = self.patient
        if -64 < self.z < 90:
            rectum_y = self.at("rectum_y")
            distance = np.hypot(self.x - self.at("rectum_x"), (self.y - rectum_y) * 1.15)
            distance -= self.at("rectum_radius")
            filling, gas_mm = (Tissue.BLOOD, 9) if patient.stool else (Tissue.FLUID, 4)
            content = np.where(self.y < rectum_y - gas_mm, Tissue.GAS, filling)
            self._fill(np.s_[:, :], distance, content, wall_mm=3.5)
        gland = ellipsoid(self.points, (0, -6, -24), (24, 20, 20 if patient.male else 16))
        self.tissues[gland < 0] = Tissue.MUSCLE
        width, depth, height = patient.bladder
        bladder = ellipsoid(self.points, (0, -14, 2 + height * 0.8), (width, depth, height))
        enhanced = self.y > patient.bladder_contrast
        content = np.where(enhanced, Tissue.BOWEL_CONTRAST, Tissue.FLUID)
        self._fill(np.s_[:, :], bladder, content, wall_mm=3)

    def _fill(self, window, distance, content, wall_mm: float):
        region = self.tissues[window]
        region[distance < 0] = Tissue.BOWEL_WALL
        inside = distance < -wall_mm
        region[inside] = np.broadcast_to(content, region.shape)[inside]

    def paint_vessels(self):
        patient, z = self.patient, float(self.z)
        size = self.at("artery_radius")
        blood = Tissue.ENHANCED_BLOOD if patient.vessels_enhanced else Tissue.BLOOD
        body = self.tissues >= Tissue.GAS
        for side, femur in zip((1, -1), self.of_kind(Femur), strict=True):
            line = []
            for height, inwards, forwards in _DATA["thigh_artery"]:
                middle_x, middle_y = femur.middle(height)
                line.append((height, side * middle_x - inwards, middle_y - forwards))
            heights, *line = zip(*line, *_DATA["pelvic_artery"], strict=True)
            artery_x, artery_y = (np.interp(z, heights, part) for part in line)
            away = np.hypot(self.x - side * artery_x, self.y - artery_y)
            vein = np.hypot(self.x - side * (artery_x - 11), self.y - artery_y - 7)
            self.tissues[body & (vein < size * 1.25)] = Tissue.BLOOD
            self.tissues[body & (away < size)] = blood
            if patient.calcified and np.sin(z / 6 + side) > 0.2:
                plaque = (np.abs(away - size) < 0.9) & (self.y > artery_y)
                self.tissues[body & plaque] = Tissue.CALCIFICATION

    def paint_disc(self, vertebra: Vertebra):
        if box := self._bone_box(vertebra, *vertebra.dimensions["box"]):
            self.tissues[box[0]][vertebra.disc(box[1]) < 0] = Tissue.CARTILAGE

    def paint_foreign(self):
        """Paint ureters, a catheter and gold seeds."""
        patient, points = self.patient, self.points
        urine = Tissue.ENHANCED_BLOOD if patient.ureters_enhanced else Tissue.FLUID
        height = patient.bladder[2]
        ureter = capsule(self.mirrored, (34, 4, 175), (46, 14, 70), 2.2, 2.4)
        ureter = np.minimum(ureter, capsule(self.mirrored, (46, 14, 70), (24, 2, height), 2.4, 2.0))
        self.tissues[(ureter < 0) & (self.tissues == Tissue.FAT)] = urine
        if patient.catheter:
            balloon = ellipsoid(points, (0, -12, 0.8 * height - 4), (11, 10, 10))
            self.tissues[balloon < 0] = Tissue.FLUID
            tube = capsule(points, (0, -12, 0.8 * height), (0, -16, -50), 2.8, 2.8)
            tube = np.minimum(tube, capsule(points, (0, -16, -50), (2, -60, -75), 2.8, 2.8))
            self.tissues[(tube < 0) & (self.tissues >= Tissue.GAS)] = Tissue.CATHETER
        for x, y, z in patient.gold_seeds:
            if abs(self.z - z) < 2.5:
                rows, columns = np.nonzero(np.hypot(self.x - x, self.y - y) < 1.2)
                self.tissues[rows, columns] = Tissue.GOLD_SEED

    def paint_bone(self, bone: Bone):
        box = self._bone_box(bone, *bone.dimensions["box"])
        if box is None:
            return
        window, points = box
        distance = bone.distance(points) * bone.frame.scale
        tissues, bones = self.tissues[window], self.bones[window]
        older = bones > 0
        joint_gap = bone.dimensions["joint_gap"]
        gap = older & (distance < joint_gap)
        tissues[older & (distance < joint_gap + 1.2)] = Tissue.THIN_CORTICAL
        tissues[gap] = Tissue.CARTILAGE
        bones[gap] = 0
        inside = distance < 0
        coarse, fine = _patches(*points)
        cortex = bone.cortex(points)
        cortex = cortex + np.minimum(UNEVEN_CORTEX * cortex, MOST_UNEVEN) * coarse
        inner = distance < -cortex
        bones[inside] = bone.number
        thick = (cortex > DENSE_CORTEX) & (distance < -PERIOSTEUM)
        shell = np.where(cortex < SHEET, np.uint8(Tissue.VERTEBRAL_SHELL), Tissue.THIN_CORTICAL)
        shell = np.where(thick, np.uint8(Tissue.CORTICAL), shell)
        tissues[inside] = np.broadcast_to(shell, inside.shape)[inside]
        density = bone.density(points) + 0.5 * np.exp(distance / 3) + 0.35 * coarse + 0.55 * fine
        tissues[inner] = spongy(np.broadcast_to(density, inside.shape)[inner])

    def paint_prosthesis(self, femur: Femur):
        box = self._bone_box(femur, (-70, -70, -170), (70, 70, 70))
        if box is None:
            return
        window, points = box
        metal, lining, resected = femur.prosthesis(points)
        tissues, bones = self.tissues[window], self.bones[window]
        head = (bones == femur.number) & (resected < 0)
        tissues[head], bones[head] = Tissue.MUSCLE, 0
        for distance, tissue in ((lining, Tissue.CARTILAGE), (metal, Tissue.METAL)):
            tissues[distance < 0], bones[distance < 0] = tissue, 0


def _patches(x, y, z) -> tuple[np.ndarray, np.ndarray]:
    """Return a coarse and a fine pattern of bone, from -1 to 1."""
    coarse = np.sin(0.37 * x + 2.9 * np.sin(0.23 * y + 0.2 * z) + 1.7 * np.sin(0.13 * z - 0.3 * x))
    fine = np.sin(1.7 * x + 2.3 * np.sin(1.3 * y)) * np.sin(1.9 * y + 1.1 * z)
    return coarse, fine
