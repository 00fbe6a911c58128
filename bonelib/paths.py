"""Every file name, once."""

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
NOTEBOOKS = REPOSITORY / "notebooks"
DATA = REPOSITORY / "data"
RESULTS = REPOSITORY / "results"
WEIGHTS = Path(__file__).resolve().parent / "models" / "weights"  # what the package ships


def raw_phantom(profile: str) -> Path:
    """Return the folder of the phantom's series, in the layout of a `folder` data set."""
    return DATA / "raw" / f"phantom-{profile}"


def prepared(profile: str, dataset: str) -> Path:
    """Return the default folder of the prepared slices of `dataset`."""
    return DATA / "prepared" / profile / dataset


@dataclass(frozen=True)
class SliceFolder:
    """The files of one prepared data set."""

    root: Path

    @property
    def table(self) -> Path:
        return self.root / "slices.csv"

    @property
    def description(self) -> Path:
        return self.root / "dataset.json"

    def series(self, series_id: str) -> Path:
        """Return the record of one prepared series; it is written last."""
        return self.root / "series" / f"{series_id}.json"

    def image(self, series_id: str, slice_index: int) -> Path:
        return self.root / "images" / f"{series_id}_{slice_index:04d}.png"

    def labels(self, series_id: str, slice_index: int) -> Path:
        return self.root / "labels" / f"{series_id}_{slice_index:04d}.png"


@dataclass(frozen=True)
class ResultFolder:
    """The files of one run."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def kernel_log(self) -> Path:
        return self.root / "kernels.log"

    @property
    def compiled(self) -> Path:
        """Return what JAX has compiled, for the next process."""
        return self.root / ".compiled"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def tables(self) -> Path:
        return self.root / "tables"

    @property
    def figures(self) -> Path:
        return self.root / "figures"

    @property
    def meshes(self) -> Path:
        return self.root / "meshes"

    @property
    def segmentation(self) -> Path:
        """Return the folder of one scan's segmentation; see `SegmentationFolder`."""
        return self.root / "segmentation"

    def notebook(self, task: str) -> Path:
        """Return the executed notebook of a task such as `03_train_model-unet`."""
        return self.root / "notebooks" / f"{task}.ipynb"

    def training(self, model: str) -> Path:
        return self.root / "models" / model

    def training_record(self, model: str) -> Path:
        """Return the JSON record of a training: settings, encoder weights, best epochs."""
        return self.training(model) / "training.json"

    def history(self, model: str) -> Path:
        return self.training(model) / "history.csv"

    def state(self, model: str) -> Path:
        """Return the model and optimizer as of the last finished epoch."""
        return self.training(model) / "state.keras"

    def best(self, model: str, epochs: int) -> Path:
        """Return the model of the best of the first `epochs` epochs."""
        return self.training(model) / f"best_of_{epochs}.keras"

    def scores(self, model: str) -> Path:
        """Return the per-image confusion counts of a method."""
        return self.root / "scores" / f"{model}.csv"

    def score_record(self, model: str) -> Path:
        """Return the JSON record of an evaluation: time per slice, parameters."""
        return self.root / "scores" / f"{model}.json"

    def surfaces(self, model: str) -> Path:
        """Return how far a method's surfaces lie from the reference's, by series."""
        return self.root / "scores" / f"{model}_surfaces.csv"

    def reliability(self, model: str) -> Path:
        """Return a network's probabilities beside how often they came true, by series."""
        return self.root / "scores" / f"{model}_reliability.csv"

    def false_bone(self, model: str) -> Path:
        """Return the pixels that a method wrongly calls bone, by cause and slice."""
        return self.root / "scores" / f"{model}_false_bone.csv"

    @property
    def scored_slices(self) -> Path:
        """Return the table of test slices: where they lie and how much bone they hold."""
        return self.root / "scores" / "slices.csv"

    def prediction(self, model: str, series_id: str, slice_index: int) -> Path:
        """Return the predicted label map of one test slice, at the longest horizon."""
        return self.root / "predictions" / model / f"{series_id}_{slice_index:04d}.png"


@dataclass(frozen=True)
class SegmentationFolder:
    """What is made of one scan."""

    root: Path

    @property
    def label_map(self) -> Path:
        """Return background 0, patient 1, bone 2 on the scan's own grid."""
        return self.root / "segmentation.nii.gz"

    @property
    def bones(self) -> Path:
        """Return the ids of single bones on the scan's own grid; the record names them."""
        return self.root / "bones.nii.gz"

    @property
    def dicom_seg(self) -> Path:
        return self.root / "segmentation.dcm"

    @property
    def surface(self) -> Path:
        return self.root / "bone.stl"

    @property
    def bone_surfaces(self) -> Path:
        return self.root / "bones"

    def bone_surface(self, name: str) -> Path:
        return self.bone_surfaces / f"{name}.stl"

    @property
    def preview(self) -> Path:
        return self.root / "preview.png"

    @property
    def viewer(self) -> Path:
        return self.root / "surface.html"

    @property
    def record(self) -> Path:
        return self.root / "report.json"
