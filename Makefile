# Two commands do everything on a fresh Debian with Python, make and g++:
#   make benchmark    set up, then run the comparison on the embedded pictures (ARGS="--data DIR" for your own)
#   make test         set up, then run the tests
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
CSRC   := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu')
ARGS   ?=

.PHONY: benchmark test bench gpu-check lint format setup clean FORCE

benchmark: setup
	$(BIN)/python -m dogs_accel.benchmark $(ARGS)

# Two processes at a time, a file each: what starts processes of its own keeps two cores busy.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: setup
	$(BIN)/python -m pytest bench/ --benchmark $(ARGS)

# What only a GPU can show: kernels, loaders and training against their references there, then their speed.
gpu-check: setup
	$(BIN)/python -m bench.gpu_check $(ARGS)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run --Werror $(CSRC)
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(CSRC)

setup: $(VENV)/.packages
	@$(MAKE) --no-print-directory $(VENV)/.extension

# Exact versions come from constraints.txt. torch goes first because building the extension needs it. Python compiles a
# module when it is first imported: pip would compile all 17,000, which takes a minute, and few of them are ever used.
$(VENV)/.packages: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "cannot make $(VENV): on Debian, apt install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	@echo "installing packages and building the extension: some minutes, the first time only"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt setuptools ninja torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt --no-build-isolation -e '.[dev]'
	@$(BIN)/python -c "from dogs_accel import ops; print('extension built;', ops.cuda_status())"
	@echo "$(DOGS_ACCEL_CUDA)" >$(VENV)/.cuda-choice
	@touch $(VENV)/.extension $@

# Compiles what changed in csrc, or everything where DOGS_ACCEL_CUDA says something else than last time.
$(VENV)/.extension: setup.py $(CSRC) $(VENV)/.cuda-choice
	@rm -f dogs_accel/_C*.so
	$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

$(VENV)/.cuda-choice: FORCE
	@echo "$(DOGS_ACCEL_CUDA)" | cmp --silent - $@ || echo "$(DOGS_ACCEL_CUDA)" >$@

FORCE:

clean:
	rm -rf $(VENV) build dist *.egg-info dogs_accel/*.so
