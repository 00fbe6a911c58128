"""From a CT scan of the pelvis to a bone model, and to the networks that find bone in it.

  a scan of yours     inspect, segment, models
  your own training   convert, prepare, train, evaluate
  shipped weights     score, pretrain

`python run_all.py` does all that the paper did, with tables and figures.
"""

import argparse
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from bonelib import commands, datasets
from bonelib.devices import num_cores
from bonelib.errors import InputWarning
from bonelib.paths import RESULTS
from bonelib.settings import BASELINE, MODEL_NAMES, SPLITS
from bonelib.workflow import runs

EXAMPLES = """examples:
  python -m bonelib inspect my_ct                       what is this scan?
  python -m bonelib segment my_ct -o my_bones --bones   its bones: surfaces, label maps, picture
  python -m bonelib train --profile quick --model unet  a network of your own, after `prepare`

`python -m bonelib COMMAND --help` tells more about a command."""
STEPS = ("metal", "smooth", "islands", "holes", "outline")  # postprocessing's, which loads Keras
INTERRUPTED = 130  # what a shell makes of Ctrl-C


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m bonelib",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", title="commands, in the order of use"
    )
    _add_inspect(parts)
    _add_segment(parts)
    _add(parts, "models", commands.run_models, "list the networks and the trained weights")
    _add_convert(parts)
    _add_prepare(parts)
    _add_train(parts)
    _add_evaluate(parts)
    _add_score(parts)
    _add_pretrain(parts)
    return parser.parse_args(arguments)


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
    except KeyboardInterrupt:
        print("bonelib: stopped; no file is left half-written", file=sys.stderr)
        return INTERRUPTED
    return 0


def _add(
    parts: argparse._SubParsersAction,
    name: str,
    run: Callable[[argparse.Namespace], None],
    what: str,
    details: str = "",
    example: str = "",
) -> argparse.ArgumentParser:
    """Add a command that says what it does, in how far, and how it is called."""
    parser = parts.add_parser(
        name,
        help=what,
        description="\n\n".join(filter(None, [f"{what[0].upper()}{what[1:]}.", details])),
        epilog=f"example:\n  python -m bonelib {name} {example}".rstrip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _add_inspect(parts: argparse._SubParsersAction) -> None:
    parser = _add(
        parts, "inspect", commands.run_inspect, "read a scan, say what it is, keep it as a volume",
        "It says which of several series is read and what was repaired.",
        "my_ct --mask my_mask.nii.gz",
    )  # fmt: skip
    _add_scan(parser)
    parser.add_argument("--mask", type=Path, metavar="MASK", help="bones in any format")
    parser.add_argument(
        "--bone-names", type=Path, metavar="CSV", help="bone_names.csv of a data set"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write the scan as .nii.gz, .nrrd, .mha"
    )


def _add_segment(parts: argparse._SubParsersAction) -> None:
    parser = _add(
        parts, "segment", commands.run_segment, "find the bone in a scan: surfaces and label maps",
        "The folder gets segmentation.nii.gz (0 background, 1 patient, 2 bone), bone.stl and\n"
        "surface.html (in mm, x to the left, y to the back, z to the head), preview.png and\n"
        "report.json; for a DICOM series segmentation.dcm, too, and with --bones bones.nii.gz and\n"
        "a surface for each bone. For research, not for diagnosis or treatment.",
        "my_ct -o my_bones --bones",
    )  # fmt: skip
    _add_scan(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", required=True, help="where the files go"
    )
    parser.add_argument(
        "--model", default="unet", choices=MODEL_NAMES, metavar="NAME",
        help="which network, see `models`; default: unet",
    )  # fmt: skip
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="trained weights; default: the shipped ones"
    )
    parser.add_argument(
        "--bones", action="store_true", help="part the bones: femora, hip bones, sacrum, vertebrae"
    )
    parser.add_argument(
        "--roi", action="store_true", help="look for the bone's region first, and only there then"
    )
    parser.add_argument(
        "--without", nargs="+", default=[], choices=STEPS, metavar="STEP",
        help=f"leave out of the post-processing: {', '.join(STEPS)}",
    )  # fmt: skip
    parser.add_argument(
        "--triangles", type=_positive, metavar="N", help="at most so many in a surface"
    )
    parser.add_argument(
        "--keep-identity", action="store_true",
        help="take the patient's name and data over into segmentation.dcm",
    )  # fmt: skip


def _add_convert(parts: argparse._SubParsersAction) -> None:
    parser = _add(
        parts, "convert", commands.run_convert, "convert a data set to the layout `folder`",
        "Label maps without a CT become CT series. data/README.md says how to get each data set.",
        "totalsegmentator Totalsegmentator_dataset_small_v201 data/raw/small",
    )  # fmt: skip
    parser.add_argument("name", choices=datasets.CONVERTIBLE, metavar="NAME",
                        help=", ".join(datasets.CONVERTIBLE))  # fmt: skip
    parser.add_argument("data", type=Path, metavar="DIR", help="the folder of the data set")
    parser.add_argument("output", type=Path, metavar="OUT", help="the folder to write to")
    parser.add_argument("--renderings", type=_positive, default=1, metavar="N",
                        help="label_maps: CT series per training subject; default: 1")  # fmt: skip


def _add_prepare(parts: argparse._SubParsersAction) -> None:
    parser = _add(
        parts, "prepare", commands.run_prepare, "bring a data set into slices to train on",
        "The phantom is made where it is missing. run_all.py works in the same folders.",
        "--profile quick --dataset folder --data my_scans",
    )  # fmt: skip
    runs.add_options(parser)


def _add_train(parts: argparse._SubParsersAction) -> None:
    parser = _add(
        parts, "train", commands.run_train, "train one network on prepared slices",
        "Give it the options that `prepare` had. Stopped and started again, it goes on after its\n"
        "last finished epoch. FCN8 and FCN32 take up to 8 GB of memory.",
        "--profile quick --model unet",
    )  # fmt: skip
    _add_model(parser, MODEL_NAMES)
    runs.add_options(parser)


def _add_evaluate(parts: argparse._SubParsersAction) -> None:
    parser = _add(
        parts, "evaluate", commands.run_evaluate, "score one method on the test slices",
        "Give it the options that `train` had; the classical baseline needs no training.",
        f"--profile quick --model {BASELINE}",
    )  # fmt: skip
    _add_model(parser, (*MODEL_NAMES, BASELINE))
    runs.add_options(parser)


def _add_score(parts: argparse._SubParsersAction) -> None:
    parser = _add(
        parts, "score", commands.run_score, "score shipped weights and the baseline on scans",
        "The data set holds scans with bone masks, see data/README.md.", "my_scans --split test",
    )  # fmt: skip
    parser.add_argument("data", type=Path, metavar="DIR", help="a data set with bone masks")
    parser.add_argument("--dataset", default="folder", choices=list(datasets.DATASETS))
    parser.add_argument("--split", default="test", choices=SPLITS)
    _add_model(parser, MODEL_NAMES)
    parser.add_argument("--weights", type=Path, metavar="DIR")


def _add_pretrain(parts: argparse._SubParsersAction) -> None:
    parser = _add(
        parts, "pretrain", commands.run_pretrain, "train the weights that the package ships",
        "They see phantoms and annotated anatomy in made-up appearances, and no CT.",
        "--label-maps my_maps",
    )  # fmt: skip
    _add_model(parser, MODEL_NAMES)
    parser.add_argument("--label-maps", type=Path, metavar="DIR", help="a label_maps data set")
    parser.add_argument("--start", type=Path, metavar="FILE", help="weights to begin with")
    parser.add_argument("--phantoms", type=int, metavar="N")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="SETTING=VALUE", help="replace settings"
    )
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "pretraining", metavar="DIR")
    parser.add_argument("--workers", type=int, default=num_cores(), metavar="N")


def _add_scan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scan", type=Path, metavar="SCAN", help="DICOM folder, volume, zip …")
    parser.add_argument("--series", metavar="NUMBER", help="which DICOM series; or its UID")


def _add_model(parser: argparse.ArgumentParser, names: tuple[str, ...]) -> None:
    parser.add_argument(
        "--model", default="unet", choices=names, metavar="NAME", help=", ".join(names)
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"takes a number from 1, not '{text}'")
    return int(text)


def _fail(what: object) -> int:
    """Say in one line what is wrong and return the exit code of bad input."""
    print(f"bonelib: {what}", file=sys.stderr)
    return 2


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Print an input's repairs as notes, other warnings as Python does."""
    text = warnings.formatwarning(message, category, filename, lineno, line)
    if issubclass(category, InputWarning):
        text = f"note: {message}"
    tqdm.write(text, file=sys.stderr)  # above a progress bar, if there is one


if __name__ == "__main__":
    sys.exit(main())
