"""Store outputs in the committed notebooks (`make notebooks`): a smoke run's, or the kept run's."""

import sys

import nbformat

from bonelib.paths import NOTEBOOKS, REBUILT, RESULTS, ResultFolder

EXECUTED_AS = {
    "03_train_model": "03_train_model-unet",
    "04_evaluate_model": "04_evaluate_model-unet",
}
OF_REFERENCE = ("05_tables", "06_figures", "08_report", "11_ablations")
WIDGET = "application/vnd.jupyter.widget-view+json"


def main() -> None:
    """Copy outputs cell by cell; what papermill adds stays behind."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        results = ResultFolder(REBUILT if path.stem in OF_REFERENCE else RESULTS / "smoke")
        executed = nbformat.read(
            results.notebook(EXECUTED_AS.get(path.stem, path.stem)), as_version=4
        )
        done = [
            cell for cell in executed.cells if "injected-parameters" not in cell.metadata["tags"]
        ]
        if [cell.source for cell in done] != [cell.source for cell in notebook.cells]:
            sys.exit(f"{path.name} has changed since it ran")
        code = [
            pair for pair in zip(notebook.cells, done, strict=True) if pair[0].cell_type == "code"
        ]
        for number, (cell, source) in enumerate(code, 1):
            # Progress bars and start messages differ from run to run; a widget without its
            # kernel shows nothing.
            cell.outputs = [
                output
                for output in source.outputs
                if output.get("name") != "stderr" and WIDGET not in output.get("data", {})
            ]
            cell.execution_count = number
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = number
            cell.metadata.pop("execution", None)
        notebook.metadata.pop("widgets", None)
        # JupyterLab adds it otherwise, and calls the notebook unsaved.
        notebook.metadata.language_info = executed.metadata.language_info
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
