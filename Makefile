# The verbs of this project. CI calls the same ones; `make` alone lists them.

# What .venv is made from: 3.11 or newer.
PYTHON ?= python3
# What `make chat` runs: tiny (a minute or two) or laptop.
PRESET ?= laptop
# What `make serve` serves; by default the run that comes with the code.
RUN ?= reference
# A package index for torch alone, for example PyTorch's own of CPU builds; pip's usual one when empty.
TORCH_INDEX ?=
# Where `make guide-serve` listens.
PORT ?= 8080

VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
PIP := $(VENV_PYTHON) -m pip --disable-pip-version-check
INSTALL := $(PIP) install -c constraints.txt
# Each step leaves a stamp, so that a second call has nothing to do until one of these files changes.
PINS := pyproject.toml constraints.txt
MADE := $(VENV)/.made
TORCH := $(VENV)/.torch
FOR_CHAT := $(VENV)/.for-chat
FOR_TESTS := $(VENV)/.for-tests
FOR_GUIDE := $(VENV)/.for-guide
# The book: what can be made again lies here, and its site in the folder `site`.
BOOK := educational/_build
SPHINX := $(VENV_PYTHON) -m sphinx -q -W --keep-going -d $(BOOK)/doctrees

.PHONY: help env chat serve reference guide guide-sync guide-serve test test-slow torture check clean

help:
	@echo "make chat [PRESET=tiny]  train a chatbot from raw text, then talk to it"
	@echo "make serve [RUN=tiny]    serve a run at http://127.0.0.1:8000: a page to chat in, and OpenAI's API"
	@echo "make reference           make the run that is shipped in runs/reference again"
	@echo "make env                 make $(VENV) and install nanochat in it"
	@echo "make guide               check the book, then make its site and its PDF"
	@echo "make guide-sync          write code, outputs, numbers and figures into the book"
	@echo "make guide-serve         show the book's site on this machine"
	@echo "make test                the fast tests"
	@echo "make test-slow           the long ones"
	@echo "make torture             kill training at random moments, break its disk, compare the bits"
	@echo "make check               lint, format, types, structure"
	@echo "make clean               remove $(VENV) and caches; runs are kept"

env: $(FOR_CHAT)

chat: $(FOR_CHAT)
	@$(VENV_PYTHON) -m nanochat run --preset $(PRESET) --chat

serve: $(FOR_CHAT)
	@$(VENV_PYTHON) -m nanochat serve --run $(RUN)

reference: $(FOR_CHAT)
	@$(VENV_PYTHON) -m nanochat run --preset laptop --run made-for-reference --questions 1000 \
		--prompts runs/prompts/kitchen_dev.jsonl --ship runs/reference

guide: $(FOR_GUIDE)
	@$(VENV_PYTHON) educational/guide.py check
	@$(VENV_PYTHON) educational/guide.py symbols --quiet
	@$(SPHINX) -b html educational $(BOOK)/site
	@$(VENV_PYTHON) educational/compile_to_pdf.py
	@echo "The site: $(BOOK)/site/index.html"

guide-sync: $(FOR_GUIDE)
	@$(VENV_PYTHON) educational/guide.py sync

guide-serve: $(FOR_GUIDE)
	@$(SPHINX) -b html educational $(BOOK)/site
	@$(VENV_PYTHON) -m http.server --bind 127.0.0.1 --directory $(BOOK)/site $(PORT)

test: $(FOR_TESTS)
	@$(VENV_PYTHON) -m pytest -m "not slow"

test-slow: $(FOR_TESTS)
	@$(VENV_PYTHON) -m pytest -m slow --timeout 900

torture: $(FOR_TESTS)
	@GOMP_SPINCOUNT=4000 $(VENV_PYTHON) -m tests.torture

check: $(FOR_TESTS)
	@$(VENV_PYTHON) -m ruff check
	@$(VENV_PYTHON) -m ruff format --check
	@$(VENV_PYTHON) -m mypy
	@$(VENV_PYTHON) -m pytest -q -m "not slow" tests/structure

clean:
	rm -rf $(VENV) $(BOOK) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find nanochat tests $(wildcard educational) -name __pycache__ -type d -prune -exec rm -rf {} +

$(FOR_CHAT): $(PINS) $(TORCH)
	@echo "Installing nanochat and what it needs ..."
	@$(INSTALL) -qq --no-build-isolation -e ".[serve]"
	@touch $@

$(FOR_TESTS): $(PINS) $(TORCH) $(FOR_GUIDE)
	@echo "Installing nanochat and what its tests need ..."
	@$(INSTALL) -qq --no-build-isolation -e ".[data,dev,bench,harness]"
	@touch $(FOR_CHAT) $@

$(FOR_GUIDE): $(PINS) $(TORCH)
	@echo "Installing nanochat and what its book needs ..."
	@$(INSTALL) -qq --no-build-isolation -e ".[guide,serve]"
	@touch $(FOR_CHAT) $@

$(TORCH): constraints.txt | $(MADE)
	@$(install_torch)
	@touch $@

$(MADE):
	@$(check_python)
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(INSTALL) -qq pip setuptools wheel
	@touch $@

define check_python
command -v "$(PYTHON)" >/dev/null || { \
	echo "$(PYTHON) is not here: install Python 3.11 or newer (Debian, Ubuntu: sudo apt install python3 python3-venv)" >&2; \
	exit 1; }; \
"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "$(PYTHON) is older than 3.11: install a newer Python and name it, as in make chat PYTHON=python3.12" >&2; \
	exit 1; }; \
"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	echo "$(PYTHON) lacks venv: install it (Debian, Ubuntu: sudo apt install python3-venv)" >&2; \
	exit 1; }
endef

# torch goes first and by itself, so that TORCH_INDEX decides about it and about nothing else. On Linux its usual build
# brings several GB of CUDA libraries: where no NVIDIA card would use them, ask pip what it is about to take, and say so.
define install_torch
if [ -n "$(TORCH_INDEX)" ]; then \
	$(INSTALL) --index-url "$(TORCH_INDEX)" --no-deps torch; \
else \
	if [ "$$(uname -s)" = Linux ] && [ ! -e /proc/driver/nvidia/version ] && ! command -v nvidia-smi >/dev/null \
		&& $(INSTALL) -qq --dry-run --no-deps --report $(VENV)/torch.json torch 2>/dev/null \
		&& grep -qE '"(cuda|nvidia)-' $(VENV)/torch.json; then \
		echo "Note: torch comes with several GB of CUDA libraries that this machine has no use for. To do without:"; \
		echo "stop this, and run make env TORCH_INDEX=ADDRESS with the address that PyTorch's page \"Get Started\""; \
		echo "shows after --index-url when you choose Linux, Pip and CPU there."; \
	fi; \
	$(INSTALL) torch; \
fi
endef
