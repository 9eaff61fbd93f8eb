# make demo    the whole way on a made-up cohort, CPU, a few minutes
# make test    the default suite (about 6 minutes on 2 cores); what takes longer has the marker slow or browser
# make test-wheel  the wheel alone in a fresh environment without torch, and the page in Chromium where it is installed
# make test-slow  second variants, and documented commands that take long
# make docs    the documentation as a site, in docs/_build/html
# make check   ruff, formatting, types
# make starters  the weights that come with the package, from synthetic heads (hours; resumable)
# make tables  train the papers' rows that were not measured with today's phantoms and recipes; write the pages (hours; resumable)
# make figures  the figures of the papers' pages, from the images that make tables left in bench/tables
# make evidence  train and score a fixed set on real scans and phantoms beside docs/reference/references.toml (20 minutes; resumable)
# make chaos   kill commands, fill their disk: a table in docs/reliability.md (resumable; at most MINUTES=20 and its first run)
# make bench   time and memory of networks beside those of peers, and of a synthesis (20 minutes; SIZE=64: small ones, a few minutes)
# make browser  the page that computes in a browser, in build/browser (MODELS="MODEL ..." puts models in it), and every test
#              that needs Chromium (marker browser), which the default suite leaves out
# make keep    files of this version for tests of later ones, in tests/kept_files; before a release
# make release the checklist of a release: two builds with one hash, licences, list of components
# make PYTHON=NAME  with another Python than the first of these that has venv
BIN := .venv/bin
PYTHONS := $(or $(PYTHON),python3.11 python3.12 python3.13 python3.14 python3 python)
USABLE := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
FOUND = $(shell for name in $(PYTHONS); do "$$name" -c '$(USABLE)' 2>/dev/null && echo "$$name" && break; done)

.PHONY: install demo test dicom test-wheel test-slow check docs browser keep release fuzz chaos bench tables figures trust evidence starters clean

install: .venv/installed

# pip resolves torch to the pinned version; an index of CPU builds, where one is set up, keeps gigabytes of CUDA away
.venv/installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || test -n "$(FOUND)" || { echo "make: expected Python 3.11 to 3.14 with venv, found none that runs as $(PYTHONS). Install one (on Debian with python3-venv), or name it: make PYTHON=/PATH/TO/python3" >&2; exit 2; }
	test -x $(BIN)/python || "$(FOUND)" -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,dev,dicom,registration]'
	touch $@

demo: install
	$(BIN)/voxlate demo --out demo

# a free process takes tests of the other one's share: neither waits for the slowest files
test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test-wheel: install
	$(BIN)/python -m pytest -m wheel -s
	rm -rf build/browser
	$(BIN)/python run/browser/build.py --out build/browser
	$(BIN)/python -m pytest -m browser tests/page/test_page_that_computes.py

test-slow: install
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m 'slow and not browser'

# the 48 orders of axes with dciodvfy, and an Orthanc server where it is installed
dicom: install
	$(BIN)/python -m pytest -rs -m "slow or pacs or not slow" tests/clinic

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going --quiet docs docs/_build/html
	@echo "open docs/_build/html/index.html"

browser: install
	rm -rf build/browser
	$(BIN)/python run/browser/build.py --out build/browser $(foreach model,$(MODELS),--model $(model))
	$(BIN)/python -m pytest -m browser

keep: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[export]'
	OMP_NUM_THREADS=1 $(BIN)/python release/keep.py

release: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[release,export]'
	$(BIN)/python release/release.py

# seeded mutations of every kind of file that voxlate reads, ten minutes
fuzz: install
	$(BIN)/python fuzz/fuzz.py --further

# kills, full disks and competing processes; resumable
chaos: install
	OMP_NUM_THREADS=1 $(BIN)/python fuzz/chaos.py --write docs/reliability.md $(if $(MINUTES),--minutes $(MINUTES))

# nnU-Net's networks without what they need for others: torchvision must be of the build of torch
bench: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps dynamic-network-architectures
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_nets.py $(if $(SIZE),--size $(SIZE) --repeats 1)
	$(BIN)/python benchmarks/bench_synth.py $(if $(SIZE),--size $(SIZE) $(SIZE) $(SIZE))

# how far intervals hold
trust: install
	$(BIN)/python benchmarks/trust.py bench

# whether results hold; SCANS: the folder of real scans, whose rows are skipped where it is absent; ROWS: names with *
evidence: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/evidence.py $(if $(SCANS),--data $(SCANS)) $(if $(ROWS),--rows $(ROWS))

# the papers' rows that have no line of today, and the pages' tables; ROWS: TABLE, TABLE:ROW or TABLE:ROW:SEED, with *, such as
# 'umm_csgm:*/MM-SYN:0'; MINUTES: ends before the row that would exceed them (0: pages only)
tables: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/tables.py bench/tables $(ROWS) $(if $(MINUTES),--minutes $(MINUTES))

figures: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/figures.py bench/tables $(ROWS)

# STARTERS: names of those that are made; all by default
starters: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/starters.py bench/starters $(STARTERS)
	$(BIN)/python benchmarks/starter_facts.py

clean:
	rm -rf .venv demo bench build docs/_build docs/generated .pytest_cache .mypy_cache .ruff_cache
