# The commands of the project. `setup` installs all dependencies; a second run does nothing.
SHELL := /bin/bash
OUT   := out
CLIP  := samples/pets2009-s2l1.mp4
BIN   := target/release/twintrack

.PHONY: help setup setup-test setup-gpu setup-train-gpu setup-train-torch build demo test soak fuzz lint bench bench-check train-demo clean setup-web web web-check test-dashboard bench-dashboard
help:      ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

setup:     ## install what is missing (apt packages, ONNX Runtime)
	@scripts/setup.sh cpu
setup-test: ## install what the tests talk to (MQTT broker, NATS server, RTSP server, nginx, ffmpeg, PostgreSQL, schemathesis, kubernetes-validate); without them those tests skip
	@scripts/setup.sh tests
setup-gpu: ## the same with ONNX Runtime for NVIDIA GPUs (CUDA 13, cuDNN 9)
	@scripts/setup.sh gpu
setup-train-gpu: ## install what training on an NVIDIA GPU needs (NVRTC, headers; feature train-cuda)
	@scripts/setup.sh cpu
	@scripts/fetch_train_gpu.sh cuda
setup-train-torch: ## install PyTorch, for training by LibTorch (feature train-torch)
	@scripts/setup.sh cpu
	@scripts/fetch_train_gpu.sh torch

# An installed library is kept; if there is none, the CPU build is downloaded.
.deps/onnxruntime/libonnxruntime.so:
	@scripts/setup.sh cpu
build: .deps/onnxruntime/libonnxruntime.so ## build the release program
	@scripts/setup.sh $$(cut -d' ' -f1 .deps/onnxruntime/.installed)
	@cargo build --release --locked

demo: build ## track the sample video, then look at out/demo.mp4
	@mkdir -p $(OUT)
	@if [ ! $(OUT)/demo.mp4 -nt $(BIN) ] || [ ! $(OUT)/demo.mp4 -nt $(CLIP) ]; then \
	  $(BIN) track $(CLIP) --output $(OUT)/demo.jsonl --mot $(OUT)/demo.txt --video $(OUT)/demo.mp4 2> >(tee $(OUT)/demo.log >&2); \
	else grep -A30 '^  frames ' $(OUT)/demo.log; fi
	@printf '\nannotated video  %s\ntrajectories     %s (JSON lines)\nMOTChallenge     %s\n' $(OUT)/demo.mp4 $(OUT)/demo.jsonl $(OUT)/demo.txt

test: build ## all tests
	@cargo test --release --locked --features train

# The dashboard. What is built is committed in web/dist, so that the program builds without Node.
web/node_modules/.package-lock.json: web/package-lock.json
	@cd web && npm ci --no-progress --loglevel error
	@touch $@
setup-web: ## install what building and testing the dashboard needs (Node, npm, Chromium)
	@scripts/setup.sh web
	@$(MAKE) --no-print-directory web/node_modules/.package-lock.json
web: web/node_modules/.package-lock.json ## build web/dist, which is committed, from web/src
	@cd web && npm run --silent build
web-check: ## types, lints and unit tests of the dashboard; fail if web/dist is not what web/src builds
	@if ! node web/scripts/require_node.mjs; then echo 'web-check is SKIPPED: run make setup-web'; exit 0; fi; \
	$(MAKE) --no-print-directory web/node_modules/.package-lock.json && cd web && \
	npm run --silent types && npm run --silent lint && npm run --silent test && npm run --silent check
test-dashboard: build ## the dashboard in headless Chromium, with a running service
	@if ! node web/scripts/require_node.mjs; then echo 'test-dashboard is SKIPPED: run make setup-web'; exit 0; fi; \
	node --test --test-timeout=900000 --test-force-exit --test-reporter spec tests/dashboard/*.test.mjs
bench-dashboard: build ## size, first paint and dropped frames of the dashboard (BENCHMARKS.md)
	@node tests/dashboard/bench.mjs

soak: build ## the long tests (minutes each, bounded)
	@cargo test --release --locked --features train --test sinks --test web --test soak -- --ignored --nocapture --test-threads 1 soak
	@scripts/fleet_soak.py

# Fuzz targets of the parsers of untrusted input. Without a sanitizer they run with any Rust, at
# 10,000 to 300,000 inputs per second.
FUZZED  := mot config events head metadata detections http address
SECONDS ?= 60
fuzz: build ## run every fuzz target for SECONDS=60 each
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
	@for t in $(FUZZED); do \
	  mkdir -p fuzz/corpus/$$t && \
	  case $$t in config) more=configs;; metadata) more=tests/fixtures;; *) more=;; esac && \
	  cargo fuzz run --sanitizer none -O $$t fuzz/corpus/$$t fuzz/seeds/$$t $$more -- -max_total_time=$(SECONDS) -max_len=4096 || exit 1; \
	done

lint:      ## format, clippy, licences, manifests
	cargo fmt --check
	cargo clippy --release --all-targets --locked --features train -- -D warnings
	cargo clippy --release --no-default-features --lib --bins --locked -- -D warnings
	cargo clippy --release --no-default-features --features cli --lib --bins --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --lib --release --locked --features train
	scripts/deny.sh
	scripts/check_deploy.sh

bench: build ## the benchmarks of BENCHMARKS.md that need nothing beyond this repository
	cargo bench --locked --bench tracker_update

# REV: the commit to compare with; by default HEAD if files are changed, else the commit before
# HEAD.
bench-check: ## compare instructions executed with those at REV, fail beyond 5 %
	@scripts/bench_check.sh $(REV)

train-demo: .deps/onnxruntime/libonnxruntime.so ## train a small network on drawn people (minutes), judge it on the sample clip
	@cargo build --release --locked --features train
	@target/release/twintrack-train run --data synthetic:200 --steps 200 --work $(OUT)/train --output $(OUT)/train-demo.onnx
	@target/release/twintrack-train eval --model $(OUT)/train-demo.onnx --data synthetic:50 'mot:samples/pets2009-s2l1#251-400'

clean:     ## remove what was built (not what was fetched)
	rm -rf $(OUT) target
