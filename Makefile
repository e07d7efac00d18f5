# The words to know are listed by `make help`, which prints the comments that begin with ##. All that is made goes into
# build/, one folder for each nginx that the module is compiled against; what takes more than a few lines is in tools/.

.DEFAULT_GOAL := help

# Most steps use all processors, and cargo and apt wait for each other's locks. What may be made at the same time all the
# same is said where `test` calls tools/parts.sh.
.NOTPARALLEL:

.PHONY: help build build-debian build-with demo test unit unit-with unit-debian check check-debian prove prove-1.28 \
	prove-junk prove-debian prove-deaths prove-bare newer tree-forky check-forky build-forky prove-forky tree-1.28 \
	tree-debian-objs junk bare asan audit bench hazard hazard-fuzz hazard-members hazard-1.28 hazard-debian hazard-deaths \
	hazard-asan hazard-parts clean

# The files that `make prove` runs: make prove TESTS=t/status.t
TESTS ?= t/*.t

# Those that `make newer` runs: what only a newer nginx has, and servers that come and go there.
NEWER ?= t/sticky.t t/pools_sticky.t t/members.t t/members_methods.t

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

build: tree-1.28 ## the module for nginx 1.28, and that nginx, into build/nginx-1.28
	@tools/module.sh nginx-1.28

build-debian: ## the module for Debian's nginx, into build/debian
	@tools/prerequisites.sh build debian
	@tools/debian-tree.sh debian
	@tools/module.sh debian

build-with: ## the module for your nginx: NGINX_SOURCE_DIR=/path make build-with
	@tools/prerequisites.sh build
	@name=$$(tools/with-tree.sh "$(NGINX_SOURCE_DIR)") && tools/module.sh "$$name"

demo: build ## a running nginx to try the module on; Ctrl-C ends it
	@tools/demo.sh

# In an order that finds the cheap mistakes first. Each part is a word that can be called alone. What is compiled for two
# nginxes is compiled for both at the same time: much of it keeps one processor busy, and they share no folder.
test: ## everything: check, unit and the tests in t/, on both nginxes
	@tools/prerequisites.sh build check debian test
	@MAKE="$(MAKE)" tools/parts.sh tree-1.28+tree-debian-objs+bare check+check-debian unit+unit-debian \
		build+build-debian prove-1.28 prove-bare junk prove-junk prove-deaths prove-debian

unit: tree-1.28 ## the tests in the crates, without nginx and against nginx's objects
	@tools/in-tree.sh nginx-1.28 cargo test --locked --workspace
	@# nginx's code has one thread, cargo's test runner has many
	@tools/in-tree.sh nginx-1.28 cargo test --locked --features nginx-objs -- --test-threads=1

unit-with: ## the same against the objects of your nginx, which is built: NGINX_SOURCE_DIR=/path make unit-with
	@tools/prerequisites.sh build
	@name=$$(tools/with-tree.sh "$(NGINX_SOURCE_DIR)") && tools/nginx-objs.sh "$(CURDIR)/build/$$name" && \
		tools/in-tree.sh "$$name" cargo test --locked --features nginx-objs -- --test-threads=1

# What is compiled for the older kind of nginx only.
unit-debian: tree-debian-objs
	@tools/in-tree.sh debian-objs cargo test --locked --features nginx-objs -- --test-threads=1

# For those who change the code, so that public items may refer to private ones.
DOC = --locked --no-deps --document-private-items
RUSTDOCFLAGS = -D warnings -A rustdoc::private-intra-doc-links

check: tree-1.28 ## formatting, lints, the links of the documentation, and the fuzz targets on their seeds
	@tools/prerequisites.sh check
	@shellcheck tools/*.sh .ci/run
	@# variables of nginx's configure
	@shellcheck --shell=sh --exclude=SC2154 config config.make
	@cargo fmt --all --check
	@tools/in-tree.sh nginx-1.28 cargo clippy --locked --workspace --all-targets -- -D warnings
	@tools/in-tree.sh nginx-1.28 cargo clippy --locked --all-targets --features nginx-objs -- -D warnings
	@RUSTDOCFLAGS="$(RUSTDOCFLAGS)" tools/in-tree.sh nginx-1.28 cargo doc $(DOC) --workspace
	@tools/fuzz.sh check

check-debian: tree-debian-objs
	@tools/prerequisites.sh check
	@tools/in-tree.sh debian-objs cargo clippy --locked --all-targets -- -D warnings
	@tools/in-tree.sh debian-objs cargo clippy --locked --all-targets --features nginx-objs -- -D warnings
	@RUSTDOCFLAGS="$(RUSTDOCFLAGS)" tools/in-tree.sh debian-objs cargo doc $(DOC)

prove: prove-1.28 prove-debian ## the tests in t/, on both nginxes; TESTS=t/x.t for one of them

prove-1.28: build
	@tools/prerequisites.sh test
	@tools/prove.sh nginx-1.28 "$(CURDIR)/build/nginx-1.28/nginx" $(TESTS)

# Servers that come and go, on an nginx that shows what is used after it was freed.
prove-junk: build junk
	@tools/prerequisites.sh test
	@tools/prove.sh nginx-1.28 "$(CURDIR)/build/nginx-1.28-junk/nginx" \
		t/hazard_members.t t/hazard_pools.t t/hazard_retry.t $(wildcard t/members*.t t/pools*.t)

# An nginx without all that can be left out: the module takes nothing from it that is not there.
prove-bare: build bare
	@tools/prerequisites.sh test
	@tools/symbols.sh nginx-1.28
	@tools/prove.sh nginx-1.28 "$(CURDIR)/build/nginx-1.28-bare/nginx" t/parts.t

prove-debian: build-debian
	@tools/prerequisites.sh test
	@tools/symbols.sh debian
	@tools/prove.sh debian /usr/sbin/nginx $(TESTS)

# Workers that die in the middle of a change: a module that is compiled for it.
prove-deaths: tree-1.28
	@tools/prerequisites.sh test
	@tools/deaths.sh nginx-1.28
	@tools/prove.sh deaths/nginx-1.28 "$(CURDIR)/build/nginx-1.28/nginx" t/hazard_deaths.t

# The nginx that the module is tested on, and that its tests are linked with.
tree-1.28:
	@tools/prerequisites.sh build
	@tools/nginx-tree.sh nginx-1.28

# The same nginx, which fills freed memory with junk: what is used after it was freed shows.
junk: tree-1.28
	@tools/nginx-junk.sh

# The objects of Debian's nginx, which no package has: for the tests that are linked with them, and for nothing else.
tree-debian-objs:
	@tools/prerequisites.sh build debian
	@tools/nginx-tree.sh debian-objs -O0

# The same version without all that can be left out.
bare:
	@tools/prerequisites.sh build
	@tools/bare-tree.sh

# The same nginx, which ends with a report when it touches memory that is not its own. Each chunk of a pool is one for
# itself there.
asan:
	@tools/prerequisites.sh build
	@tools/nginx-tree.sh nginx-1.28-asan "-fsanitize=address -fno-omit-frame-pointer -DNGX_DEBUG_PALLOC=1"

# What only a newer nginx has: as tests, t/sticky.t and its like; as code, what build.rs calls nginx_peer_sid.
newer: ## lints and tests on the nginx of Debian's forky, which is newer than the others
	@tools/prerequisites.sh build check test
	@MAKE="$(MAKE)" tools/parts.sh tree-forky check-forky+build-forky prove-forky

tree-forky:
	@tools/prerequisites.sh build debian forky
	@tools/debian-forky.sh
	@tools/debian-tree.sh debian-forky

check-forky: tree-forky
	@tools/in-tree.sh debian-forky cargo clippy --locked --all-targets -- -D warnings

build-forky: tree-forky
	@tools/module.sh debian-forky

prove-forky: build-forky
	@tools/prove.sh debian-forky "$(CURDIR)/build/debian-forky/nginx" $(NEWER)

audit: ## dependencies: known vulnerabilities, licences, duplicates
	@tools/prerequisites.sh audit
	@tools/audit.sh

bench: build build-debian ## what the module costs, in comparison with nginx alone
	@tools/prerequisites.sh test bench
	@bench/run.pl

hazard: ## the long tests under load, on both nginxes; TEST_NGINX_LONG=60 for seconds
	@tools/prerequisites.sh build debian test
	@MAKE="$(MAKE)" TEST_NGINX_LONG="$${TEST_NGINX_LONG:-60}" tools/parts.sh hazard-fuzz build junk hazard-members hazard-1.28 \
		build-debian hazard-debian hazard-deaths asan hazard-asan hazard-parts

# The parsers, on what a fuzzer makes up.
hazard-fuzz:
	@tools/fuzz.sh run "$${TEST_NGINX_LONG:-60}"

# Servers that come and go, 60 seconds for each method: on the nginx that fills freed memory with junk.
hazard-members:
	@tools/prove.sh nginx-1.28 "$(CURDIR)/build/nginx-1.28-junk/nginx" t/hazard_members.t

# The others share out what they are given among their methods.
hazard-1.28:
	@TEST_NGINX_LONG=$$((3 * TEST_NGINX_LONG)) tools/prove.sh nginx-1.28 "$(CURDIR)/build/nginx-1.28/nginx" \
		$(filter-out t/hazard_members.t,$(wildcard t/hazard_*.t))

hazard-debian:
	@tools/prove.sh debian /usr/sbin/nginx t/hazard_members.t
	@TEST_NGINX_LONG=$$((3 * TEST_NGINX_LONG)) tools/prove.sh debian /usr/sbin/nginx \
		$(filter-out t/hazard_members.t,$(wildcard t/hazard_*.t))

# Each kind of change at each moment, on both nginxes.
hazard-deaths: tree-1.28 build-debian
	@tools/deaths.sh nginx-1.28
	@tools/deaths.sh debian
	@TEST_NGINX_LONG=1 tools/prove.sh deaths/nginx-1.28 "$(CURDIR)/build/nginx-1.28/nginx" t/hazard_deaths.t
	@TEST_NGINX_LONG=1 tools/prove.sh deaths/debian /usr/sbin/nginx t/hazard_deaths.t

# All tests, in their short form, on the nginx that watches its memory, with all that it can log.
hazard-asan: build asan
	@tools/prerequisites.sh test
	@unset TEST_NGINX_LONG; TEST_NGINX_LOG_LEVEL=debug ASAN_OPTIONS=detect_leaks=0 TEST_NGINX_TIMEOUT=600 \
		tools/prove.sh nginx-1.28 "$(CURDIR)/build/nginx-1.28-asan/nginx" $(TESTS)

# An nginx without each part that it can be built without.
hazard-parts: build
	@tools/prerequisites.sh test
	@tools/parts-left-out.sh

clean: ## removes build/
	rm -rf build
