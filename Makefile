# Parley. "make run" builds and starts a node; "make help" lists the rest.

GO      ?= go
DATA    ?=
ARGS    ?=
FUZZTIME ?= 10s
TESTFLAGS ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.0.0-dev)

# opusfile is not used; the tag leaves it out of the Opus binding.
TAGS    := nolibopusfile
BUILD   := -tags $(TAGS) -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
export CGO_ENABLED := 1
export GO

.PHONY: help deps build run test vet staticcheck race fuzz generate fresh interop check image clean

help:
	@echo 'make build     build bin/parley'
	@echo 'make run       install what is missing, build, start a node (DATA=dir, ARGS="--http.listen=:8081")'
	@echo 'make test      vet and test (TESTFLAGS=-v)'
	@echo 'make interop   drive real browsers and SIP phones'
	@echo 'make generate  write generated files anew'
	@echo 'make check     all that CI does: vet, staticcheck, race, fuzz, generated files'
	@echo 'make image     build the container image with podman or buildah'

# Go is checked; missing Debian packages are installed when root, else named.
deps:
	@deploy/prepare.sh install

build: deps
	$(GO) build $(BUILD) -o bin/parley ./cmd/parley

# The node gets the terminal and its signals; a port that is taken is named with
# the setting to change, which ARGS can set.
run: build
	@exec bin/parley up $(if $(DATA),--data '$(DATA)') $(ARGS)

vet: deps
	$(GO) vet -tags $(TAGS) ./...

test: vet
	$(GO) test -tags $(TAGS) $(TESTFLAGS) ./...

staticcheck: deps
	$(GO) tool staticcheck -tags $(TAGS) ./...

race: deps
	$(GO) test -tags $(TAGS) -race -short ./...

# Every fuzz target of every package, FUZZTIME each.
fuzz: deps
	FUZZTIME=$(FUZZTIME) test/fuzz.sh

generate: deps
	$(GO) run -tags $(TAGS) ./cmd/asyncapi
	$(GO) run -tags $(TAGS) ./cmd/parley config sample --out deploy/parley.yaml

# Generating must change nothing that is committed.
fresh: generate
	@git diff --exit-code --stat || { echo 'generated files are stale: commit what "make generate" writes' >&2; exit 1; }

interop: build
	test/interop/run.sh

check: vet staticcheck race fuzz fresh build

image:
	@tool=$$(command -v podman || command -v buildah) || { echo 'podman or buildah is needed' >&2; exit 1; }; \
	exec "$$tool" build --build-arg VERSION='$(VERSION)' -t parley:latest -f deploy/Containerfile .

clean:
	rm -rf bin
