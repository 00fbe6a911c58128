"""From raw pelvic CT to the tables, figures and bone models of the paper.

Module order is data order; a module imports only from those above it::

    settings, paths    every number of the paper and of each profile, every file name, once
    provenance         versions, device, commit, hashes: what a result was made with
    published          the paper's own numbers
    errors             an input that is refused, or repaired with a warning: one line
    structures         names of a mask's structures -> which are bone, and what they are called
    archives           zip or tar -> files, of which none escapes
    scans/             DICOM, NIfTI, NRRD, MHA on disk -> scan: SimpleITK image in HU
    labels/            volumes, PNG, RTSTRUCT, DICOM SEG + scan -> label map: 0, 1, 2
    inspection         scan + mask -> what was read, in words
    phantom/           a seed, or a label map and a seed -> a series on disk, DICOM and labels
    datasets/          a name and a folder -> cases (series id, scan, label map, split)
    slices             prepared 2-D slices on disk -> arrays, and what a network is given
    preparation        cases -> prepared slices, split by series
    runs               profile, data set and folders of one run, for notebooks and driver
    augment/           slices + a seed -> augmented batches, on processor or device
    models/            a name -> keras.Model
    prediction         model or baseline + slices -> label maps
    probabilities      model + scan -> probabilities in space -> label map
    trained            a name, or a file of weights -> network and the slices that it takes
    regions            scan + network at low resolution -> where the bone is
    postprocessing     probabilities -> the same without islands, holes and steps
    metrics            reference + prediction -> counts, scores
    training           model + batches -> best weights, history
    cards              trained weights -> scores on held-out series, model card
    pretraining        phantoms and label maps -> the weights that the package ships
    levels             names of a slice's bones -> its level, from the feet to the head
    mistakes           reference + prediction + slice -> causes of false bone, calibration
    scoring            scores on disk -> frames, chosen and pooled
    evaluation         best weights + test slices -> scores, label maps, time per slice
    bones              mask of all bone -> single bones, named by where they are
    meshes             probabilities or label map -> surface, STL
    agreement          bone as found + as drawn -> overlap and distances in mm
    exports            label map + the DICOM files it belongs to -> DICOM SEG
    viewer             surfaces -> a page that turns them, without a network
    uncertainty        scores -> intervals, differences, paired comparisons
    ablations          settings -> trainings that answer what the paper leaves open
    headless           slices -> trained and scored networks, without notebooks
    tables/, figures/  scores -> the paper's tables and figures
    replication/       scores, curves, costs -> which of the paper's claims hold
    report/            tables, figures, verdicts, manifest -> report.html
    reference          a run's results <-> its small files, kept in the repository
    realism            phantom series -> HU, shares, shapes, noise beside a patient's
    previews, browser  what notebooks show besides the paper's figures
    planes             one scan and its label map in three planes, by sliders
    overview           scan + label map + surface -> one picture of them
    segmentation       one scan -> label map, surfaces, preview, record: a bone model
    workbench          the same in JupyterLab, by buttons
    estimates          settings + machine -> seconds that a step will take
    cluster            work -> a worker on another machine with the same disk
    steps              a run -> notebooks, their parameters, what they read and write
    pipeline           steps -> tasks, run in order, skipped where up to date
    commands           what python -m bonelib does

One noun per thing: series (files) -> scan (volume) -> label map -> slice -> batch ->
prediction -> score -> table -> figure. Arrays are (slice, row, column), spacings in the
same order, in millimetres.
"""

import os

# Same seed, same machine, same result; TensorFlow reads these when it is first imported.
os.environ.setdefault("TF_DETERMINISTIC_OPS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
