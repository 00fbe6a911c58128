"""From raw pelvic CT to the tables, figures and bone models of the paper.

Modules stand in data order; each imports only from those above it::

    errors             bad input: one line that says what to do
    settings, paths    every number of the paper and of each profile; every file name
    devices            cores, graphics cards, precision, worker processes
    provenance         versions, machine, commit and hashes of a run
    bone_names         name of a structure -> class of bone
    published          the paper's own numbers
    scans/             DICOM, NIfTI, NRRD, MHA -> scan: SimpleITK image in HU
    labels/            mask of any format + scan -> label map: 0, 1, 2
    phantom/           seed -> folder data set of DICOM series and label maps
    datasets/          name and folder -> cases: series id, scan, label map, split;
                       public data sets -> folder layout
    slices             prepared 2-D slices on disk -> arrays
    preparation        cases -> prepared slices, split by series
    augment/           slices + seed -> augmented batches
    models/            name -> keras.Model
    prediction         network or threshold + slices -> label maps
    metrics            reference + prediction -> counts, scores
    training           model + batches -> weights, history
    evaluation/        weights + test slices -> scores on disk, intervals
    headless           slices -> trained and scored networks, without notebooks
    figures/           slices, histories, scores -> figures; scans and surfaces in notebooks
    tables/            scores -> the paper's tables
    report/            scores -> which of the paper's claims hold; tables, figures -> report.html
    workflow/          what run_all.py needs: a run, its steps, the driver

Beyond the paper; nothing above imports these::

    pretrained         name or weights -> network, in this process or in one of its own
    segment/           one scan -> label map, single bones, STL, DICOM SEG, page
    pretraining/       annotated anatomy and phantoms -> the shipped weights

One noun per thing: series (files) -> scan (volume) -> label map -> slice -> batch ->
prediction -> score -> table -> figure. Arrays are (slice, row, column), spacings in the
same order, in millimetres.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__version__ = "0.1.0"

# Same seed, same machine, same result; TensorFlow reads these when it is first imported.
os.environ.setdefault("TF_DETERMINISTIC_OPS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow leaves this off on processors with AVX2 alone, where FCN8 takes four times as long.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


@contextmanager
def without_stderr() -> Iterator[None]:
    """Discard what is written to the file descriptor, as TensorFlow does when it is imported."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


if "ipykernel" in sys.modules:  # JupyterLab would show TensorFlow's greeting in red
    with without_stderr():
        import keras  # noqa: F401
