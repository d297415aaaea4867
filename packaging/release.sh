#!/usr/bin/env bash
# Makes a release step by step, and says each step before it is taken. Publishes nothing: the last lines say how.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(.venv/bin/python -c 'import llama_async_proxy; print(llama_async_proxy.__version__)')
step() { printf '\n== %s\n' "$*"; }
fail() { echo "Not released: $*" >&2; exit 1; }

step "1. The working tree is clean"
[ -z "$(git status --porcelain)" ] || fail "commit or stash first: $(git status --porcelain | head -n 3)"

step "2. CHANGELOG.md has a section for version $version (src/llama_async_proxy/__init__.py)"
grep -qE "^## \[$version\] - [0-9]{4}-[0-9]{2}-[0-9]{2}$" CHANGELOG.md ||
    fail "rename '## [Unreleased]' to '## [$version] - $(date +%F)' and put a new, empty '## [Unreleased]' above it"
if git rev-parse -q --verify "refs/tags/v$version" >/dev/null; then fail "tag v$version exists: raise __version__"; fi

step "3. Every test is green"
make --no-print-directory test

step "4. Wheel and source distribution, with the web UI inside"
rm -rf dist
.venv/bin/uv build --quiet --out-dir dist
ls -l dist

step "5. The wheel installs into an empty environment and answers"
check=$(mktemp -d)
trap 'rm -rf "$check"' EXIT
.venv/bin/uv venv --quiet "$check/venv"
VIRTUAL_ENV="$check/venv" .venv/bin/uv pip install --quiet dist/*.whl
[ "$("$check/venv/bin/llama-async-proxy" --version)" = "llama-async-proxy $version" ] || fail "the wheel reports another version"

step "6. What is left to do by hand"
cat <<EOT
git tag -a v$version -m "Llama Async Proxy $version"
git push origin main v$version
.venv/bin/uv publish dist/*
The notes of the release are the section [$version] of CHANGELOG.md.
EOT
