# Two commands are all a newcomer needs: `make demo` and `make test`. Each sets itself up.
PYTHON ?= python3.11
VENV   ?= .venv
TASK   ?= digits
OUT    ?= out/demo-$(TASK)
BIN    := $(VENV)/bin

.PHONY: demo test check clean bench bench-blocks bench-gpu bench-maths readme

# The stamp is rebuilt whenever the dependencies change.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[onnx,test,check]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/jali demo --task $(TASK) --out $(OUT)

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadgroup

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Other engines than PyTorch are installed for this only. Stopped, it goes on where it was; BENCH="--quick" is a small one.
$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	touch $@

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.inference $(BENCH)

# One layer of k independent blocks, k = 1 to 16; stopped, it goes on where it was.
bench-blocks: $(VENV)/.installed
	$(BIN)/python -m benchmarks.blocks $(BENCH)

# Compacted layers beside dense ones on cuDNN; needs a GPU, and a PyTorch that can use it.
bench-gpu: $(VENV)/.installed
	$(BIN)/python -m benchmarks.gpu $(BENCH)

bench-maths: $(VENV)/.installed
	$(BIN)/python -m benchmarks.maths
	$(BIN)/python -m benchmarks.series

# The tables of the README, from committed records and results.
readme: $(VENV)/.installed
	$(BIN)/python -m benchmarks.readme

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
