"""One CT scan -> label map, bone surfaces, DICOM SEG, preview and a record of it all.

::

    probabilities    network + scan -> margin: how much more probable bone is than the rest,
                     without metal, islands and holes
    standard_pelvis  mask of bone -> where a standard pelvis lies in it
    bones            mask of bone -> single bones, with names
    surfaces         margin -> closed surfaces, STL, preview.png
    dicom_seg        single bones + DICOM series -> DICOM SEG
    viewer           surface.html
    workbench        widgets of notebook 9
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK
import trimesh
from skimage.segmentation import expand_labels

from bonelib import labels, provenance, scans
from bonelib.errors import InputError, noting
from bonelib.labels import image_like
from bonelib.paths import SegmentationFolder
from bonelib.pretrained import Network, find_network, predictor
from bonelib.segment import dicom_seg, surfaces, viewer
from bonelib.segment.bones import MIN_FIT, pelvis_fit, separate
from bonelib.segment.probabilities import (
    THICKEST_MM,
    bone_on_grid,
    clean,
    find_region,
    ignore,
    predict_bone,
)
from bonelib.settings import BONE, CLASS_NAMES, PATIENT, RESEARCH_ONLY

SCRATCH_PREFIX = ".bonelib-"
ALL_BONE, PATIENT_NAME = CLASS_NAMES[BONE], CLASS_NAMES[PATIENT]
PREVIEW_DPI = 110
BRIGHT_ML, BRIGHT_SHARE = 5.0, 0.1  # unlabelled and bright: more, also beside bone, is told
EXPANSION = 3  # voxels by which ids grow, so that they cover the bone on the scan's finer grid

Progress = Callable[[str, int, int], None]  # called with stage, parts done, all parts


def segment(
    path: Path,
    directory: Path,
    network: Network | None = None,
    series: str | None = None,
    bones: bool = False,
    overwrite: bool = False,
    progress: Progress = ignore,
    apart: bool = False,
) -> dict:
    """Segment the scan at `path`, write the results to `directory` and return their record.

    `paths.SegmentationFolder` lists the files: the label map on the scan's own grid, surfaces
    in mm in patient coordinates (LPS), a preview, a page that shows the surface in 3-D, the
    record and, for DICOM, a DICOM SEG; with `bones` also an id and a surface for each bone.
    `network` is by default the shipped one; `series` names one of several DICOM series. With
    `apart` the network runs in a process of its own, which saves a gigabyte before and after.

    A folder that is not empty is refused unless `overwrite` is set; then the files that the
    record of an earlier run lists are replaced, and no others. Files are moved to the folder
    when all are finished. Raises InputError for scans, weights and folders that cannot be used.
    """
    path, folder = Path(path), SegmentationFolder(Path(directory))
    earlier = _replaceable_files(folder, overwrite)
    network = network or find_network()
    stages = _Stages(progress)
    with _scratch_folder(folder.root) as scratch:
        with noting() as repairs:
            with stages("reading"):
                stored = scans.open_scan(path, series, THICKEST_MM)
            model, notes = _bone_model(stored, network, bones, scratch, stages, apart)
            with stages("writing"):
                notes += _write(model, scratch)
        measures, doubts = out_of_depth(model)
        notes = [RESEARCH_ONLY, *repairs, *filter(None, [network.note]), *doubts, *notes]
        record = {
            "options": {"bones": bones},
            "scan": {"size": stored.grid.size, "spacing_mm": stored.grid.spacing_mm},
            **_measure(model),
            "out_of_depth": measures,
            "seconds": stages.seconds,
            "files": [file.relative_to(scratch.root).as_posix() for file in _files(scratch.root)],
            "notes": list(dict.fromkeys(notes)),
            **_origin(path, network, model.computed),
        }
        provenance.write_json(scratch.record, record)
        _publish(scratch, folder, earlier)
    return record


@dataclass(frozen=True)
class BoneModel:
    """All that is found in one scan."""

    scan: SimpleITK.Image  # HU, of slices averaged where they are thin
    label_map: SimpleITK.Image  # background, patient, bone; on the grid of `scan`
    bones: SimpleITK.Image  # ids of single bones, or the label map; on the same grid
    names: dict[int, str]  # of the ids
    volumes_ml: dict[str, float]  # by name, counted on the grid of the file
    surfaces: dict[str, trimesh.Trimesh]  # of all bone, then of the single bones by name
    pelvis_fit: float  # share of a standard pelvis' surface that the bone shows
    computed: dict[str, str]  # precision and backend of Keras


@dataclass
class _Stages:
    """Reports progress and measures the seconds of each stage."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Time a stage; yield the function that reports its progress."""
        started = time.perf_counter()
        self.progress(name, 0, 1)
        yield lambda done, total: self.progress(name, done, total)
        self.seconds[name] = round(time.perf_counter() - started, 2)


def segment_image(scan: SimpleITK.Image, network: Network) -> SimpleITK.Image:
    """Return the label map, 0/1/2 as uint8, of a scan in HU on the scan's own grid."""
    grid = scans.Grid.of(scan)
    scan = scans.averaged(SimpleITK.GetArrayViewFromImage(scan), grid, THICKEST_MM)
    margin, body, _ = _find_bone(scan, network, _Stages(ignore))
    return _label_map(margin, body, grid)


def _find_bone(
    scan: SimpleITK.Image, network: Network, stages: _Stages, apart: bool = False
) -> tuple[SimpleITK.Image, SimpleITK.Image, dict[str, str]]:
    """Return margin of bone, after post-processing, mask of the patient, and how computed."""
    with predictor(network, apart) as predict:
        with stages("finding the patient"):
            body = labels.body_mask(scan)
            region = find_region(network, scan, body)
        with stages("predicting") as done:
            margin, computed = predict_bone(predict, scan, region, done)
    with stages("post-processing"):
        return clean(margin, scan, body), body, computed


def _label_map(margin: SimpleITK.Image, body: SimpleITK.Image, grid: scans.Grid) -> SimpleITK.Image:
    """Return the label map of a margin and a mask of the patient on a grid."""
    nearest = SimpleITK.sitkNearestNeighbor
    return grid.build(
        lambda part: SimpleITK.Maximum(
            part.resample(body, nearest, 0), bone_on_grid(margin, part) * BONE
        )
    )


def _bone_model(
    stored: scans.Layout,
    network: Network,
    bones: bool,
    folder: SegmentationFolder,
    stages: _Stages,
    apart: bool,
) -> tuple[BoneModel, list[str]]:
    """Return the model of a scan, and notes; write its label maps."""
    margin, body, computed = _find_bone(stored.image, network, stages, apart)
    with stages("single bones"):
        ids, names, fit = _single_bones(margin, body, bones)
    with stages("label map"):
        maps, volumes_ml, notes = _write_label_maps(stored, margin, body, ids, names, folder)
    with stages("surfaces") as done:
        numbers = dict.fromkeys([ALL_BONE] if names else [])
        if ids is not None:
            numbers |= {name: number for number, name in names.items()}
        shapes = {}
        for index, (name, number) in enumerate(numbers.items(), start=1):
            with suppress(ValueError):  # a speck between the points of the surface's grid
                part = None if number is None else ids == number
                shapes[name] = surfaces.bone_surface(margin, part)
            done(index, len(numbers))
    return BoneModel(stored.image, *maps, names, volumes_ml, shapes, fit, computed), notes


def _write_label_maps(
    stored: scans.Layout, margin: SimpleITK.Image, body: SimpleITK.Image, ids: np.ndarray | None,
    names: dict[int, str], folder: SegmentationFolder,
) -> tuple[tuple[SimpleITK.Image, SimpleITK.Image], dict[str, float], list[str]]:  # fmt: skip
    """Write label map and single bones on the grid of the file, and a DICOM SEG.

    They may be large, so that one of them is in memory at a time. Return the label map and the
    bones on the grid of the scan, volumes and notes.
    """
    notes, grid, scan = [], stored.grid, stored.image
    if grid.is_skew:
        grid = scans.Grid.of(scan)
        notes.append("the gantry was tilted, so the label map is on the straightened scan")
    image = _label_map(margin, body, grid)
    scans.write_volume(image, folder.label_map)
    volumes_ml = _volumes_ml(image, {PATIENT: PATIENT_NAME, BONE: ALL_BONE})
    volumes_ml[PATIENT_NAME] += volumes_ml[ALL_BONE]
    label_map = labels.on_grid(image, scan)
    if ids is not None:
        del image
        grown = image_like(np.stack([expand_labels(part, EXPANSION) for part in ids]), margin)
        image = grid.build(lambda part: SimpleITK.Mask(
            part.resample(grown, SimpleITK.sitkNearestNeighbor, 0), bone_on_grid(margin, part)
        ))  # fmt: skip
        scans.write_volume(image, folder.bones)
        volumes_ml |= _volumes_ml(image, names)
    if stored.frames and names:
        try:
            dicom_seg.write_dicom_seg(folder.dicom_seg, stored.frames, image, names)
        except ValueError as error:
            notes.append(f"no DICOM SEG was written: {error}")
    return (label_map, labels.on_grid(image, scan)), volumes_ml, notes


def _single_bones(
    margin: SimpleITK.Image, body: SimpleITK.Image, bones: bool
) -> tuple[np.ndarray | None, dict[int, str], float]:
    """Return the ids of single bones where asked for, their names, and the fit of the pelvis."""
    found = SimpleITK.GetArrayViewFromImage(margin) > 0
    patient = SimpleITK.GetArrayFromImage(labels.on_grid(body, margin)) > 0
    grid = margin.GetSpacing()[::-1], patient
    names = {BONE: ALL_BONE} if found.any() else {}
    ids, names = separate(found, *grid) if bones else (None, names)
    return ids, names, pelvis_fit(found, *grid)


def _volumes_ml(ids: SimpleITK.Image, names: dict[int, str]) -> dict[str, float]:
    slices = SimpleITK.GetArrayViewFromImage(ids)
    counts = sum(np.bincount(one.ravel(), minlength=256) for one in slices)
    ml = counts * np.prod(ids.GetSpacing()) / 1000
    return {name: round(float(ml[number]), 2) for number, name in names.items()}


def _write(model: BoneModel, folder: SegmentationFolder) -> list[str]:
    """Write surfaces and pictures; return notes on those that could not be made."""
    notes = []
    for name, surface in model.surfaces.items():
        file = folder.surface if name == ALL_BONE else folder.bone_surface(name)
        surfaces.write_stl(surface, file)
    single = {name: one for name, one in model.surfaces.items() if name != ALL_BONE}
    shown = {name.replace("_", " "): one for name, one in (single or model.surfaces).items()}
    if shown:
        folder.viewer.write_text(viewer.surface_page(shown, "bone model"), encoding="utf-8")
    else:
        notes.append("no bone was found, so there is no surface")
    figure = surfaces.draw_preview(model.scan, model.label_map, shown)
    figure.savefig(folder.preview, dpi=PREVIEW_DPI)
    return notes


def _measure(model: BoneModel) -> dict:
    """Return volumes, surface areas and mean HU by structure, and the ids of the bones."""
    image_hu, mean_hu = SimpleITK.GetArrayViewFromImage(model.scan), {}
    for ids, names in ((model.label_map, {BONE: ALL_BONE}), (model.bones, model.names)):
        for number, name in names.items():
            chosen = image_hu[SimpleITK.GetArrayViewFromImage(ids) == number]
            if len(chosen):
                mean_hu[name] = round(float(chosen.mean()), 1)
    return {
        "volumes_ml": model.volumes_ml,
        "areas_cm2": {name: round(one.area / 100, 2) for name, one in model.surfaces.items()},
        "mean_hu": mean_hu,
        "bone_ids": {str(number): name for number, name in model.names.items()},
        "closed": {name: bool(one.is_watertight) for name, one in model.surfaces.items()},
        "surface_space": "patient coordinates (LPS) in mm: x to the left, y to the back, z up",
    }


def out_of_depth(model: BoneModel) -> tuple[dict[str, float], list[str]]:
    """Return measures of how unlike its training a scan is for a network, and notes on them."""
    box, voxels = surfaces.patient_box(model.label_map), np.zeros(2, int)
    for index in range(model.scan.GetDepth()):
        part = (*box, slice(index, index + 1))
        scan, classes = model.scan[part], model.label_map[part]
        bone = classes == BONE
        bright = labels.unlabelled_bone(scan, bone, classes > 0) & (scan > labels.BONE_HU)
        masks = map(SimpleITK.GetArrayViewFromImage, (bone, bright))
        voxels += [np.count_nonzero(mask) for mask in masks]
    bone_ml, bright_ml = (voxels * np.prod(model.scan.GetSpacing()) / 1000).tolist()
    notes = []
    if model.pelvis_fit < MIN_FIT:
        notes.append(
            f"no pelvis is recognised: the bone shows {model.pelvis_fit:.0%} of a standard one, at "
            f"least {MIN_FIT:.0%} are expected; the network knows pelvis, thighs and lower spine"
        )
    if bright_ml > max(BRIGHT_ML, BRIGHT_SHARE * bone_ml):
        notes.append(
            f"{bright_ml:.0f} ml are as bright as bone and not labelled, beside {bone_ml:.0f} ml "
            "of bone: ribs, arms, metal or contrast agent? look at preview.png"
        )
    measures = {"pelvis_fit": model.pelvis_fit, "bright_unlabelled_ml": bright_ml}
    return {name: round(value, 3) for name, value in measures.items()}, notes


def _origin(path: Path, network: Network, computed: dict[str, str]) -> dict:
    """Return what a bone model was made from and with."""
    files = scans.source_files(path)
    return {
        "input_sha256": provenance.content_hash(files, path if path.is_dir() else path.parent),
        "network": {
            "name": network.name,
            "weights": network.weights.name,
            "weights_sha256": provenance.content_hash([network.weights], network.weights.parent),
            "pixel_spacing_mm": network.settings.pixel_spacing_mm,
            "window_hu": network.settings.window_hu,
            **computed,
        },
        **provenance.circumstances(),
    }


# The output folder


def _replaceable_files(folder: SegmentationFolder, overwrite: bool) -> set[Path]:
    """Return the files that the record of an earlier run lists, and the record.

    Raises InputError for a folder that may not be written to.
    """
    if not folder.root.exists():
        return set()
    visible = [one for one in folder.root.iterdir() if not one.name.startswith(SCRATCH_PREFIX)]
    if visible and not overwrite:
        raise InputError(
            f"{folder.root}: is not empty; choose another folder, or overwrite the files of an "
            "earlier run in it (--overwrite)"
        )
    possible = {
        folder.label_map, folder.bones, folder.dicom_seg, folder.surface, folder.preview,
        folder.viewer, folder.record, *folder.bone_surfaces.glob("*.stl"),
    }  # fmt: skip
    try:
        record = provenance.read_json(folder.record)
        listed = [*record["files"], folder.record.name] if "input_sha256" in record else []
        earlier = possible & {folder.root / name for name in listed}
    except (KeyError, TypeError, ValueError):  # there is no record, or it is not ours
        earlier = set()
    for file in sorted(possible - earlier):
        if file.exists():
            raise InputError(
                f"{file}: exists, and no earlier run is recorded to have written it; move it or "
                "choose another folder"
            )
    return earlier


@contextmanager
def _scratch_folder(directory: Path) -> Iterator[SegmentationFolder]:
    """Yield a folder within `directory` that is removed at the end, as is a new empty directory."""
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=directory) as scratch:
            yield SegmentationFolder(Path(scratch))
    finally:
        if is_new and not any(directory.iterdir()):
            directory.rmdir()


def _files(root: Path) -> list[Path]:
    return sorted(file for file in root.rglob("*") if file.is_file())


def _publish(made: SegmentationFolder, final: SegmentationFolder, earlier: set[Path]) -> None:
    """Move the finished files to their places, the record last, and remove an earlier run's."""
    for file in earlier:
        file.unlink(missing_ok=True)
    for file in sorted(_files(made.root), key=lambda file: file == made.record):
        place = final.root / file.relative_to(made.root)
        place.parent.mkdir(exist_ok=True)
        file.replace(place)
    if final.bone_surfaces.is_dir() and not any(final.bone_surfaces.iterdir()):
        final.bone_surfaces.rmdir()
