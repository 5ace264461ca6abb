# The only entry points; CI calls nothing else. `make demo` and `make test` start from git, make and Python >= 3.11.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(if $(shell $(p) -c \
  'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo y),$(p))))
# The longest first, since as many as AT_ONCE run side by side. They wait a lot, so these are more than most machines
# that run CI have processors.
SCENARIOS ?= drift operations host lockout sshd default provider readme guard
AT_ONCE ?= 3
BIN := .venv/bin
LAB_PACKAGES := acl dpkg-dev iproute2 mmdebstrap nftables openssh-client openssl systemd-container
VM_PACKAGES := e2fsprogs qemu-system-x86
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MOLECULE_GLOB := $(CURDIR)/molecule/*/molecule.yml
export UV_PYTHON_DOWNLOADS := never

.PHONY: help demo test lint unit contract molecule vm lockout lockouts images drifts peers lynis docs bench release release-test lab-packages clean

help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' Makefile

demo: .venv/.ready lab-packages ## Two machines, hardened, attacked, reported; KEEP=1 leaves them running
	@.ci/demo

test: lint unit contract molecule ## Everything that must hold

lint: .venv/.ready ## Style, types, YAML, playbooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/yamllint --strict .
	$(BIN)/ansible-lint --offline -q
	.ci/gitleaks

unit: .venv/.ready ## Pure logic, on every interpreter that is present
	$(BIN)/pytest tests/unit -q -n auto --dist worksteal
	@.ci/other-pythons

contract: .venv/.ready lab-packages ## What the parts promise each other, the double and the real K3s included
	$(BIN)/pytest tests/contract -q -n auto --dist loadfile

molecule: .venv/.ready lab-packages ## Stories on real machines
	@$(BIN)/casemate lab prepare
	@printf '%s\n' $(SCENARIOS) | xargs --max-procs=$(AT_ONCE) --max-args=1 .ci/story

vm: .venv/.ready lab-packages ## The story of a machine with a kernel of its own, emulated: 15 minutes; CASEMATE_LAB_DEBIAN=13 takes the newer Debian
	@.ci/packages $(VM_PACKAGES)
	@$(BIN)/casemate lab prepare --vm --debian $(or $(CASEMATE_LAB_DEBIAN),12)
	@.ci/story vm

lockout: .venv/.ready lab-packages ## Who still becomes root after hardening, as a table
	@$(MAKE) molecule SCENARIOS=lockout

lockouts: .venv/.ready lab-packages ## Ways to lock oneself out, and how soon access is back: docs/lockouts.md
	@$(BIN)/casemate lab prepare
	@CASEMATE_LOCKOUTS="$(CURDIR)/docs/lockouts.new" .ci/story lockouts
	@mv docs/lockouts.new docs/lockouts.md

images: .venv/.ready lab-packages ## Which images a real K3s runs, and who refuses the others: docs/images.md
	@$(BIN)/casemate lab prepare
	@CASEMATE_IMAGES="$(CURDIR)/docs/images.new" .ci/story images
	@mv docs/images.new docs/images.md
	@.ci/story scans

drifts: .venv/.ready lab-packages ## 200 changes by hand that SEED draws, and which of them a check names, as a table
	@.ci/drifts

peers: .venv/.ready lab-packages ## The same changes beside AIDE, debsums, Lynis and kube-bench (its folder: KUBE_BENCH): docs/peers.md
	@.ci/drifts --peers --together $(or $(TOGETHER),100) $(if $(KUBE_BENCH),--kube-bench "$(KUBE_BENCH)") >docs/peers.new
	@mv docs/peers.new docs/peers.md

lynis: .venv/.ready lab-packages ## What Lynis says of a machine as it comes, and hardened at each level: docs/lynis.md; VM=1: docs/lynis-vm.md
	@.ci/packages $(if $(VM),$(VM_PACKAGES))
	@.ci/lynis >docs/lynis.new
	@mv docs/lynis.new docs/lynis$(if $(VM),-vm).md

docs: .venv/.ready ## Generate what is generated
	$(BIN)/casemate docs

bench: .venv/.ready lab-packages ## Ratios to ansible -m ping, to doing it by hand and to dev-sec (its folder: DEV_SEC)
	@failed=0; for part in scale bench; do DEV_SEC="$(DEV_SEC)" PYTHONPATH=tests $(BIN)/python -m bench.$$part || failed=$$?; done; exit $$failed

release: test release-test ## Wheel, sdist, collection and execution environment of the commit, with digests
	@[ -z "$$(git status --porcelain)" ] || { echo "release: commit your changes first" >&2; exit 1; }
	@version=$$($(BIN)/casemate --version | sed 's/.* //'); \
	grep -q "^## $$version" CHANGELOG.md || { echo "release: CHANGELOG.md has no section $$version" >&2; exit 1; }
	@rm -rf dist; .ci/release dist; cat dist/SHA256SUMS; \
	echo "Sign it: ssh-keygen -Y sign -f KEY -n casemate-release dist/SHA256SUMS"

release-test: .venv/.ready lab-packages ## What is released hardens machines; Ansible's sanity tests on the collection; from the package index
	@.ci/sanity
	@$(MAKE) molecule SCENARIOS=release

clean: ## Remove what was built
	rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache dist build

.venv/.ready: uv.lock pyproject.toml .ci/uv.txt
	@.ci/bootstrap "$(PYTHON)"
	@touch $@

lab-packages:
	@.ci/packages $(LAB_PACKAGES)
