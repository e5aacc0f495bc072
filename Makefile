# Lantern: everything a developer, a user trying it out, and CI call. `make help` lists the targets.
#
# Native libraries go to .runtime/ and build output to target/. With LANTERN_CACHE=DIR both go to DIR instead, so
# that they outlive the checkout.

TORCH_VERSION       := 2.11.0
ONNXRUNTIME_VERSION := 1.31.0

ifdef LANTERN_CACHE
RUNTIME          := $(LANTERN_CACHE)/runtime
CARGO_TARGET_DIR := $(LANTERN_CACHE)/target
else
RUNTIME          := $(CURDIR)/.runtime
CARGO_TARGET_DIR ?= $(CURDIR)/target
endif
export CARGO_TARGET_DIR

PYTHON       := $(RUNTIME)/python/bin/python
STAMP        := $(RUNTIME)/torch-$(TORCH_VERSION)-onnxruntime-$(ONNXRUNTIME_VERSION)
SITE         := $(RUNTIME)/python/lib/python3/site-packages
GUEST_TARGET := $(CARGO_TARGET_DIR)/guests
GUESTS       := $(GUEST_TARGET)/wasm32-wasip2/release
STORE        := $(CARGO_TARGET_DIR)/model-store
RESNET       := $(CARGO_TARGET_DIR)/resnet18
MODELS       := $(RUNTIME)/models
PEERS        := $(RUNTIME)/peers

# Users with their own copies set LIBTORCH and ORT_DYLIB_PATH.
export LIBTORCH       ?= $(SITE)/torch
export ORT_DYLIB_PATH ?= $(SITE)/onnxruntime/capi/libonnxruntime.so
export LANTERN_GUESTS := $(GUESTS)
export LANTERN_CLIENTS := $(RUNTIME)/clients

# stage,NAME,COMMAND: runs the command and says how long it took.
define stage
@echo "==> $(1)"; begun=$$(date +%s); ( $(2) ) || exit 1; echo "==> $(1): $$(($$(date +%s) - begun)) s"
endef

# nextest ends tests that hang; without it the plain test runner is used.
ifneq ($(shell command -v cargo-nextest 2>/dev/null),)
NEXTEST    := yes
TESTS      := cargo nextest run --workspace
UNIT_TESTS := cargo nextest run --workspace --lib
else
TESTS      := echo "cargo-nextest is not installed; cargo test does not end tests that hang" && \
	cargo build --workspace --examples && cargo test --workspace --lib --bins --tests
UNIT_TESTS := cargo test --workspace --lib
endif

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: build archives ## Build everything, serve the example models, ask them, keep serving
	@examples/run.sh $(CARGO_TARGET_DIR)/release/lantern $(STORE)

.PHONY: build
build: prerequisites ## Build lantern and lantern-torch (release)
	@# The libraries arrive while what does not need them is compiled.
	@test -f $(STAMP) || $(MAKE) --no-print-directory --jobs=2 runtime front
	cargo build --release --bins --workspace

.PHONY: front
front: prerequisites
	cargo build --release --bins --workspace --exclude torch-worker

.PHONY: check
check: prerequisites runtime guests ## Formatting, clippy and unit tests: the inner loop
	$(call stage,formatting,cargo fmt --all --check)
	$(call stage,clippy,cargo clippy --workspace --lib --bins -- -D warnings)
	$(call stage,unit tests,$(UNIT_TESTS))

.PHONY: test
test: prerequisites runtime clients lint guests $(MODELS)/made ## Everything that CI runs
	$(call stage,tests,$(TESTS))
	$(call stage,documentation tests,cargo test --workspace --doc)
	$(call stage,guests on the host,cd examples && CARGO_TARGET_DIR=$(GUEST_TARGET) cargo test --quiet --workspace --target $(HOST))
	@# The program is the one that the tests were built with.
	$(call stage,a sample of the models of others,$(MODELS)/bin/python -B tests/models/compare.py --sample \
		--lantern $(CARGO_TARGET_DIR)/debug/lantern --handler $(GUESTS)/passthrough.wasm --out target/models-sample.md)

.PHONY: release-check
release-check: test unprivileged attack conformance openapi models licences ## What takes longer than CI may: before a release

.PHONY: unprivileged
unprivileged: prerequisites runtime clients guests ## The tests as an ordinary user without a home, on a read-only file system
ifndef NEXTEST
	@echo "make unprivileged needs cargo-nextest. Install it: cargo install cargo-nextest --locked"; exit 1
endif
	@mkdir -p $(CARGO_TARGET_DIR)/unprivileged
	cargo nextest list --workspace --list-type binaries-only --message-format json > $(CARGO_TARGET_DIR)/unprivileged/binaries.json
	cargo metadata --format-version 1 --filter-platform $(HOST) > $(CARGO_TARGET_DIR)/unprivileged/cargo.json
	tests/unprivileged.sh $(CARGO_TARGET_DIR)/unprivileged/binaries.json $(CARGO_TARGET_DIR)/unprivileged/cargo.json $(ARGS)

# Hostile code, models and handlers: the modules of tests that are about them.
ATTACKS := test(/^attack/) | test(/killed_and_stopped_at_random/) | test(/^limits::/) | test(/^remains::/) | test(/^churn::/) | test(/hostile/)

.PHONY: attack
attack: prerequisites runtime clients guests ## Hostile code, models and handlers, in long form, as this user and as one without rights
ifndef NEXTEST
	@echo "make attack needs cargo-nextest. Install it: cargo install cargo-nextest --locked"; exit 1
endif
	LANTERN_ATTACK_ROUNDS=$(or $(ROUNDS),200) cargo nextest run --workspace --profile attack -E '$(ATTACKS)'
	LANTERN_ATTACK_ROUNDS=$(or $(ROUNDS),200) $(MAKE) --no-print-directory unprivileged ARGS="--profile attack -E '$(ATTACKS)'"

# Coverage as libFuzzer reads it, by flags that stable Rust has. The host's triple keeps them away from build scripts.
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
FUZZ       := $(CARGO_TARGET_DIR)/fuzz

.PHONY: fuzz
fuzz: prerequisites ## Fuzz what reads foreign bytes: SECONDS=60 for each target, or TARGET=name alone: target/fuzz.md
	@# The versions of dependencies that the server has.
	cp Cargo.lock fuzz/Cargo.lock
	cd fuzz && CARGO_TARGET_DIR=$(FUZZ) RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --release --target $(HOST)
	python3 -B fuzz/run.py --program $(FUZZ)/$(HOST)/release/lantern-fuzz --corpus $(FUZZ)/corpus \
		--seconds $(or $(SECONDS),60) $(if $(TARGET),--target $(TARGET)) --out target/fuzz.md

.PHONY: licences
licences: ## Licences, bans and sources of every dependency (needs cargo-deny)
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing. Install it: cargo install cargo-deny --locked"; exit 1; }
	cargo deny --workspace check licenses bans sources
	cargo deny --manifest-path examples/Cargo.toml --config deny.toml check licenses bans sources
	cp Cargo.lock fuzz/Cargo.lock
	cargo deny --manifest-path fuzz/Cargo.toml --config deny.toml check licenses bans sources

.PHONY: conformance
conformance: prerequisites runtime clients guests ## What TorchServe's clients can see, checked: target/conformance.md
ifndef NEXTEST
	@echo "make conformance needs cargo-nextest. Install it: cargo install cargo-nextest --locked"; exit 1
endif
	-cargo nextest run --workspace --profile conformance
	@mkdir -p target
	python3 tests/conformance/report.py --results target/nextest/conformance/junit.xml --out target/conformance.md

.PHONY: differential
differential: build guests ## The same requests to TorchServe 0.12 and to Lantern: target/differential.md (needs Java 17)
	python3 -B benches/peers/peer.py setup --runtime $(RUNTIME) --venv $(PEERS)/torchserve
	python3 tests/differential/compare.py --lantern $(CARGO_TARGET_DIR)/release/lantern --guests $(GUESTS) \
		--venv $(PEERS)/torchserve --out target/differential.md

NEWMAN         := $(RUNTIME)/newman
TORCHSERVE     := https://github.com/pytorch/serve
TORCHSERVE_TAG := v0.12.0
# TorchServe's collections: fetched, unless COLLECTIONS=DIR names a checkout of TorchServe.
CLONE          := $(RUNTIME)/torchserve-$(TORCHSERVE_TAG)
ifndef COLLECTIONS
COLLECTIONS := $(CLONE)
FETCHED     := $(CLONE)/test/postman
endif

.PHONY: postman
postman: $(FETCHED) $(NEWMAN)/made build target ## TorchServe's own Postman collections, run against Lantern: target/postman.md (needs Node.js)
	CARGO_TARGET_DIR=$(GUEST_TARGET) cargo build --manifest-path tests/postman/handler/Cargo.toml --release --locked --target wasm32-wasip2
	python3 -B tests/postman/run.py --lantern $(CARGO_TARGET_DIR)/release/lantern --handler $(GUESTS)/stand_in.wasm \
		--newman $(NEWMAN)/node_modules/newman --collections $(COLLECTIONS) --out target/postman.md $(ARGS)

$(NEWMAN)/made: tests/postman/package.json
	@command -v node >/dev/null && command -v npm >/dev/null || { echo "Node.js is missing. Install it: sudo apt-get install nodejs npm"; exit 1; }
	@mkdir -p $(NEWMAN)
	cp $< $(NEWMAN)/
	npm install --prefix $(NEWMAN) --no-package-lock --no-audit --no-fund --loglevel=error
	@touch $@

# What the collections need of TorchServe's repository, under its name once all of it is there.
$(CLONE)/test/postman:
	@mkdir -p $(RUNTIME) && rm -rf $(CLONE).part
	@git clone --quiet --depth 1 --branch $(TORCHSERVE_TAG) --filter=blob:none --sparse $(TORCHSERVE) $(CLONE).part && \
		git -C $(CLONE).part sparse-checkout set test/postman test/resources examples kubernetes/kserve || { \
		echo "TorchServe's collections cannot be fetched from $(TORCHSERVE). Give a checkout of its tag $(TORCHSERVE_TAG): make postman COLLECTIONS=DIR"; exit 1; }
	@mv $(CLONE).part $(CLONE)

.PHONY: models
models: build guests $(MODELS)/made ## Models of others, asked of Lantern and of Python's onnxruntime: target/models.md
	$(MODELS)/bin/python -B tests/models/compare.py --lantern $(CARGO_TARGET_DIR)/release/lantern \
		--handler $(GUESTS)/passthrough.wasm --out target/models.md

# It sees the onnxruntime and the torch that the server opens.
$(MODELS)/made: tests/models/requirements.txt tests/models/public.txt | runtime
	$(PYTHON) -m venv $(MODELS)
	echo $(SITE) > $$($(MODELS)/bin/python -c 'import site; print(site.getsitepackages()[0])')/runtime.pth
	$(MODELS)/bin/python -m pip install --disable-pip-version-check --quiet --requirement tests/models/requirements.txt
	$(MODELS)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --requirement tests/models/public.txt
	@touch $@

OPENAPI := $(RUNTIME)/openapi

.PHONY: openapi
openapi: build guests $(OPENAPI)/made ## What the OpenAPI documents promise, asked of a running server
	$(OPENAPI)/bin/python tests/openapi/check.py --lantern $(CARGO_TARGET_DIR)/release/lantern --handler $(GUESTS)/echo.wasm

$(OPENAPI)/made: tests/openapi/requirements.txt
	python3 -m venv $(OPENAPI)
	$(OPENAPI)/bin/python -m pip install --disable-pip-version-check --quiet --requirement $<
	@touch $@

HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')

.PHONY: lint
lint: prerequisites runtime target ## Formatting, clippy and documentation, warnings as errors
	$(call stage,formatting,cargo fmt --all --check && (cd fuzz && cargo fmt --check) && cd examples && cargo fmt --all --check)
	$(call stage,clippy,cargo clippy --workspace --all-targets -- -D warnings)
	$(call stage,clippy of guests,cd examples && CARGO_TARGET_DIR=$(GUEST_TARGET) \
		cargo clippy --workspace --target wasm32-wasip2 -- -D warnings)
	$(call stage,documentation,RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet)

# Without the server's own tests, whose features differ: nothing that `make build` compiled is compiled again.
BENCH := cargo bench --workspace --exclude lantern

.PHONY: bench
bench: build guests $(RESNET)/made ## Micro-benchmarks, then the server under load; one alone with ARGS="--bench NAME"
	LANTERN_RESNET=$(RESNET) LANTERN_PYTHON=$(PYTHON) $(BENCH) $(ARGS)

# Versions as in examples/digits/requirements.txt.
$(RESNET)/made: benches/resnet18.py | runtime
	$(PYTHON) -m pip install --disable-pip-version-check onnx==1.23.2 onnxscript==0.7.2
	$(PYTHON) benches/resnet18.py $(RESNET)
	@touch $@

.PHONY: bench-peers
bench-peers: build guests ## The same load on Lantern, TorchServe, mosec, LitServe and BentoML (needs Java 17)
	python3 -B benches/peers/peer.py setup --runtime $(RUNTIME) --venv $(PEERS)/torchserve
	python3 -B benches/peers/scripts.py setup --runtime $(RUNTIME) --venvs $(PEERS)
	LANTERN_PEER_VENVS=$(PEERS) $(BENCH) --bench peers

.PHONY: guests
guests: prerequisites target ## Build every handler (examples and test guests) for wasm32-wasip2
	$(call stage,guests,cd examples && CARGO_TARGET_DIR=$(GUEST_TARGET) cargo build --release --workspace --target wasm32-wasip2)

.PHONY: archives
archives: build guests ## Pack the example archives
	@LANTERN=$(CARGO_TARGET_DIR)/release/lantern examples/pack.sh $(GUESTS) $(STORE)

.PHONY: target
target:
	@rustup target list --installed | grep -qx wasm32-wasip2 || rustup target add wasm32-wasip2

.PHONY: runtime
runtime: $(STAMP) ## Fetch libtorch and ONNX Runtime into .runtime/

$(STAMP):
	@echo "==> fetching torch $(TORCH_VERSION) and onnxruntime $(ONNXRUNTIME_VERSION) into $(RUNTIME) (about 5 GB, once)"
	@mkdir -p $(RUNTIME)
	python3 -m venv $(RUNTIME)/python
	$(PYTHON) -m pip install --disable-pip-version-check torch==$(TORCH_VERSION) onnxruntime==$(ONNXRUNTIME_VERSION)
	@# One path whatever the version of Python and of the library.
	@ln -sfn "$$(basename $$(ls -d $(RUNTIME)/python/lib/python3.*))" $(RUNTIME)/python/lib/python3
	@ln -sf libonnxruntime.so.$(ONNXRUNTIME_VERSION) $(SITE)/onnxruntime/capi/libonnxruntime.so
	@touch $@

.PHONY: clients
clients: $(RUNTIME)/clients/installed ## Fetch the clients that tests drive (tritonclient) into .runtime/

$(RUNTIME)/clients/installed: tests/clients/requirements.txt
	python3 -m venv $(RUNTIME)/clients
	$(RUNTIME)/clients/bin/python -m pip install --disable-pip-version-check --quiet --requirement $<
	@touch $@

.PHONY: prerequisites
prerequisites:
	@command -v rustup >/dev/null || { echo "rustup is missing. Install it: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"; exit 1; }
	@command -v python3 >/dev/null || { echo "Python 3 is missing. Install it: sudo apt-get install python3 python3-venv"; exit 1; }
	@python3 -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv is missing. Install it: sudo apt-get install python3-venv"; exit 1; }
	@command -v c++ >/dev/null || { echo "A C++ compiler is missing. Install it: sudo apt-get install g++"; exit 1; }
	@command -v cc >/dev/null || { echo "A C compiler is missing. Install it: sudo apt-get install gcc"; exit 1; }
	@rustup show active-toolchain >/dev/null 2>&1 || rustup toolchain install

.PHONY: clean
clean: ## Remove build output; .runtime/ stays
	cargo clean
