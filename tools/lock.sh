#!/usr/bin/env bash
# Regenerates requirements/run.txt and requirements/test.txt from pyproject.toml (what a maintainer runs: `make lock`).
#
#   tools/lock.sh                     take up changes of pyproject.toml, keep every other pin
#   tools/lock.sh --upgrade           the newest versions of everything
#   tools/lock.sh -P aiohttp          the newest version of one package
#
# The files are hash-pinned, serve every platform and Python 3.11 to 3.13, and name no package index. uv resolves
# them and is used nowhere else: installing needs only the pip that comes with Python (see tools/bootstrap.py).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if ! command -v uv >/dev/null; then
    echo "lock: uv is not on PATH; putting it into a throw-away environment" >&2
    "${PYTHON:-python3}" -m venv "$scratch/uv"
    "$scratch/uv/bin/pip" install --quiet --disable-pip-version-check uv
    PATH="$scratch/uv/bin:$PATH"
fi

# The build backend goes into both files: the project is installed with --no-build-isolation, so that nothing
# unpinned is ever fetched.
"${PYTHON:-python3}" - >"$scratch/build.in" <<'PYTHON'
import tomllib

with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["build-system"]["requires"], sep="\n")
PYTHON

compile() { # compile NAME [uv option ...]
    local name=$1
    shift
    if [[ -f requirements/$name.txt ]]; then cp "requirements/$name.txt" "$scratch/$name.txt"; fi # the pins to keep
    # fewest: one version of each package for all Pythons, so that what is tested on one is what runs on another
    uv --no-config --quiet pip compile pyproject.toml "$scratch/build.in" --universal --python-version 3.11 \
        --fork-strategy fewest --only-binary :all: --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links --output-file "$scratch/$name.txt" "$@"
    if grep -nE '://|^ *-(-?(extra-)?index|-find-links|i |f )' "$scratch/$name.txt"; then
        echo "lock: requirements/$name.txt would name an address (above); not written" >&2
        exit 1
    fi
}

compile test --extra dev "$@"
# The same versions to run as were tested, and only those.
sed -e 's/ *\\$//' -e '/^ *--hash/d' "$scratch/test.txt" >"$scratch/pins.in"
compile run --constraint "$scratch/pins.in"

for name in run test; do
    {
        echo "# Written by tools/lock.sh from pyproject.toml. Do not edit."
        grep -v '^ *#' "$scratch/$name.txt"
    } >"requirements/$name.txt"
    echo "lock: requirements/$name.txt pins $(grep -c '==' "requirements/$name.txt") packages" >&2
done
