"""Bone models from CT scans of the pelvis.

`python run_all.py` reproduces the paper with its tables and figures.
"""

import argparse
import sys
import warnings
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK
from tqdm import tqdm

from bonelib import __version__, datasets, errors, labels, scans, without_stderr
from bonelib.devices import num_cores
from bonelib.paths import RESULTS
from bonelib.settings import (
    BONE,
    MODEL_NAMES,
    PATIENT,
    PRETRAINING,
    SHIPPED_MODEL,
    SPLITS,
    get_settings,
    parse_overrides,
    replaced,
)

COMMAND = "bonelib" if Path(sys.argv[0]).stem == "bonelib" else "python -m bonelib"
EXAMPLES = f"""examples:
  {COMMAND} inspect my_ct                       what does this scan contain?
  {COMMAND} segment my_ct -o my_bones --bones   label map and surfaces of its bones

`{COMMAND} COMMAND --help` explains a command."""
BAR = "{desc:<16} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}]"

fail = partial(errors.fail, "bonelib")


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code; bad input is one line and exit code 2."""
    options = parse(arguments)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", errors.InputWarning)
            warnings.showwarning = _show_warning
            options.run(options)
    except ValueError as error:  # InputError is one
        return fail(error)
    except OSError as error:
        return fail(f"{error.filename or 'output'}: {error.strerror}; check space and rights")
    except (MemoryError, BrokenProcessPool):  # the system ends a process that takes too much
        return fail("not enough memory; crop the scan or use a larger machine")
    except KeyboardInterrupt:
        fail("stopped; no file is left half-written")
        return 130  # a shell's exit code for Ctrl-C
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse a command line."""
    parser = errors.Parser(COMMAND, description=__doc__, epilog=EXAMPLES)
    parser.add_argument("--version", action="version", version=f"bonelib {__version__}")
    parts = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    add = _command(
        parts, inspect, "describe a scan and its mask",
        "Shows which of several series is read and what was repaired; -o saves the scan as a "
        "volume.",
        "my_ct --mask my_mask.nii.gz",
    )  # fmt: skip
    _add_scan(add)
    add("--mask", type=Path, help="mask of the bones: volume, PNG, RTSTRUCT or SEG")
    add("--bone-names", type=Path, metavar="CSV", help="which ids are bone: table of id and name")
    add("-o", "--output", type=Path, metavar="FILE", help="save as .nii.gz, .nrrd or .mha")

    add = _command(
        parts, segment, "segment the bone in a scan",
        "Writes to DIR: segmentation.nii.gz (0 background, 1 patient, 2 bone), bone.stl and\n"
        "surface.html (the surface in mm, in patient coordinates), preview.png, report.json and,\n"
        "for DICOM, segmentation.dcm; with --bones also bones.nii.gz and a surface for each bone.\n"
        "For research only, not for diagnosis or treatment.",
        "my_ct -o my_bones --bones",
    )  # fmt: skip
    _add_scan(add)
    add("-o", "--output", type=Path, metavar="DIR", required=True, help="folder for the results")
    add("--bones", action="store_true",
        help="separate femurs, hip bones, sacrum, vertebrae and other bones")  # fmt: skip
    add("--model", default=SHIPPED_MODEL, choices=[SHIPPED_MODEL, *MODEL_NAMES], metavar="NAME",
        help=f"network of --weights: {', '.join(MODEL_NAMES)}")  # fmt: skip
    add("--weights", type=Path, metavar="FILE", help="default: the shipped weights")
    add("--overwrite", action="store_true",
        help="replace the files of an earlier run in DIR; all other files are kept")  # fmt: skip

    add = _command(
        parts, convert, "convert a data set to the layout `folder`",
        "Label maps without a CT become CT series. data/README.md explains where to get each set.",
        "totalsegmentator Totalsegmentator_dataset_small_v201 data/raw/small",
    )  # fmt: skip
    add("dataset", choices=datasets.CONVERTIBLE, metavar="NAME",
        help=", ".join(datasets.CONVERTIBLE))  # fmt: skip
    add("data", type=Path, metavar="DIR", help="folder of the data set")
    add("output", type=Path, metavar="OUT", help="new folder")

    add = _command(
        parts, pretrain, "train the weights that the package ships",
        "Trains on phantoms and on annotated anatomy in random appearances, without any CT.",
        "--label-maps my_maps",
    )  # fmt: skip
    add("--label-maps", type=Path, nargs="+", default=[], metavar="DIR",
        help="folders of annotated anatomy")  # fmt: skip
    add("--phantoms", type=_positive, default=16, metavar="N",
        help="number of phantoms; default: 16")  # fmt: skip
    add("--weights", type=Path, metavar="FILE", help="start from these, not from random ones")
    add("--set", nargs="+", default=[], metavar="SETTING=VALUE", help="replace settings")
    add("-o", "--output", type=Path, default=RESULTS / "pretraining", metavar="DIR",
        help="default: results/pretraining")  # fmt: skip
    add("--workers", type=_positive, default=num_cores(), metavar="N",
        help="number of processes; default: one per core")  # fmt: skip
    return parser.parse_args(arguments)


def _command(parts, run: Callable, summary: str, details: str, example: str) -> Callable:
    """Add the command that `run` carries out; return the function that adds its options."""
    parser = parts.add_parser(
        run.__name__,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\n{details}",
        epilog=f"example:\n  %(prog)s {example}",
    )
    parser.set_defaults(run=run)
    return parser.add_argument


def _add_scan(add: Callable) -> None:
    add("scan", type=Path, metavar="SCAN",
        help="DICOM folder, NIfTI, NRRD or MHA file, or an archive of one of these")  # fmt: skip
    add("--series", metavar="N", help="number or UID of the DICOM series to read")


def inspect(options: argparse.Namespace) -> None:
    """Print the contents of a scan and of its mask, and nothing that identifies the patient."""
    scan = scans.read_scan(options.scan, options.series)
    print("\n".join(describe_scan(scan)))
    if options.mask:
        bone_names = options.bone_names and datasets.read_bone_names(options.bone_names)
        case = datasets.Case(
            "scan", SPLITS[-1], options.scan, options.mask, bone_names, options.scan.parent,
            series=options.series,
        )  # fmt: skip
        print("\n".join(describe_mask(scan, *case.annotation(scan))))
    if options.output:
        scans.write_volume(scan, options.output)
        print(f"saved to {options.output}")


def describe_scan(scan: SimpleITK.Image) -> list[str]:
    """Describe size, HU and patient of a scan."""
    image_hu = SimpleITK.GetArrayViewFromImage(scan)
    body = SimpleITK.GetArrayFromImage(labels.body_mask(scan)) > 0
    size, spacing_mm = scan.GetSize(), scan.GetSpacing()
    body_ml = body.sum() * np.prod(spacing_mm) / 1000
    median = f"median {np.median(image_hu[body]):.0f} HU" if body.any() else "no patient found"
    return [
        f"scan: {size[0]} columns x {size[1]} rows x {size[2]} slices, "
        f"voxels of {' x '.join(f'{value:.3g}' for value in spacing_mm)} mm, "
        f"{' x '.join(f'{value:.0f}' for value in np.multiply(size, spacing_mm))} mm in all",
        f"HU: {image_hu.min():g} to {image_hu.max():g}",
        f"patient: {body_ml:,.0f} ml, {median}",
    ]


def describe_mask(
    scan: SimpleITK.Image, mask: SimpleITK.Image, names: dict[int, str] | None
) -> list[str]:
    """Describe the structures of a mask on the scan's grid; their mean HU shows if it is bone."""
    statistics = SimpleITK.LabelStatisticsImageFilter()
    statistics.Execute(scan, mask)
    voxel_ml = np.prod(scan.GetSpacing()) / 1000
    lines = []
    for number in sorted({*statistics.GetLabels()} - {0}):
        name = "bone" if names is None else names.get(number, "not bone")
        lines.append(
            f"mask: id {number}, {name}: {statistics.GetCount(number) * voxel_ml:,.1f} ml, "
            f"mean {statistics.GetMean(number):.0f} HU"
        )
    classes = SimpleITK.GetArrayFromImage(labels.label_map(scan, mask, names))
    shares = [100 * (classes == label).mean() for label in (PATIENT, BONE)]
    return [*lines, f"label map: {shares[0]:.2f} % patient, {shares[1]:.3f} % bone"]


def segment(options: argparse.Namespace) -> None:
    """Segment one scan and print a summary of the record."""
    with without_stderr():
        from bonelib import segment as segmentation

    network = segmentation.find_network(options.model, options.weights)
    with tqdm(bar_format=BAR, leave=False, disable=None) as bar:  # only in a terminal

        def progress(stage: str, done: int, total: int) -> None:
            bar.set_description_str(stage, refresh=False)
            bar.n, bar.total = done, total
            bar.refresh()

        record = segmentation.segment(
            options.scan, options.output, network, options.series, options.bones,
            options.overwrite, progress, apart=True,
        )  # fmt: skip
    for name, volume_ml in record["volumes_ml"].items():
        area_cm2, mean_hu = record["areas_cm2"].get(name), record["mean_hu"].get(name)
        area = "" if area_cm2 is None else f" {area_cm2:9.1f} cm2"
        brightness = "" if mean_hu is None else f" {mean_hu:7.0f} HU"
        print(f"{name.replace('_', ' '):<24} {volume_ml:9.1f} ml{area}{brightness}")
    print("seconds:", ", ".join(f"{name} {time:.1f}" for name, time in record["seconds"].items()))
    for note in record["notes"]:
        print(f"note: {note}")
    print(f"files in {options.output}: {', '.join(record['files'])}")


def convert(options: argparse.Namespace) -> None:
    """Convert a data set and print how to use it."""
    if options.dataset == "label_maps":
        from bonelib.pretraining import annotated_patient  # slow to import

        settings = get_settings("paper")
        annotated_patient.convert(options.data, options.output, settings, num_cores())
    else:
        counts = datasets.public_sets.convert(
            options.dataset, options.data, options.output, num_cores()
        )
        print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    print(f"use it with\npython run_all.py --dataset folder --data {options.output}")


def pretrain(options: argparse.Namespace) -> None:
    """Train the shipped weights and print where they are."""
    settings = replaced(PRETRAINING, parse_overrides(options.set))
    with without_stderr():
        from bonelib.pretraining import pretrain as pretraining

    weights = pretraining.pretrain(
        options.output.resolve(), options.label_maps, settings, options.phantoms,
        options.workers, options.weights,
    )  # fmt: skip
    print(f"weights and model card are in {weights}")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not '{text}'")
    return int(text)


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Print repairs of an input as notes, and other warnings as Python does."""
    text = warnings.formatwarning(message, category, filename, lineno, line)
    if issubclass(category, errors.InputWarning):
        text = f"note: {message}"
    tqdm.write(text, file=sys.stderr)  # above a progress bar


if __name__ == "__main__":
    sys.exit(main())
