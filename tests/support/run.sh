#!/bin/sh
# A smaller set of tests against the lowest versions of Prefect and Dask that pyproject claims, in an environment of their own.
set -eu
folder=${1:-.support}
mkdir -p "$folder"
python=${PYTHON:-.venv/bin/python}
"$python" -m tests.support.lowest > "$folder/requirements.new"
if ! cmp -s "$folder/requirements.new" "$folder/requirements.txt"; then
  echo "setting up $folder with $(grep -E '^(prefect|distributed)==' "$folder/requirements.new" | tr '\n' ' ')(once, a minute or two)"
  rm -rf "$folder/venv"
  "$python" -m venv "$folder/venv"
  "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$folder/requirements.new"
  mv "$folder/requirements.new" "$folder/requirements.txt"
fi
PYTHONPATH=$PWD exec "$folder/venv/bin/python" -m pytest -q -p no:cacheprovider \
  tests/support tests/integration/test_extension.py tests/runner/test_runner.py
