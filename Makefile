# Two commands do all: `make quick` (environment, then the paper in minutes) and `make test`.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup smoke quick night paper report pdf reference lab app test notebooks lock
setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "bonelib needs Python 3.11 to 3.13: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@

smoke quick night paper: $(READY)
	$(BIN)/python run_all.py --profile $@

# Tables, curves and report from the scores kept in results/reference, in a minute.
report: $(READY)
	$(BIN)/python run_all.py --reference

# The report as PDF: make pdf, or make pdf REPORT=results/quick/report.html
REPORT := results/from-reference/report.html
CHROMIUM := $(firstword $(shell command -v chromium chromium-browser google-chrome))
pdf: $(READY)
	[ -f $(REPORT) ] || $(MAKE) report
	$(CHROMIUM) --headless --no-sandbox --no-pdf-header-footer --generate-pdf-document-outline \
		--print-to-pdf=$(REPORT:.html=.pdf) file://$(abspath $(REPORT))

# Keeps the scores of a run there: make reference PROFILE=paper
PROFILE := night
reference: $(READY)
	$(BIN)/python run_all.py --profile $(PROFILE)
	$(BIN)/python -c "from bonelib import paths; from bonelib.workflow import runs; \
		runs.keep(paths.ResultFolder(paths.RESULTS / '$(PROFILE)'), paths.REFERENCE)"

lab: $(READY)
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks

# The buttons of notebook 09 alone, as an application in the browser; voila.json keeps it off
# the network.
app: $(READY)
	cd notebooks && ../$(BIN)/voila app.py

# Fast tests first; then the whole smoke run, and every notebook against its stored outputs.
test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder tests
	$(BIN)/python run_all.py --profile smoke
	$(BIN)/python run_all.py --reference
	$(BIN)/python -m pytest -n 2 --dist loadfile --nbval --nbval-current-env \
		--nbval-cell-timeout 600 notebooks

# Makes the notebooks from their scripts, which are what one edits, and stores outputs.
notebooks: $(READY)
	$(BIN)/jupytext --update --from py//py:percent --to ipynb notebooks/py/*.py
	$(BIN)/python run_all.py --profile smoke
	$(BIN)/python run_all.py --reference
	$(BIN)/python notebooks/store_outputs.py

# Writes requirements.lock anew, for all systems and Python versions.
lock: $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet \
		--output-file requirements.lock

# What runs leave behind, by kind. `make clean` only says how much there is of each.
PROFILES := smoke quick night paper
KINDS := results prepared caches env
results := results
prepared := data/prepared $(PROFILES:%=data/raw/phantom-%)
caches = .pytest_cache .ruff_cache .hypothesis $(shell find . \( -name .venv -o -path ./data \
	-o -path ./results \) -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -print)
env := .venv *.egg-info

.PHONY: clean clean-all $(KINDS:%=clean-%)
clean:
	@$(foreach kind,$(KINDS),printf '%6s  make clean-%s\n' \
		"$$(du -shc $($(kind)) 2>/dev/null | tail -n 1 | cut -f 1)" $(kind);)
	@echo "All of it: make clean-all"

$(patsubst %,clean-%,$(filter-out results,$(KINDS))): clean-%:
	rm -rf $($*)

# What `make reference` keeps belongs to the repository.
clean-results:
	[ ! -d results ] || find results -mindepth 1 -maxdepth 1 ! -name reference -exec rm -rf {} +

clean-all: $(KINDS:%=clean-%)
