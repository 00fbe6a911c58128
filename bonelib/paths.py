"""Every file name, defined once."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
NOTEBOOKS = REPOSITORY / "notebooks"
DATA = REPOSITORY / "data"
RESULTS = REPOSITORY / "results"
REFERENCE = RESULTS / "reference"  # small files of a run, kept in the repository
REBUILT = RESULTS / "from-reference"  # tables and report made from them
WEIGHTS = Path(__file__).resolve().parent / "models" / "weights"  # shipped with the package


def raw_phantom(profile: str) -> Path:
    """Return the folder of the phantom's series, in the layout of a `folder` data set."""
    return DATA / "raw" / f"phantom-{profile}"


def prepared(profile: str, dataset: str) -> Path:
    """Return the default folder of the prepared slices of `dataset`."""
    return DATA / "prepared" / profile / dataset


class SliceFolder:
    """The files of one prepared data set."""

    def __init__(self, root: Path):
        self.root = root
        self.table = root / "slices.csv"
        self.description = root / "dataset.json"

    def series(self, series_id: str) -> Path:
        """Return the record of one prepared series; it is written last."""
        return self.root / "series" / f"{series_id}.json"

    def image(self, series_id: str, slice_index: int) -> Path:
        return self.root / "images" / f"{series_id}_{slice_index:04d}.png"

    def labels(self, series_id: str, slice_index: int) -> Path:
        return self.root / "labels" / f"{series_id}_{slice_index:04d}.png"


class ResultFolder:
    """The files of one run."""

    def __init__(self, root: Path):
        self.root = root
        self.manifest = root / "manifest.json"
        self.report = root / "report.html"
        self.tables = root / "tables"
        self.figures = root / "figures"
        self.meshes = root / "meshes"
        self.segmentation = root / "segmentation"  # one SegmentationFolder a scan
        self.compiled = root / ".compiled"  # JAX's compilation cache
        self.scored_slices = root / "scores" / "slices.csv"  # position and bone of test slices

    def notebook(self, task: str) -> Path:
        """Return the executed notebook of a task such as `03_train_model-unet`."""
        return self.root / "notebooks" / f"{task}.ipynb"

    def training(self, model: str) -> Path:
        return self.root / "models" / model

    def training_record(self, model: str) -> Path:
        return self.training(model) / "training.json"

    def history(self, model: str) -> Path:
        return self.training(model) / "history.csv"

    def state(self, model: str) -> Path:
        """Return the model and optimizer as of the last finished epoch."""
        return self.training(model) / "state.keras"

    def best(self, model: str, epochs: int) -> Path:
        """Return the model of the best of the first `epochs` epochs."""
        return self.training(model) / f"best_of_{epochs}.keras"

    def scores(self, method: str, kind: str = "") -> Path:
        """Return a table of a method's evaluation, of a kind in `scoring.COLUMNS`."""
        return self.root / "scores" / f"{'_'.join(filter(None, (method, kind)))}.csv"

    def score_record(self, method: str) -> Path:
        return self.root / "scores" / f"{method}.json"

    def prediction(self, method: str, series_id: str, slice_index: int) -> Path:
        """Return the predicted label map of one test slice after the longest training."""
        return self.root / "predictions" / method / f"{series_id}_{slice_index:04d}.png"


class SegmentationFolder:
    """The files made from one scan."""

    def __init__(self, root: Path):
        self.root = root
        self.label_map = root / "segmentation.nii.gz"  # 0, 1, 2 on the scan's grid
        self.bones = root / "bones.nii.gz"  # ids of single bones; the record has their names
        self.dicom_seg = root / "segmentation.dcm"
        self.surface = root / "bone.stl"
        self.bone_surfaces = root / "bones"
        self.preview = root / "preview.png"
        self.viewer = root / "surface.html"
        self.record = root / "report.json"

    def bone_surface(self, name: str) -> Path:
        return self.bone_surfaces / f"{name}.stl"
