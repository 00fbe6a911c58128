"""Phantoms and annotated subjects -> tissue planes on disk -> random training batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import count, islice
from pathlib import Path

import cv2
import numpy as np

from bonelib import augment, devices, provenance, slices
from bonelib.phantom.anatomy import cut_slice
from bonelib.phantom.patient import Patient
from bonelib.phantom.rendering import draw_texture
from bonelib.phantom.series import FIELD_OF_VIEW_MM, write_folders
from bonelib.phantom.skeleton import SPINE_TOP
from bonelib.pretraining.annotated_patient import AnnotatedPatient
from bonelib.pretraining.label_maps import Subject
from bonelib.pretraining.random_ct import random_slice
from bonelib.settings import Settings

PLANES = 24  # per patient, evenly spread with a random offset each
LOWEST_MM = -300.0  # of a phantom's planes, from the hip joints
PHANTOM_PIXEL_MM = 0.65
SCALE_NAME = "scale.json"  # beside the planes: the width of a pixel in mm
SUBJECT_SHARE = 0.65  # of the samples that show annotated subjects, if there are any
TEXTURE_SEED = 10


@dataclass(frozen=True)
class Corpus:
    """Tissue planes to draw samples from: files, and the widths of their pixels in mm."""

    phantoms: list[tuple[Path, float]]
    subjects: list[tuple[Path, float]]
    settings: Settings
    workers: int
    has_shares: bool = True

    @property
    def fingerprint(self) -> str:
        """Return a hash of the planes' files."""
        files = [path for path, _ in self.phantoms + self.subjects]
        return provenance.content_hash(files, files[0].parents[1])

    def batches(self, output_size: int, first_epoch: int) -> Iterator:
        """Yield random batches without end; each depends on the seed and its number only."""
        load = partial(_draw_batch, corpus=self, output_size=output_size)
        numbers = count(first_epoch * self.settings.steps_per_epoch)
        return devices.in_order(load, numbers, self.workers)

    def examples(self, number: int) -> np.ndarray:
        """Return the first `number` training images."""
        batches = self.batches(self.settings.image_size, 0)
        needed = -(-number // self.settings.batch_size)
        return np.concatenate([images for images, _ in islice(batches, needed)])[:number]


def write_corpus(
    directory: Path, subjects: list[Subject], settings: Settings, phantoms: int, workers: int
) -> Corpus:
    """Write tissue planes of phantoms and of `settings.renderings` versions of each subject.

    Folders that are up to date stay.
    """
    records = [{"series": f"phantom{number:03d}"} for number in range(phantoms)]
    records += [
        {
            "series": f"{subject.name}_{number:02d}",
            "deformed": number > 0,
            "num_slices": PLANES,  # subjects take longest, so they come first
            **subject.record(),
        }
        for number in range(settings.renderings)
        for subject in subjects
    ]
    code = provenance.code_hash("bonelib.pretraining.label_maps", "bonelib.phantom.anatomy")
    for record in records:
        record["seed"] = int(provenance.text_hash(settings.seed, "corpus", record["series"]), 16)
        record["planes"] = PLANES, LOWEST_MM, PHANTOM_PIXEL_MM
        record["code"] = code
    write = partial(_write_planes, subjects={subject.name: subject for subject in subjects})
    write_folders(directory, records, write, workers)
    planes = []
    for record in records:
        folder = directory / record["series"]
        pixel_mm = provenance.read_json(folder / SCALE_NAME)["pixel_mm"]
        planes += [(folder / f"{number:02d}.png", pixel_mm) for number in range(PLANES)]
    split = phantoms * PLANES
    return Corpus(planes[:split], planes[split:], settings, augment.num_workers(settings))


def _write_planes(folder: Path, record: dict, subjects: dict[str, Subject]) -> None:
    seed, subject = record["seed"], subjects.get(record.get("subject"))
    random = np.random.default_rng([seed, 10])
    shares = (np.arange(PLANES) + random.random(PLANES)) / PLANES  # of the patient's length
    if subject is None:
        patient, pixel_mm = Patient(seed), PHANTOM_PIXEL_MM
        pixels = np.arange(round(FIELD_OF_VIEW_MM / pixel_mm)) * pixel_mm - FIELD_OF_VIEW_MM / 2
        highest = (SPINE_TOP - 6) * patient.scale
        levels = LOWEST_MM + shares * (highest - LOWEST_MM)
        planes = (cut_slice(patient, pixels, pixels, level)[0] for level in levels)
    else:
        annotation = subject.read(deformed_by=seed if record["deformed"] else None)
        patient = AnnotatedPatient.from_seed(annotation, seed)
        pixel_mm = annotation.spacing_mm / patient.oversampling
        levels = (shares * len(annotation.body)).astype(int)
        planes = (patient.cut_slice(level)[0] for level in levels)
    for number, plane in enumerate(planes):
        cv2.imwrite(str(folder / f"{number:02d}.png"), plane)
    provenance.write_json(folder / SCALE_NAME, {"pixel_mm": pixel_mm})


@cache  # once a process
def _texture() -> np.ndarray:
    return draw_texture(np.random.default_rng(TEXTURE_SEED))


def _draw_batch(number: int, corpus: Corpus, output_size: int) -> tuple[np.ndarray, np.ndarray]:
    settings = corpus.settings
    images, classes = [], []
    for position in range(settings.batch_size):
        random = np.random.default_rng([settings.seed, 11, number, position])
        of_subject = bool(corpus.subjects) and random.random() < SUBJECT_SHARE
        chosen = corpus.subjects if of_subject else corpus.phantoms
        path, pixel_mm = chosen[random.integers(len(chosen))]
        tissues = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if tissues is None:
            raise augment.SliceError(f"{path}: missing or damaged; remove its folder and run again")
        image_hu, shares = random_slice(
            tissues, pixel_mm, _texture(), settings.image_size, settings.pixel_spacing_mm, random
        )
        images.append(slices.window(image_hu, settings))
        classes.append(cv2.resize(shares, (output_size, output_size), interpolation=cv2.INTER_AREA))
    return np.stack(images), np.stack(classes)
