# Two commands do everything on a fresh Debian with Python, make and g++:
#   make benchmark    set up, then run the comparison on the embedded pictures (ARGS="--data DIR" for your own)
#   make test         set up, then run the tests
# Three more look where the tests have no time to:
#   make sanitize     the operators under AddressSanitizer and UBSan, with many drawn arguments (needs gcc's libasan)
#   make soak         thousands of epochs, and each command again and again: nothing held grows; hundreds of sweeps of
#                     noise: little is said of them (DOGS_ACCEL_SOAK=0.1 for a tenth)
#   make faults       each write of each command fails in turn, and each is stopped by each signal: hours
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
CSRC   := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu')
ARGS   ?=

# What Python compiles of a module that it imports is kept, also where the environment says otherwise, as container images
# do: pip compiles nothing (below), and each process that imports torch would spend seconds on compiling it again.
unexport PYTHONDONTWRITEBYTECODE
# For setup.py, which one rule tells it for itself.
unexport DOGS_ACCEL_COMPILE

.PHONY: benchmark test sanitize soak faults bench gpu-check lint format setup other-packages extension clean FORCE

benchmark: setup
	$(BIN)/python -m dogs_accel.benchmark $(ARGS)

# Two processes at a time, a file each: what starts processes of its own keeps two cores busy.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# A library of its own, in build/sanitize. Only it is instrumented, so what is reported is of our code, or of memory that
# our code gave to torch. Left out, and why: leaks (Python and torch keep memory until the process ends), and an allocation
# that is too large to be met is refused as malloc refuses it. Fresh memory is filled with what tests of outputs expect.
# Reports would be lost with pytest's capture of descriptor 2, since the process ends there.
SANITIZE := address,undefined
sanitize: setup
	DOGS_ACCEL_SANITIZE=$(SANITIZE) $(BIN)/python setup.py --quiet build_ext
	DOGS_ACCEL_SANITIZE=$(SANITIZE) DOGS_ACCEL_LIBRARIES=$(CURDIR)/build/sanitize/dogs_accel \
	  DOGS_ACCEL_FUZZ_EXAMPLES=$${DOGS_ACCEL_FUZZ_EXAMPLES:-1500} \
	  ASAN_OPTIONS=detect_leaks=0:halt_on_error=1:allocator_may_return_null=1:max_malloc_fill_size=1073741824:malloc_fill_byte=254 \
	  UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	  LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	  $(BIN)/python -m pytest --capture=sys -m "not slow" tests/ops $(ARGS) || \
	  { cat build/sanitize/dogs_accel/last-case.txt 2>/dev/null; exit 1; }

soak: setup
	$(BIN)/python -m pytest -s -m soak tests/soak $(ARGS)

faults: setup
	$(BIN)/python -m pytest -m soak tests/commands $(ARGS)

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

# Exact versions come from constraints.txt. torch goes first because building the extension needs it, and numpy because
# torch looks for it. The extension is compiled beside the second half, which downloads and unpacks most of the time.
# Python compiles a module when it is first imported: pip would compile all 17,000, which takes a minute, and few of them
# are ever used.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
$(VENV)/.packages: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "cannot make $(VENV): on Debian, apt install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	@echo "installing packages and building the extension: some minutes, the first time only"
	@$(PIP) setuptools ninja torch numpy
	@$(MAKE) --no-print-directory -j 2 other-packages extension
	@$(BIN)/python -c "from dogs_accel import ops; print('extension built;', ops.cuda_status())"
	@echo "$(DOGS_ACCEL_CUDA)" >$(VENV)/.cuda-choice
	@touch $(VENV)/.extension $@

other-packages:
	@DOGS_ACCEL_COMPILE=0 $(PIP) --no-build-isolation -e '.[dev]'

extension:
	@rm -f dogs_accel/_C*.so
	@$(BIN)/python setup.py --quiet build_ext --inplace >$(VENV)/extension.log 2>&1 || { cat $(VENV)/extension.log >&2; exit 1; }

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
