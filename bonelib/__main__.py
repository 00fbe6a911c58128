"""What the package does besides the notebooks: python -m bonelib COMMAND."""

import argparse
import sys
from pathlib import Path

from bonelib import cards, datasets, pretraining
from bonelib.models import MODELS, WEIGHTS
from bonelib.paths import RESULTS
from bonelib.provenance import num_cores
from bonelib.settings import PRETRAINING, SPLITS, replaced


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m bonelib", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    pretrain = commands.add_parser("pretrain", help="train the weights that the package ships")
    pretrain.add_argument("--model", default="unet", choices=list(MODELS))
    pretrain.add_argument("--label-maps", type=Path, metavar="DIR", help="a label_maps data set")
    pretrain.add_argument("--start", type=Path, metavar="FILE", help="weights to begin with")
    pretrain.add_argument("--phantoms", type=int, default=pretraining.PHANTOMS, metavar="N")
    pretrain.add_argument(
        "--set", nargs="+", default=[], metavar="SETTING=VALUE", help="replace settings"
    )
    pretrain.add_argument(
        "-o", "--output", type=Path, default=RESULTS / "pretraining", metavar="DIR"
    )
    pretrain.add_argument("--workers", type=int, default=num_cores(), metavar="N")
    pretrain.set_defaults(run=run_pretrain)
    score = commands.add_parser("score", help="score shipped weights and the baseline on scans")
    score.add_argument("data", type=Path, metavar="DIR", help="a data set with bone masks")
    score.add_argument("--dataset", default="folder", choices=list(datasets.DATASETS))
    score.add_argument("--split", default="test", choices=SPLITS)
    score.add_argument("--model", default="unet", choices=list(MODELS))
    score.add_argument("--weights", type=Path, default=WEIGHTS, metavar="DIR")
    score.set_defaults(run=run_score)
    return parser.parse_args(arguments)


def run_pretrain(options: argparse.Namespace) -> None:
    """Train, and say where the weights are."""
    malformed = [pair for pair in options.set if "=" not in pair]
    if malformed:
        raise ValueError(f"--set takes SETTING=VALUE, not '{malformed[0]}'")
    settings = replaced(PRETRAINING, dict(pair.split("=", 1) for pair in options.set))
    weights = pretraining.pretrain(
        options.model,
        options.output.resolve(),
        options.label_maps,
        settings,
        options.phantoms,
        options.workers,
        options.start,
    )
    print(f"weights and model card are in {weights}")


def run_score(options: argparse.Namespace) -> None:
    """Print the scores of each series of a split."""
    cases = datasets.find_cases(
        options.dataset, options.data, PRETRAINING, num_cores(), (options.split,)
    )
    chosen = [case for case in cases if case.split == options.split]
    table = cards.compare(chosen, options.model, PRETRAINING, options.weights)
    print(table.round(1).to_markdown(index=False))


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = parse(arguments)
    try:
        options.run(options)
    except ValueError as error:  # InputError is one
        print(f"bonelib: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
