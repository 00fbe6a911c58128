"""Phantoms and annotated subjects -> a corpus: training slabs and validation slices."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import SimpleITK
from PIL import Image

from bonelib import datasets, provenance
from bonelib.phantom.anatomy import cut_slice
from bonelib.phantom.patient import Patient
from bonelib.phantom.series import FIELD_OF_VIEW_MM, write_folders
from bonelib.phantom.skeleton import SPINE_TOP
from bonelib.preparation import to_grid
from bonelib.pretraining.annotated_patient import AnnotatedPatient, render
from bonelib.pretraining.annotation import Subject, read_label_maps
from bonelib.pretraining.corpus import PIXEL_MM, Corpus
from bonelib.segment.probabilities import input_slices
from bonelib.settings import Settings

SLABS = 24  # per patient, evenly spread with a random offset each
RENDERINGS = 6  # of each subject: one as drawn, the others rotated and stretched
LOWEST_MM = -300.0  # of a phantom's slabs, from the hip joints
VALIDATION_SLICES = 60  # of each held-out series, evenly spread


def write_corpus(
    root: Path, label_maps: list[Path], settings: Settings, phantoms: int, workers: int
) -> Corpus:
    """Write a corpus to folder `root`; patients that are up to date stay.

    Training shows `phantoms` made-up patients and the subjects of split train in folders of
    `label_maps`. Validation shows CT series of the other subjects or, if there are none, of
    default phantoms.
    """
    corpus = Corpus(root, settings)
    subjects = [subject for folder in label_maps for subject in read_label_maps(folder)]
    training = [subject for subject in subjects if subject.split == "train"]
    records = [{"series": f"phantom{number:03d}", "subject": ""} for number in range(phantoms)]
    records += [
        {
            "series": f"{subject.name}_{number:02d}",
            "deformed": number > 0,
            "num_slices": SLABS,  # subjects take longest, so they come first
            **subject.record(),
        }
        for number in range(RENDERINGS)
        for subject in training
    ]
    code = provenance.code_hash("bonelib.pretraining.annotated_patient", "bonelib.phantom.anatomy")
    for record in records:
        record["seed"] = int(provenance.text_hash(settings.seed, "corpus", record["series"]), 16)
        record["slabs"] = SLABS, LOWEST_MM, PIXEL_MM, settings.neighbour_mm
        record["code"] = code
    write = partial(_write_slabs, subjects={subject.name: subject for subject in training})
    write_folders(root / "slabs", records, write, workers)
    cases = held_out(root.parent, label_maps, settings, workers)
    _write_validation(corpus, [case for case in cases if case.split == "validation"])
    rows = [
        (f"slabs/{record['series']}/{number:02d}.png", record["subject"])
        for record in records
        for number in range(SLABS)
    ]
    with provenance.replacing(corpus.table) as scratch:
        pd.DataFrame(rows, columns=["file", "subject"]).to_csv(scratch, index=False)
    return corpus


def held_out(
    folder: Path, label_maps: list[Path], settings: Settings, workers: int
) -> list[datasets.Case]:
    """Return series that the slabs do not show, rendered below `folder`.

    They are the default phantoms' test series and, for validation, the subjects that are not
    trained on, or else the other default phantoms.
    """
    subjects = []
    for number, directory in enumerate(label_maps, 1):
        unseen = [one for one in read_label_maps(directory) if one.split != "train"]
        if unseen:
            rendered = folder / f"subjects{number}"
            render(rendered, unseen, settings, workers=workers)
            subjects += datasets.find_cases("folder", rendered, settings, splits=())
    phantoms = datasets.find_cases("phantom", folder / "phantom", settings, workers)
    unseen = [case for case in phantoms if case.split == "test"]
    if not subjects:
        subjects = [replace(case, split="validation") for case in phantoms if case not in unseen]
    return subjects + unseen


def _write_slabs(folder: Path, record: dict, subjects: dict[str, Subject]) -> None:
    random = np.random.default_rng([record["seed"], 10])
    shares = (np.arange(SLABS) + random.random(SLABS)) / SLABS  # of the patient's length
    subject = subjects.get(record["subject"])
    neighbour_mm = record["slabs"][-1]
    if subject is None:
        slabs = _phantom_slabs(record["seed"], shares, neighbour_mm)
    else:
        slabs = _subject_slabs(record, subject, shares, neighbour_mm)
    for number, planes in enumerate(slabs):
        cv2.imwrite(
            str(folder / f"{number:02d}.png"), np.dstack(planes), [cv2.IMWRITE_PNG_COMPRESSION, 9]
        )


def _phantom_slabs(seed: int, shares: np.ndarray, neighbour_mm: float) -> Iterator[list]:
    patient = Patient(seed)
    pixels = np.arange(round(FIELD_OF_VIEW_MM / PIXEL_MM)) * PIXEL_MM - FIELD_OF_VIEW_MM / 2
    highest = (SPINE_TOP - 6) * patient.scale
    for level in LOWEST_MM + shares * (highest - LOWEST_MM):
        levels = level + neighbour_mm * np.array([-1, 0, 1])
        yield [cut_slice(patient, pixels, pixels, z)[0] for z in levels]


def _subject_slabs(record: dict, subject: Subject, shares, neighbour_mm: float) -> Iterator[list]:
    seed = record["seed"]
    annotation = subject.read(deformed_by=seed if record["deformed"] else None)
    patient = AnnotatedPatient.from_seed(annotation, seed)
    factor = annotation.spacing_mm / patient.oversampling / PIXEL_MM
    last = len(annotation.body) - 1
    step = max(round(neighbour_mm / annotation.distance_mm), 1)
    for index in (shares * last).astype(int):
        planes = [np.clip(index + shift, 0, last) for shift in (-step, 0, step)]
        yield [
            cv2.resize(
                patient.cut_slice(plane)[0], None, fx=factor, fy=factor,
                interpolation=cv2.INTER_NEAREST,
            )
            for plane in planes
        ]  # fmt: skip


def _write_validation(corpus: Corpus, cases: list[datasets.Case]) -> None:
    """Write the network's input and the label maps of `cases` as a folder of prepared slices."""
    folder, settings = corpus.validation, corpus.settings
    token = provenance.text_hash(
        [provenance.content_hash(case.source_files(), case.directory) for case in cases],
        VALIDATION_SLICES, settings.decisive, provenance.code_hash(__name__),
    )  # fmt: skip
    if provenance.read_json(folder.description).get("fingerprint") == token:
        return
    for file in (folder.image("", 0), folder.labels("", 0)):
        file.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for case in cases:
        scan = case.scan()
        depth = scan.GetSize()[2]
        label_map = to_grid(case.label_map(scan), settings, is_label=True)
        labels = SimpleITK.GetArrayViewFromImage(label_map)
        for index in np.unique(np.linspace(0, depth - 1, VALIDATION_SLICES).astype(int)).tolist():
            image = input_slices(scan, settings, [index])[0]
            Image.fromarray(image).save(folder.image(case.series_id, index))
            Image.fromarray(labels[index]).save(folder.labels(case.series_id, index))
            rows.append((case.series_id, index, "validation"))
    table = pd.DataFrame(rows, columns=["series", "slice", "split"])
    with provenance.replacing(folder.table) as scratch:
        table.to_csv(scratch, index=False)
    provenance.write_json(folder.description, {"fingerprint": token})
