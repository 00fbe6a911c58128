"""Many patients -> planes of tissues on disk, which `randomised` then shows in many ways."""

from functools import partial
from pathlib import Path

import cv2
import numpy as np

from bonelib.phantom.anatomy import cut_slice
from bonelib.phantom.patient import Patient
from bonelib.phantom.series import FIELD_OF_VIEW_MM, write_folders
from bonelib.phantom.skeleton import SPINE_TOP
from bonelib.pretraining.annotated_patient import AnnotatedPatient
from bonelib.pretraining.annotation import deform, read_annotation
from bonelib.provenance import code_hash, read_json, text_hash, write_json

PLANES = 24  # of one patient, evenly spread with a random offset each
LOWEST_MM = -300.0  # of a phantom's planes, from the hip joints
PHANTOM_PIXEL_MM = 0.65
SCALE_NAME = "scale.json"  # beside the planes: the width of a pixel in mm


def write_planes(
    directory: Path,
    count: int,
    subjects: list,
    names: dict[int, str],
    renderings: int,
    seed: int,
    workers: int = 1,
) -> list[tuple[Path, float]]:
    """Write planes of `count` phantoms and of `renderings` versions of each subject.

    `subjects` are `label_maps.Subject`, `names` gives their bones and tissues by id.
    Returns each plane's file, a PNG of `Tissue`, and the width of its pixels in mm. What was
    written before stays.
    """
    code = code_hash(
        "bonelib.pretraining.annotated_patient",
        "bonelib.phantom.skeleton",
        "bonelib.pretraining.corpus",
    )
    records = [
        {"series": f"phantom{number:03d}", "seed": int(text_hash(seed, "corpus", number), 16)}
        for number in range(count)
    ]
    records += [
        {
            "series": f"{subject.name}_{number:02d}",
            "seed": int(text_hash(seed, "corpus", subject.name, number), 16),
            "subject": subject.name,
            "deformed": number > 0,
            "slices": subject.slices,
            "sources": subject.states(),
            "names": {str(key): name for key, name in names.items()},
            "num_slices": PLANES,  # these take longest, so they come first
        }
        for number in range(renderings)
        for subject in subjects
    ]
    records = [record | {"planes": PLANES, "code": code} for record in records]
    write = partial(_write, subjects={subject.name: subject for subject in subjects}, names=names)
    write_folders(directory, records, write, workers)
    return [
        (directory / record["series"] / f"{number:02d}.png", pixel_mm)
        for record in records
        for pixel_mm in [read_json(directory / record["series"] / SCALE_NAME)["pixel_mm"]]
        for number in range(PLANES)
    ]


def _write(folder: Path, record: dict, subjects: dict, names: dict[int, str]) -> None:
    random = np.random.default_rng([record["seed"], 10])
    shares = (np.arange(PLANES) + random.random(PLANES)) / PLANES  # of the patient's length
    if "subject" in record:
        subject = subjects[record["subject"]]
        annotation = read_annotation(subject.label_path, subject.mask_path, names, subject.slices)
        if record["deformed"]:
            annotation = deform(annotation, record["seed"])
        patient = AnnotatedPatient.from_seed(annotation, record["seed"])
        pixel_mm = annotation.spacing_mm / patient.oversampling
        levels = (shares * len(annotation.body)).astype(int)
        planes = (patient.cut_slice(level)[0] for level in levels)
    else:
        patient, pixel_mm = Patient.from_seed(record["seed"]), PHANTOM_PIXEL_MM
        pixels = np.arange(round(FIELD_OF_VIEW_MM / pixel_mm)) * pixel_mm - FIELD_OF_VIEW_MM / 2
        highest = (SPINE_TOP - 6) * patient.scale
        levels = LOWEST_MM + shares * (highest - LOWEST_MM)
        planes = (cut_slice(patient, pixels, pixels, level)[0] for level in levels)
    for number, plane in enumerate(planes):
        cv2.imwrite(str(folder / f"{number:02d}.png"), plane)
    write_json(folder / SCALE_NAME, {"pixel_mm": pixel_mm})
