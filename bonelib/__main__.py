"""What the package does besides the notebooks: python -m bonelib COMMAND."""

import argparse
import sys
import warnings
from pathlib import Path

from bonelib import datasets, inspection, scans
from bonelib.datasets import download
from bonelib.errors import InputWarning
from bonelib.paths import DATA, RESULTS
from bonelib.provenance import num_cores
from bonelib.settings import MODEL_NAMES, PRETRAINING, SPLITS, replaced


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m bonelib", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    pretrain = commands.add_parser("pretrain", help="train the weights that the package ships")
    pretrain.add_argument("--model", default="unet", choices=MODEL_NAMES)
    pretrain.add_argument("--label-maps", type=Path, metavar="DIR", help="a label_maps data set")
    pretrain.add_argument("--start", type=Path, metavar="FILE", help="weights to begin with")
    pretrain.add_argument("--phantoms", type=int, metavar="N")
    pretrain.add_argument(
        "--set", nargs="+", default=[], metavar="SETTING=VALUE", help="replace settings"
    )
    pretrain.add_argument(
        "-o", "--output", type=Path, default=RESULTS / "pretraining", metavar="DIR"
    )
    pretrain.add_argument("--workers", type=int, default=num_cores(), metavar="N")
    pretrain.set_defaults(run=run_pretrain)
    inspect = commands.add_parser(
        "inspect", help="read a scan, say what it is, keep it as a volume"
    )
    inspect.add_argument("scan", type=Path, metavar="SCAN", help="DICOM folder, volume, zip …")
    inspect.add_argument("--series", metavar="NUMBER", help="which DICOM series; or its UID")
    inspect.add_argument("--mask", type=Path, metavar="MASK", help="bones in any format")
    inspect.add_argument(
        "--bone-names", type=Path, metavar="CSV", help="bone_names.csv of a data set"
    )
    inspect.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write the scan as .nii.gz, .nrrd, .mha"
    )
    inspect.set_defaults(run=run_inspect)
    fetch = commands.add_parser("download", help="fetch a public data set")
    fetch.add_argument("name", choices=list(datasets.CATALOGUE), metavar="NAME",
                       help=", ".join(datasets.CATALOGUE))  # fmt: skip
    fetch.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: data/raw/NAME")
    fetch.add_argument("--variant", metavar="V", help=_variants())
    fetch.add_argument("--mirror", metavar="URL", help="a folder with the same files")
    fetch.set_defaults(run=run_download)
    score = commands.add_parser("score", help="score shipped weights and the baseline on scans")
    score.add_argument("data", type=Path, metavar="DIR", help="a data set with bone masks")
    score.add_argument("--dataset", default="folder", choices=list(datasets.DATASETS))
    score.add_argument("--split", default="test", choices=SPLITS)
    score.add_argument("--model", default="unet", choices=MODEL_NAMES)
    score.add_argument("--weights", type=Path, metavar="DIR")
    score.set_defaults(run=run_score)
    return parser.parse_args(arguments)


def run_pretrain(options: argparse.Namespace) -> None:
    """Train, and say where the weights are."""
    malformed = [pair for pair in options.set if "=" not in pair]
    if malformed:
        raise ValueError(f"--set takes SETTING=VALUE, not '{malformed[0]}'")
    from bonelib import pretraining  # Keras takes seconds to load

    settings = replaced(PRETRAINING, dict(pair.split("=", 1) for pair in options.set))
    weights = pretraining.pretrain(
        options.model,
        options.output.resolve(),
        options.label_maps,
        settings,
        pretraining.PHANTOMS if options.phantoms is None else options.phantoms,
        options.workers,
        options.start,
    )
    print(f"weights and model card are in {weights}")


def run_inspect(options: argparse.Namespace) -> None:
    """Print what a scan is and what its mask holds."""
    scan = scans.read_scan(options.scan, options.series)
    lines = inspection.describe_scan(scan)
    if options.mask:
        bone_names = options.bone_names and datasets.read_bone_names(options.bone_names)
        case = datasets.Case(
            "scan", SPLITS[-1], options.scan, options.mask, bone_names, options.scan.parent,
            series=options.series,
        )  # fmt: skip
        lines += inspection.describe_mask(scan, *case.annotation(scan))
    print("\n".join(lines))
    if options.output:
        inspection.write_volume(scan, options.output)
        print(f"written to {options.output}")


def run_download(options: argparse.Namespace) -> None:
    """Fetch the archives, and say how to use them."""
    directory = options.output or DATA / "raw" / options.name
    fetched = download.download(options.name, directory, options.variant, options.mirror)
    print(f"{len(fetched)} files are in {directory}; use them by")
    print(f"python run_all.py --dataset {options.name} --data {directory}")


def _variants() -> str:
    return "; ".join(
        f"{name}: {', '.join(entry.releases)}"
        for name, entry in datasets.CATALOGUE.items()
        if any(entry.releases)
    )


def run_score(options: argparse.Namespace) -> None:
    """Print the scores of each series of a split."""
    from bonelib import cards, models  # Keras takes seconds to load

    cases = datasets.find_cases(
        options.dataset, options.data, PRETRAINING, num_cores(), (options.split,)
    )
    chosen = [case for case in cases if case.split == options.split]
    table = cards.compare(chosen, options.model, PRETRAINING, options.weights or models.WEIGHTS)
    print(table.round(1).to_markdown(index=False))


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = parse(arguments)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", InputWarning)
            warnings.showwarning = _show_warning
            options.run(options)
    except ValueError as error:  # InputError is one
        return _fail(error)
    except OSError as error:
        return _fail(f"{error.filename or 'output'}: {error.strerror}; check space and rights")
    except MemoryError:
        return _fail("not enough memory; crop the scan or use a larger machine")
    return 0


def _fail(what: object) -> int:
    """Say in one line what is wrong and return the exit code of bad input."""
    print(f"bonelib: {what}", file=sys.stderr)
    return 2


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Print an input's repairs as notes, other warnings as Python does."""
    if issubclass(category, InputWarning):
        print(f"note: {message}", file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
