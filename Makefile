# The main job in three words: make train eval export. Your own images: CONFIG=my.yaml RUN=runs/mine.
CONFIG ?= digits
RUN ?= runs/$(basename $(notdir $(CONFIG)))
RECIPE ?= small
SET ?=
IMAGES ?=
PYTHON ?= python3
EXTRAS ?= dev
VENV ?= .venv
comma := ,
STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: setup train eval export bundle verify compress predict demo data tune test clients aarch64 check bench notebooks clean help
.NOTPARALLEL:

setup: $(STAMP) ## install everything into .venv (the other targets do it when needed)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); sys.exit(None if ok else \
		f"Python 3.11 to 3.13 is needed, $(PYTHON) is {sys.version.split()[0]}; say which one with make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@touch $(STAMP)

train: $(STAMP) ## train CONFIG (a preset or a YAML file) into RUN; SET='train.epochs=3' overrides, FORCE=1 starts over
	@$(BIN)/pipeline train $(CONFIG) $(SET) --run $(RUN) $(if $(FORCE),--force)

eval: $(STAMP) ## score RUN on its test split
	@$(BIN)/pipeline eval $(RUN)

export: $(STAMP) ## write and measure RUN's .tflite files
	@$(BIN)/pipeline export $(RUN)

bundle: $(STAMP) ## pack RUN's exported files into RUN.zip
	@$(BIN)/pipeline bundle $(RUN) $(if $(FORCE),--force)

verify: $(STAMP) ## check RUN's exported files again, from the files alone
	@$(BIN)/pipeline verify $(RUN)

compress: $(STAMP) ## make RUN smaller and faster by RECIPE (small tiny qat zip repair) into RUN-RECIPE, scored and exported
	@$(BIN)/pipeline compress $(RUN) $(SET) --recipe $(RECIPE) $(if $(FORCE),--force)

predict: $(STAMP) ## say what is in IMAGES='a.jpg b.jpg' with RUN
	@$(BIN)/pipeline predict $(RUN) $(IMAGES)

demo: $(STAMP) ## try RUN's .tflite files in the browser: pictures, camera, variants side by side
	@$(BIN)/pipeline demo $(RUN)

data: $(STAMP) ## look at CONFIG's images: counts, classes, unreadable files, a picture of the augmentation
	@mkdir -p $(RUN)-data
	@$(BIN)/pipeline data $(CONFIG) $(SET) --show $(RUN)-data/augmented.png

tune: $(STAMP) ## search better settings for CONFIG, by its section search, into runs/<CONFIG>-search; goes on where it stopped
	@$(BIN)/pipeline tune $(CONFIG) $(SET)

test: $(STAMP) ## run every test but the half hour of full-size keras.applications (pytest -m applications)
	$(BIN)/python -m pytest -n 2 --dist worksteal

clients: ## install what tests compare exports with: MediaPipe Tasks (Python 3.9 to 3.12), in an environment of its own
	$(PYTHON) -m venv --clear .venv-mediapipe
	.venv-mediapipe/bin/python -m pip install --quiet --disable-pip-version-check mediapipe==0.10.21

AARCH64 := tests/export/clients/aarch64

.aarch64: $(AARCH64)/install.sh | $(STAMP)
	$(AARCH64)/install.sh $@ $(BIN)/python
	@touch $@

aarch64: $(STAMP) .aarch64 ## replay RUN's recorded answers on an emulated ARM64 processor (Debian, its packages in .aarch64)
	@$(BIN)/python $(AARCH64)/replay.py $(RUN)/export

check: $(STAMP) ## lint and format check, then the fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

bench: $(STAMP) ## measure main job, start-up, input and training against peers (the others: benchmarks/README.md)
	$(BIN)/python -m benchmarks.run

notebooks: $(STAMP) ## run every notebook and save its outputs
	$(BIN)/python -m jupyter nbconvert --to notebook --execute --inplace notebooks/*.ipynb

clean: ## remove the environment and caches; runs are kept
	rm -rf $(VENV) .venv-mediapipe .aarch64 .aarch64.part .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
