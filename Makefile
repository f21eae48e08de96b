# Each target sets up what it needs: a virtual environment in .venv, with the tested versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.done
SETUP_DOWNLOAD := .venv-download/.done
SETUP_LMMS := .venv-lmms/.done
SETUP_WEB := .venv-web/.done
SETUP_DOCS := .venv/.docs

.PHONY: help setup setup-download setup-lmms setup-web demo test test-thorough test-slow test-cluster test-docs test-gpu test-browser test-page gpu-proof demo-video lint format \
	notebooks docs bench peers clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(SETUP)  ## a virtual environment in .venv, with the tested versions

$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,models,train,report,eval,offline,ocr,demo,dev]'
	touch $@

# img2dataset needs older packages than the rest: it has an environment of its own, and runs in a child process.
setup-download: $(SETUP_DOWNLOAD)  ## img2dataset, in .venv-download

$(SETUP_DOWNLOAD): requirements/download.txt
	$(PYTHON) -m venv .venv-download
	.venv-download/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/download.txt
	touch $@

# lmms-eval requires far more than the test of it needs: its requirements are left out.
setup-lmms: $(SETUP_LMMS)  ## lmms-eval, in .venv-lmms, for a slow test

$(SETUP_LMMS): requirements/lmms-eval.txt
	$(PYTHON) -m venv .venv-lmms
	.venv-lmms/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/lmms-eval.txt
	.venv-lmms/bin/python -m pip install --quiet --disable-pip-version-check --no-deps lmms_eval==0.7.3
	touch $@

# gradio needs an older Pillow than the rest: it has an environment of its own, which takes all else from .venv.
setup-web: $(SETUP_WEB)  ## gradio and Playwright, in .venv-web

$(SETUP_WEB): requirements/web.txt $(SETUP)
	$(PYTHON) -m venv .venv-web
	.venv-web/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/web.txt
	.venv-web/bin/python -c "import sysconfig; from pathlib import Path; own = sysconfig.get_path('purelib'); \
		rest = own.replace('.venv-web', '.venv'); Path(own, 'zz_rest.pth').write_text(f'import site; site.addsitedir({rest!r})')"
	touch $@

demo: $(SETUP)  ## photographs into a dataset, a training, and a chat
	$(BIN)/python recipes/demo_pool.py demo/pool
	$(BIN)/vl3syn run recipes/demo.yaml --run demo/run
	$(BIN)/vl3syn report demo/run
	$(BIN)/python recipes/demo_lessons.py demo/run/shards demo/lessons
	@# One thread: so small a model gains little from a second one, and images are decoded meanwhile.
	OMP_NUM_THREADS=1 $(BIN)/vl3syn train recipes/train-demo.yaml --run demo/training
	@# Scenes that the training never showed: with their own pictures, and with those of other scenes.
	$(BIN)/vl3syn eval demo/training/5-video/model --data demo/lessons/exam.jsonl --shuffle-images --max-new-tokens 32
	@# One of them: demo/lessons/exam/00000.png
	$(BIN)/vl3syn chat demo/training/5-video/model --system '' --image demo/lessons/exam/00000.png 'Describe the scene.'
	@echo
	@echo 'The report:   demo/run/report.html: open it in a browser'
	@echo
	@echo 'Look closer:  $(BIN)/vl3syn sweep demo/run'
	@echo '              $(BIN)/vl3syn sweep demo/run quality.min=0.5:0.8:4 similarity.min=0.4,0.6,0.8'
	@echo '              $(BIN)/vl3syn sweep demo/run duplicates.per_group_cluster=2,4,8,16 duplicates.min_phash_distance=5,11'
	@echo '              $(BIN)/vl3syn groups demo/run'
	@echo '              $(BIN)/vl3syn explain demo/run photographs/rocket.jpg'
	@echo
	@echo 'The dataset:  demo/run/shards/README.md is its card; its images and captions open with any reader of Parquet:'
	@echo "              $(BIN)/python -c 'import polars as pl; print(pl.read_parquet(\"demo/run/shards/data/*.parquet\", columns=[\"short_caption\"]))'"
	@echo
	@echo 'The training: demo/training/curves.png; docs/demo.md tells what it learns. Ask it more, of a clip and of a photograph:'
	@echo "              $(BIN)/vl3syn chat demo/training/5-video/model --system '' --video demo/lessons/exam_clips/0000 --frames-fps 1 'What happens?'"
	@echo "              $(BIN)/vl3syn chat demo/training/5-video/model --system '' --image demo/pool/photographs/tomato_124.png 'Describe the image in detail.'"

demo-video: $(SETUP)  ## films into clips, and clips into records to train on
	$(BIN)/python recipes/demo_pool.py demo/pool
	$(BIN)/python recipes/demo_films.py demo/pool/photographs demo/films
	$(BIN)/vl3syn run recipes/demo-video.yaml --run demo/films-run
	$(BIN)/vl3syn clips --run demo/films-run
	$(BIN)/vl3syn report demo/films-run/clips

# Three processes for two cores, each with a Ray of its own: tests wait for the processes that they start. A file stays in
# one process, with its fixtures.
# A process that dies ends the tests and names the test: with another in its place, pytest-xdist 3.8 may hang.
test: $(SETUP) $(SETUP_DOWNLOAD)  ## the tests
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test-thorough: $(SETUP) $(SETUP_DOWNLOAD)  ## what `make test` tries once, at every step and in every like case
	$(BIN)/python -m pytest -m thorough -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test-slow: $(SETUP) $(SETUP_LMMS)  ## tests that take minutes: kills, installations
	$(BIN)/python -m pytest -m slow

test-cluster: $(SETUP)  ## several Ray nodes on this machine: job submission, lost nodes, counted GPUs
	$(BIN)/python -m pytest -m cluster tests/cluster

test-docs: $(SETUP) $(SETUP_DOCS)  ## the pages: every command in them, and the site
	$(BIN)/python -m pytest -m docs

test-gpu: $(SETUP)  ## tests that need CUDA
	$(BIN)/python -m pytest -m gpu -s

# Pages in a real browser. Chromium comes from the system (`apt-get install chromium`, or its path in VL3SYN_CHROMIUM);
# axe-core, which finds what shuts readers out, from npm (`npm install --no-save axe-core`, or the path of its
# axe.min.js in VL3SYN_AXE).
test-browser: $(SETUP)  ## pages in a real browser
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'
	$(BIN)/python -m pytest -m browser tests/browser

# The chat page in a real browser; Chromium as above.
test-page: $(SETUP_WEB)  ## the chat page in a real browser
	.venv-web/bin/python -m pytest -m page tests/page

# Without a setup: a machine with a GPU may have no network. ARGS=--dry runs every line at tiny sizes on a CPU.
gpu-proof:  ## what a GPU computes, and how fast
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) benchmarks/gpu_proof.py $(ARGS)

lint: $(SETUP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# After `make demo`.
notebooks: $(SETUP)  ## executes notebooks/ anew, and stores the outputs
	$(BIN)/python notebooks/execute.py

format: $(SETUP)  ## ruff mends what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(SETUP_DOCS): $(SETUP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# Pages that programs write come first. A warning, such as a broken link, is an error.
docs: $(SETUP_DOCS)  ## the site, in build/site
	$(BIN)/python -m typer pipeline.commands.app utils docs --name vl3syn --title 'All commands' --output docs/cli.md
	$(BIN)/python -m tests.e2e.test_docs_of_the_training_recipe
	$(BIN)/python -m sphinx -W --keep-going -n -q docs build/site
	@echo 'open build/site/index.html'

bench: $(SETUP) $(SETUP_DOWNLOAD)  ## the numbers of docs/benchmarks.md
	$(BIN)/python benchmarks/index_headers.py
	$(BIN)/python benchmarks/download.py
	$(BIN)/python benchmarks/manifest_10m.py
	$(BIN)/python benchmarks/many_jobs.py
	$(BIN)/python benchmarks/driver_memory.py
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/cost.py
	$(BIN)/python benchmarks/command_line.py
	$(BIN)/python benchmarks/clip_throughput.py
	$(BIN)/python benchmarks/draft.py
	$(BIN)/python benchmarks/quality.py
	$(BIN)/python benchmarks/kmeans.py
	$(BIN)/python benchmarks/scene_cuts.py
	$(BIN)/python benchmarks/film_facts.py
	$(BIN)/python benchmarks/index_films.py
	$(BIN)/python benchmarks/concepts.py
	$(BIN)/python benchmarks/balance_100m.py
	$(BIN)/python benchmarks/diversity.py
	$(BIN)/python benchmarks/duplicates.py
	$(BIN)/python benchmarks/duplicates_speed.py
	$(BIN)/python benchmarks/encoder.py
	$(BIN)/python benchmarks/packed.py
	$(BIN)/python benchmarks/second_question.py
	$(BIN)/python benchmarks/stream.py
	$(BIN)/python benchmarks/kept_share.py
	$(BIN)/python benchmarks/resize.py
	$(BIN)/python benchmarks/packing.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/trainer.py
	$(BIN)/python benchmarks/loader.py

# Against other tools, each in an environment of its own under build/peers; writes the table of docs/benchmarks.md.
peers: $(SETUP)  ## the comparison with other tools
	$(BIN)/python benchmarks/peers/run.py --write $(ARGS)

clean:  ## remove what was made
	rm -rf .venv .venv-download .venv-lmms .venv-web demo build *.egg-info
