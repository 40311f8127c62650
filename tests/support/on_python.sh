#!/bin/sh
# The pure and stage tests on Python $1, in an environment of its own (build/python-$1), if this machine has that Python.
# The rest of the arguments goes to pytest. Exit 0 also when it is not here, and says so.
set -eu
version=$1
shift
venv=build/python-$version

usable() { "$1" -c "import ensurepip, sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" 2>/dev/null; }

if usable .venv/bin/python; then
    echo "python $version: .venv has it, make test is its test"
    exit 0
fi
python=python$version
if ! usable "$python"; then
    # pyenv has a shim for every version it knows, which fails for all but the selected one
    python=$(pyenv prefix "$version" 2>/dev/null || true)/bin/python
    if ! usable "$python"; then
        echo "python $version: not on this machine, not tested"
        exit 0
    fi
fi

if [ ! -e "$venv/installed-dev" ] || [ pyproject.toml -nt "$venv/installed-dev" ]; then
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
    touch "$venv/installed-dev"
fi
echo "python $version:"
exec "$venv/bin/python" -m pytest -q -m "not timing" tests/pure tests/stages "$@"
