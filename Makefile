# Two commands do everything: `make demo` serves, `make test` proves.
.PHONY: demo test setup plugins fmt clippy

VENV := .venv

# Finds or installs what the builds need beyond a Rust toolchain; says what it did, once.
setup:
	@tests/setup.sh

plugins: setup
	cargo run --quiet --release -p plugin-build -- --out target/plugins $(wildcard plugins/*)

demo: setup
	cargo build --release -p server
	$(MAKE) --no-print-directory plugins
	cargo run --quiet --release -p server -- demo

test: setup $(VENV)/.ready
	cargo test --workspace

# The openai package, unmodified, is one of the clients under test.
$(VENV)/.ready: tests/clients/requirements.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -r tests/clients/requirements.txt
	touch $@

fmt:
	cargo fmt --all --check

clippy: setup
	cargo clippy --workspace --all-targets -- -D warnings
