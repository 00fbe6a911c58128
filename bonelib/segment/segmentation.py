"""One scan -> label map, surfaces, preview and record of it: an individual bone model."""

import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import keras
import numpy as np
import SimpleITK
import trimesh
from skimage.segmentation import expand_labels

from bonelib import devices, provenance, scans
from bonelib.errors import InputError, InputWarning
from bonelib.paths import SegmentationFolder
from bonelib.segment import bones, dicom_seg, overview, postprocess, regions, surfaces, viewer
from bonelib.segment.pretrained import Network, find_network
from bonelib.segment.probabilities import Probabilities, fit_to_scan, predict_scan, to_scan
from bonelib.settings import BONE, CLASS_NAMES, PATIENT
from bonelib.workflow.runs import Run

SCRATCH_NAME = ".unfinished"
ALL_BONE = CLASS_NAMES[BONE]
PREVIEW_DPI = 110
EXPANSION = 3  # voxels around a bone that are its own, where label map and grid round apart

Progress = Callable[[str, int, int], None]  # stage, how much of it is done, of how much


@dataclass(frozen=True)
class Options:
    """What to make of a scan, and by which network."""

    model: str = "unet"
    weights: Path | None = None  # None: those that the package ships
    series: str | None = None  # which DICOM series of several
    bones: bool = False  # an id and a surface for each bone, too
    roi: bool = False  # find the bone first and segment only there
    steps: tuple[str, ...] = tuple(postprocess.STEPS)
    max_triangles: int | None = None  # of a surface
    keep_identity: bool = False  # of the patient, in the DICOM SEG


@dataclass(frozen=True)
class BoneModel:
    """What is made of one scan."""

    stored: scans.StoredScan
    label_map: SimpleITK.Image  # on the scan's grid, as the next
    structures: SimpleITK.Image  # ids of single bones, or 1 for all bone
    names: dict[int, str]  # of the ids
    surfaces: dict[str, trimesh.Trimesh]  # all bone, then by the same names
    seconds: dict[str, float]  # of each stage
    notes: list[str]

    @property
    def scan(self) -> SimpleITK.Image:
        """Return the scan in HU, in LPS."""
        return self.stored.image


def segment(
    path: Path,
    directory: Path,
    options: Options = Options(),  # noqa: B008, it is frozen
    progress: Progress = lambda stage, done, total: None,
) -> dict:
    """Segment the scan at `path` into `directory` and return its record.

    `paths.SegmentationFolder` names what is written: a label map on the scan's own grid, for
    DICOM a DICOM SEG, surfaces in mm of the patient (LPS), a preview, a page that turns the
    surface, and the record. They come when all are made, and take the place of an earlier
    run's; a run that is stopped leaves nothing. `progress` is told stage, done and total.
    Raises InputError for scans and weights that cannot be used.
    """
    network = find_network(options.model, options.weights)
    scratch = SegmentationFolder(directory / SCRATCH_NAME)
    shutil.rmtree(scratch.root, ignore_errors=True)
    is_new = not directory.exists()
    scratch.root.mkdir(parents=True)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", InputWarning)
            model = make_bone_model(path, network, options, progress)
            record = _write(model, scratch, options, progress)
        told = [str(item.message) for item in caught if issubclass(item.category, InputWarning)]
        record["notes"] = list(dict.fromkeys([*told, *record["notes"]]))
        record |= _origin(path, network)
        provenance.write_json(scratch.record, record)
        _publish(scratch, SegmentationFolder(directory))
    finally:
        shutil.rmtree(scratch.root, ignore_errors=True)
        if is_new and not any(directory.iterdir()):
            directory.rmdir()
    return record


def options_for(network: str | None, run: Run) -> Options:
    """Return options that take a run's own network, trained longest, at its best epoch.

    None takes the network that the package ships.
    """
    if network is None:
        return Options()
    return Options(network, run.results.best(network, max(run.settings.horizons(network))))


def make_bone_model(path: Path, network: Network, options: Options, tell: Progress) -> BoneModel:
    """Read a scan, segment it and return what is found, in memory."""
    stages, notes = _Stages(tell), [network.note] if network.note else []
    devices.set_precision(network.settings)
    with stages("reading"):
        stored = scans.open_scan(path, options.series)
    scan = stored.image
    probabilities = _predict(scan, network, options.roi, stages, notes)
    with stages("post-processing") as done:
        postprocess.apply(probabilities, scan, options.steps, done)
        label_map = to_scan(probabilities, scan)
    with stages("surfaces") as done:
        surfaces, structures, names = _parts(probabilities, label_map, options, done)
    if not surfaces:
        notes.append("no bone was found, so there is no surface")
    return BoneModel(stored, label_map, structures, names, surfaces, stages.seconds, notes)


@dataclass
class _Stages:
    """Tells progress and keeps the seconds of each stage."""

    tell: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Time a stage; yield what to tell how much of it is done."""
        started, whole = time.perf_counter(), 1

        def tell(done: int, total: int) -> None:
            nonlocal whole
            whole = total
            self.tell(name, done, total)

        tell(0, 1)
        yield tell
        tell(whole, whole)
        self.seconds[name] = round(time.perf_counter() - started, 2)


def _predict(
    scan: SimpleITK.Image, network: Network, roi: bool, stages: _Stages, notes: list[str]
) -> Probabilities:
    settings = fit_to_scan(network.settings, scan)
    size = (settings.image_size, settings.image_size)
    model, region = network.sized(*size), None
    if roi:
        with stages("finding bone") as done:
            found = regions.find_region(model, scan, settings, done)
        if found is None:
            notes.append("no region of bone was found, so all of the scan was segmented")
        else:
            region, size = found
            share = len(region.slices) / scan.GetSize()[2] * np.prod(size) / settings.image_size**2
            notes.append(f"segmented in the region of the bone, {100 * share:.0f} % of the scan")
            model = network.sized(*size)
    with stages("predicting") as done:
        return predict_scan(model, scan, settings, region, done)


def _parts(
    probabilities: Probabilities, label_map: SimpleITK.Image, options: Options, done
) -> tuple[dict[str, trimesh.Trimesh], SimpleITK.Image, dict[int, str]]:
    """Return surfaces by name, ids on the grid of `label_map`, and the ids' names."""
    classes = probabilities.label_map()
    bone = classes == BONE
    structures, names = label_map == BONE, {1: ALL_BONE} if bone.any() else {}
    parts = {name: None for name in names.values()}
    if options.bones:
        middle_mm = _middle(classes) * probabilities.spacing_mm[2]
        ids, names = bones.separate(bone, probabilities.spacing_mm, middle_mm)
        parts |= {name: ids == number for number, name in names.items()}
        structures = _on_scan(probabilities, ids, label_map)
    surfaces = {}
    for number, (name, part) in enumerate(parts.items(), start=1):
        try:
            surface = surfaces.probability_surface(probabilities, part)
        except ValueError:  # a speck that no voxel of the surface's grid falls into
            continue
        budget = options.max_triangles or len(surface.faces)
        surfaces[name] = surfaces.coarsen(surface, budget)
        done(number, len(parts))
    return surfaces, structures, names


def _middle(classes: np.ndarray) -> int:
    """Return the column that halves the patient, which bone that is seen on one side does not."""
    halves = (classes >= PATIENT).sum(axis=(0, 1)).cumsum()
    return int(np.searchsorted(halves, halves[-1] / 2))


def _on_scan(
    probabilities: Probabilities, ids: np.ndarray, label_map: SimpleITK.Image
) -> SimpleITK.Image:
    """Return the ids of single bones on the grid of a label map, each where that has bone."""
    whole = np.stack([expand_labels(part, EXPANSION) for part in ids])
    return SimpleITK.Mask(
        SimpleITK.Resample(
            probabilities.image(whole), label_map, SimpleITK.Transform(),
            SimpleITK.sitkNearestNeighbor,
        ),
        label_map == BONE,
    )  # fmt: skip


def _write(model: BoneModel, folder: SegmentationFolder, options: Options, tell: Progress) -> dict:
    """Write everything but the record into `folder` and return what the record says of it."""
    stages, notes = _Stages(tell, model.seconds), list(model.notes)
    with stages("writing"):
        grid = _stored_grid(model.stored, notes)
        images = {folder.label_map: model.label_map}
        if options.bones:
            images[folder.bones] = model.structures
        for file, image in images.items():
            turned = SimpleITK.Resample(
                image, grid, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor
            )
            scans.write_volume(turned, file)
        if model.stored.frames and model.names:
            try:
                dicom_seg.write_dicom_seg(
                    folder.dicom_seg, model.stored, model.structures, model.names,
                    options.keep_identity,
                )  # fmt: skip
            except InputError as error:  # the other files stand without it
                # Without the path, which may be the patient's name.
                notes.append(f"no DICOM SEG: {str(error).split(': ', 1)[-1]}")
        for name, surface in model.surfaces.items():
            file = folder.surface if name == ALL_BONE else folder.bone_surface(name)
            surfaces.write_stl(surface, file)
        if model.surfaces:
            single = {
                name.replace("_", " "): one
                for name, one in model.surfaces.items()
                if name != ALL_BONE
            }
            page = viewer.surface_page(single or model.surfaces, "bone model")
            folder.viewer.write_text(page, encoding="utf-8")
        figure = overview.draw_overview(model.scan, model.label_map, model.surfaces.get(ALL_BONE))
        figure.savefig(folder.preview, dpi=PREVIEW_DPI)
    return {
        "options": {
            "bones": options.bones,
            "roi": options.roi,
            "steps": list(options.steps),
            "max_triangles": options.max_triangles,
            "keep_identity": options.keep_identity,
        },
        "scan": {
            "size": model.scan.GetSize(),
            "spacing_mm": model.scan.GetSpacing(),
            "grid": "columns, rows, slices; patient's right to left, front to back, feet to head",
        },
        **_measures(model),
        "bone_ids": {str(number): name for number, name in model.names.items()},
        "surfaces": {
            name: {"triangles": len(surface.faces), "closed": bool(surface.is_watertight)}
            for name, surface in model.surfaces.items()
        },
        "surface_space": "mm of the patient, LPS: x to the left, y to the back, z to the head",
        "seconds": stages.seconds,
        "files": [file.relative_to(folder.root).as_posix() for file in _files(folder.root)],
        "notes": notes,
    }


def _stored_grid(stored: scans.StoredScan, notes: list[str]) -> SimpleITK.Image:
    """Return an empty image on the grid of a scan as it lies on disk, before it was turned."""
    if stored.grid.is_skew:
        notes.append("the label map lies on the straightened scan, since the gantry was tilted")
        return stored.image
    return stored.grid.empty()


def _measures(model: BoneModel) -> dict:
    """Return volumes, surface areas and mean HU by structure."""
    image_hu, classes, structures = map(
        SimpleITK.GetArrayViewFromImage, (model.scan, model.label_map, model.structures)
    )
    voxel_ml = np.prod(model.scan.GetSpacing()) / 1000
    counts, sums = np.zeros(256), np.zeros(256)
    bone_count = bone_sum = patient_count = 0
    for part_hu, labels, ids in zip(image_hu, classes, structures, strict=True):  # in small memory
        counts += np.bincount(ids.ravel(), minlength=256)
        sums += np.bincount(ids.ravel(), part_hu.ravel(), 256)
        bone = labels == BONE
        bone_count, bone_sum = bone_count + bone.sum(), bone_sum + part_hu[bone].sum(dtype=float)
        patient_count += (labels == PATIENT).sum()
    voxels = {ALL_BONE: bone_count} | {name: counts[key] for key, name in model.names.items()}
    total_hu = {ALL_BONE: bone_sum} | {name: sums[key] for key, name in model.names.items()}
    volumes_ml = {name: round(count * voxel_ml, 2) for name, count in voxels.items()}
    return {
        "volumes_ml": {"patient": round((patient_count + bone_count) * voxel_ml, 2)} | volumes_ml,
        "areas_cm2": {name: round(one.area / 100, 2) for name, one in model.surfaces.items()},
        "mean_hu": {
            name: round(total_hu[name] / count, 1) for name, count in voxels.items() if count
        },
    }


def _origin(path: Path, network: Network) -> dict:
    """Return what a bone model was made of and with."""
    files = scans.source_files(path)
    return {
        "input_sha256": provenance.content_hash(files, path if path.is_dir() else path.parent),
        "network": {
            "name": network.name,
            "weights": network.weights.name,
            "weights_sha256": provenance.content_hash([network.weights], network.weights.parent),
            "pixel_spacing_mm": network.settings.pixel_spacing_mm,
            "window_hu": network.settings.window_hu,
            "precision": keras.config.dtype_policy().name,
            "backend": keras.backend.backend(),
        },
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": provenance.versions(),
        "git_commit": provenance.git_commit(),
        "device": devices.machine(),
    }


def _files(root: Path) -> list[Path]:
    return sorted(file for file in root.rglob("*") if file.is_file())


def _publish(made: SegmentationFolder, final: SegmentationFolder) -> None:
    """Move what was made to its place, the record last, and remove what an earlier run left."""
    for file in (final.record, final.bones, final.dicom_seg, final.surface, final.viewer):
        file.unlink(missing_ok=True)
    shutil.rmtree(final.bone_surfaces, ignore_errors=True)
    for file in sorted(_files(made.root), key=lambda file: file == made.record):
        place = final.root / file.relative_to(made.root)
        place.parent.mkdir(exist_ok=True)
        file.replace(place)
