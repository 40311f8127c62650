# The two commands of README.md are `make run` and `make test`; each makes its own .venv and does its work.
#
#   make run            the daemon in the foreground with etc/streampipe.toml, until its bounded stream ends
#   make test           everything: style, types, layers, pure, stage, system and systemd tests
#   make test-pythons   the pure and stage tests on the other Pythons of this machine
#   make law            the long proof: 100,000 simulated schedules, 1,000 real signals, recovery times,
#                       what exactly-once costs; half an hour
#   make bench          what the pipeline costs, beside a loop in one process, queues, ZeroMQ, Bytewax, Ray and
#                       Pathway; writes docs/performance.md; 20 minutes; ARGS=--quick for some of it,
#                       ARGS=--long for a hundred million records as well
#   make bench-learning what the learning is worth, beside River, scikit-learn and Vowpal Wabbit; writes
#                       docs/learning.md; six minutes; ARGS=--quick for the short streams
#   make choose-defaults what the learners' defaults give on real data sets; ARGS=--descend tries others
#   make lint           ruff and mypy alone
#   make install        as a systemd service (as root); PREFIX, DESTDIR, INTERPRETER
#   make deb            a Debian package in build/ of what make install would put below /usr
#   make uninstall      the program and its unit; configuration and state stay
#   make clean          what the commands above made in this directory
#
# PYTHON=... picks another Python, ARGS=... goes to pytest.

PREFIX ?= /usr/local
DESTDIR ?=
INTERPRETER ?=
VENV ?= .venv
PATHWAY ?= build/pathway
ARGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
OTHER_PYTHONS := 3.11 3.12 3.13

.PHONY: run test test-pythons law bench bench-learning choose-defaults lint venv install uninstall deb clean
.DELETE_ON_ERROR:

run: $(VENV)/installed
	@exec $(BIN)/python -c "$$FOREGROUND" $(BIN)/streampiped run --config etc/streampipe.toml --fresh --until-finished

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 3 --dist loadfile -m 'not timing' $(ARGS)
	$(BIN)/python -m pytest -m timing $(ARGS)

law: $(VENV)/installed-dev
	PYTHONPATH=tests $(BIN)/python -m sim.run --schedules 100000 --seed 1
	PYTHONPATH=tests $(BIN)/python -m support.chaos --signals 1000 --seed 1
	PYTHONPATH=tests $(BIN)/python -m support.recovery --kills 40
	PYTHONPATH=tests $(BIN)/python -m support.cost --sink none --pairs 14
	PYTHONPATH=tests $(BIN)/python -m support.cost --sink none --pairs 10 --interval 50ms
	PYTHONPATH=tests $(BIN)/python -m support.cost --sink sqlite

bench: $(VENV)/installed-peers $(PATHWAY)/installed
	PYTHONPATH=tests $(BIN)/python -m speed.run --pathway $(PATHWAY)/bin/python --markdown docs/performance.md \
	    --json build/performance.json $(ARGS)

bench-learning: $(VENV)/installed-bench
	PYTHONPATH=tests $(BIN)/python -m bench.run --markdown docs/learning.md $(ARGS)

choose-defaults: $(VENV)/installed-bench
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -W ignore -m bench.choose $(ARGS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

venv: $(VENV)/installed-dev

# Ctrl-C belongs to the daemon alone: it drains, reports and exits 0. Were make in the terminal's foreground group
# too, it would die of the signal and turn that 0 into 130. So the daemon takes the foreground with a group of its
# own, as a job of an interactive shell has; Ctrl-Z is off, since nobody would be there to continue it. Without a
# terminal nothing is changed.
define FOREGROUND
import os, signal, sys
if os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp():
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
os.execv(sys.argv[1], sys.argv[1:])
endef
export FOREGROUND

# The first Python that is new enough; Debian and Ubuntu call it python3, or by its version beside an older one.
define FIND_PYTHON
for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
        if $$python -c 'import ensurepip, venv' 2>/dev/null; then echo $$python; exit 0; fi; \
        echo "$$python cannot make a virtual environment: apt install python3-venv" >&2; exit 1; \
    fi; \
done; \
echo 'streampipe needs Python 3.11 or newer; name one with PYTHON=/path/to/python3' >&2; exit 1
endef

# pip itself is the last thing that venv puts in, so a half-made environment is made again.
$(VENV)/bin/pip:
	@python=$$($(FIND_PYTHON)) && echo "making $(VENV) with $$python" && $$python -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/pip
	$(PIP) install --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/pip
	$(PIP) install --editable '.[dev]'
	@touch $(VENV)/installed $@

$(VENV)/installed-bench: pyproject.toml | $(VENV)/bin/pip
	$(PIP) install --editable '.[bench]'
	@touch $(VENV)/installed $@

$(VENV)/installed-peers: pyproject.toml | $(VENV)/bin/pip
	$(PIP) install --editable '.[peers]'
	@touch $(VENV)/installed $@

# scikit-learn imports pandas where it is there, and pandas pyarrow: beside them every process that is measured would
# begin later and be larger.
$(PATHWAY)/installed: pyproject.toml
	@python=$$($(FIND_PYTHON)) && $$python -m venv $(PATHWAY)
	@if $(PATHWAY)/bin/python -m pip --quiet --disable-pip-version-check install --editable '.[pathway]'; \
	    then touch $@; else echo 'make bench goes on without Pathway' >&2; fi

# An environment for each of them in build/, kept for the next time.
test-pythons:
	@for version in $(OTHER_PYTHONS); do sh tests/support/on_python.sh $$version $(ARGS) || exit 1; done

install: $(VENV)/installed
	$(BIN)/python systemd/install.py install --prefix '$(PREFIX)' --destdir '$(DESTDIR)' \
	    $(if $(INTERPRETER),--interpreter '$(INTERPRETER)')
	@echo "installed; next: systemctl enable --now streampipe"

# Needs no environment: what was installed can be removed from a fresh checkout.
uninstall:
	@for python in $(BIN)/python $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	    if $$python -c 'import tomllib' 2>/dev/null; then \
	        exec $$python systemd/install.py uninstall --prefix '$(PREFIX)' --destdir '$(DESTDIR)'; \
	    fi; \
	done; \
	echo 'make uninstall needs some Python 3.11 or newer; name one with PYTHON=/path/to/python3' >&2; exit 1

deb: $(VENV)/installed
	@$(BIN)/python systemd/package.py

clean:
	rm -rf $(VENV) var build *.egg-info
