# Each target builds .venv by itself; only make and Python 3.11 or newer have to be there.
# A C++17 compiler and Python's headers add the native `cpu` backend; without them the `numpy` backend is used.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4
TORCH  ?= torch==2.13.0
# what the sanitizers watch: everything that calls the native extension
NATIVE_TESTS := tests/test_native*.py tests/test_ops.py

.DEFAULT_GOAL := help
.PHONY: gpu have-gpu static ptx help demo test test-full mutate lint bench docs clean sanitize-address sanitize-thread

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## train a small CNN on Fashion-MNIST; options in ARGS="--epochs 2 --seed 1"
	$(BIN)/python examples/fashion_mnist.py $(ARGS)

test: lint  ## format, lint, types, and the quick tests
	$(PYTEST) -m "not slow and not torch and not nvcc and not sim" $(ARGS)

test-full: $(VENV)/.full  ## what `make test` leaves out: slow tests, PyTorch, emulated CUDA kernels, sanitizers
	$(PYTEST) -m "(slow or torch or nvcc) and not sim"
	$(PYTEST) -m sim --every-kernel
	$(MAKE) --no-print-directory sanitize-address sanitize-thread

lint: $(VENV)/.test  ## formatting, lint and types only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@if [ -x $(BIN)/clang-format ]; then \
	    find csrc kernels tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' 2>/dev/null \
	    | xargs -r $(BIN)/clang-format --dry-run --Werror; fi

mutate: $(VENV)/.full  ## break every CUDA kernel in small ways; the tests must notice
	$(BIN)/python tests/mutate.py $(ARGS)

bench: $(VENV)/.full  ## time against PyTorch on this machine
	$(BIN)/python -m benchmarks peers $(ARGS)

static: $(VENV)/.full  ## what machine code and emulator say of the CUDA kernels; needs nvcc; in build/static
	@mkdir -p build/static
	$(BIN)/python -m benchmarks static --json build/static/table.json --markdown build/static/table.md $(ARGS)

ptx: $(VENV)/.full  ## PTX of CUDA kernels for compute capability 7.5, in build/ptx
	$(BIN)/python -m benchmarks.static.ptx build/ptx

gpu: $(if $(findstring --rehearse,$(ARGS)),$(VENV)/.full,have-gpu $(VENV)/.gpu)  ## all that needs an NVIDIA GPU; report in build/gpu; ARGS=--rehearse
	$(BIN)/python -m benchmarks gpu $(ARGS)

have-gpu:
	@command -v nvidia-smi >/dev/null || { echo "There is no NVIDIA GPU here (no nvidia-smi). The rehearsal: make gpu ARGS=--rehearse"; exit 1; }

docs: $(VENV)/.docs  ## API pages from the docstrings, in build/docs
	$(BIN)/pdoc --docformat google --output-directory build/docs dlcore
	@echo "open build/docs/index.html"

clean:  ## remove .venv and everything that was built
	rm -rf $(VENV) build dist runs *.egg-info dlcore/*.so .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The tests that call the extension once more, with it built under a sanitizer in build/. NumPy's BLAS keeps to one
# thread: it is not instrumented, so its own threads would look like races. Leaks are Python's own business. The C++
# library is loaded first as well, for the sanitizer to find the function that throws.
sanitize-address: ISAS ?= avx2
sanitize-thread: ISAS ?= $(shell $(BIN)/python -c 'from dlcore import _C; print(_C.isa())')
sanitize-address: SANITIZERS := address,undefined
sanitize-address: RUNTIME := libasan.so
sanitize-thread: SANITIZERS := thread
sanitize-thread: RUNTIME := libtsan.so
sanitize-address sanitize-thread: $(VENV)/.full
	DLCORE_SANITIZE=$(SANITIZERS) DLCORE_ISAS=$(ISAS) DLCORE_BUILD=require $(BIN)/python setup.py --quiet \
	    build --build-lib build/$@ --build-temp build/$@.o
	LD_PRELOAD="$$($${CXX:-c++} -print-file-name=$(RUNTIME)) $$($${CXX:-c++} -print-file-name=libstdc++.so)" PYTHONPATH=build/$@ \
	    DLCORE_NUM_THREADS=2 OPENBLAS_NUM_THREADS=1 \
	    ASAN_OPTIONS=allocator_may_return_null=1:detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1 \
	    TSAN_OPTIONS=allocator_may_return_null=1:die_after_fork=0:halt_on_error=1 \
	    $(BIN)/pytest --numprocesses 2 --capture=no -p no:cacheprovider -m "not slow and not torch and not sim" -k "native or cpu" $(NATIVE_TESTS)

# ---- the virtual environment: one stamp file per set of packages

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "dlcore needs Python 3.11 or newer as $(PYTHON); or say: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	    || { rm -rf $(VENV); echo "$(PYTHON) has no venv module; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.package: $(VENV)/.python pyproject.toml setup.py $(wildcard csrc/*)
	$(PIP) install --editable .
	@$(BIN)/python -c 'import dlcore._C' 2>/dev/null || echo "The native cpu backend was not built, so numpy will be \
	used. To have it: a C++17 compiler and Python's headers (Debian: apt-get install g++ python3-dev), then make clean."
	@touch $@

# dlcore is installed already: pip only adds what the extra needs
$(VENV)/.demo $(VENV)/.test: $(VENV)/.%: $(VENV)/.package
	$(PIP) install 'dlcore[$*]'
	@touch $@

# CuPy for the CUDA of the driver; then what is only compared with, and the compiler for modelled times
$(VENV)/.gpu: $(VENV)/.test $(VENV)/.demo
	$(PIP) install "$$($(BIN)/python -m benchmarks.gpu.packages)"
	$(PIP) install '$(TORCH)' || echo "without PyTorch: no comparison with it"
	$(PIP) install nvidia-cuda-nvcc nvidia-cuda-nvdisasm || echo "without nvcc: no modelled times"
	@touch $@

$(VENV)/.docs: $(VENV)/.package
	$(PIP) install 'pdoc>=14'
	@touch $@

$(VENV)/.full: $(VENV)/.test $(VENV)/.demo
	$(PIP) install '$(TORCH)' 'setuptools>=77' 'pybind11>=2.13' 'dlcore[numba]' nvidia-cuda-nvdisasm nvidia-cuda-nvrtc
	@touch $@
