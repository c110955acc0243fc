#!/usr/bin/env bash
# Everything that only a GPU can answer, in eight minutes and without a network: the tests of this
# folder, the benches, and two searches end to end.
#
#     tests/gpu/card.sh OUT                on a machine with a GPU; results are in OUT after each part
#     tests/gpu/card.sh OUT --dry-run      the same path on a CPU, with tiny sizes
#     tests/gpu/card.sh OUT --only tests profile --tests tests/gpu/test_fits.py    some of it
#
# Wheels of what the machine lacks lie in .whl/ at the project's root. Fashion-MNIST is read from
# $GPED_DATA; without it the parts that need it are left out. $PYTHON chooses the interpreter.
set -uo pipefail
out=${1:?usage: tests/gpu/card.sh OUT [--dry-run]}
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
shift
export CARD_STARTED
CARD_STARTED=$(date +%s)
cd "$(dirname "$0")/../.." || exit 2

python=${PYTHON:-python3}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT

# The project runs from this folder, and is asked for its version as if it were installed.
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' gped_nas/__init__.py)
mkdir "$site/gped_nas-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: gped-nas\nVersion: %s\n' "$version" \
    >"$site/gped_nas-$version.dist-info/METADATA"

if compgen -G '.whl/*.whl' >/dev/null && ! "$python" -c 'import optuna' 2>/dev/null; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
        --target "$site" .whl/*.whl || echo "not every wheel could be installed" >&2
fi

PYTHONPATH="$site:$PWD${PYTHONPATH:+:$PYTHONPATH}" "$python" -m tests.gpu.card "$out" "$@"
