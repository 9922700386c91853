#!/bin/sh
# A virtual environment from the lock. Says what is missing, and the package that has it.
set -eu
venv=$1
for python in python3.12 python3.11 python3; do
  if command -v "$python" >/dev/null 2>&1 && "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then
    found=$python
    break
  fi
done
if [ -z "${found:-}" ]; then
  echo "ORC needs Python 3.11 or 3.12 (Debian: apt-get install python3.11 python3.11-venv python3.11-dev)" >&2
  exit 1
fi
if ! command -v cc >/dev/null 2>&1 && ! command -v gcc >/dev/null 2>&1; then
  echo "ORC needs a C compiler to build durable-rules (Debian: apt-get install build-essential)" >&2
  exit 1
fi
include=$("$found" -c 'import sysconfig; print(sysconfig.get_path("include"))')
if [ ! -f "$include/Python.h" ]; then
  echo "ORC needs the headers of $found to build durable-rules: $include/Python.h is missing (Debian: apt-get install $("$found" -c 'import sys; print("python%d.%d-dev" % sys.version_info[:2])'))" >&2
  exit 1
fi
if ! "$found" -c 'import venv, ensurepip' 2>/dev/null; then
  echo "ORC needs the venv module of $found (Debian: apt-get install $("$found" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'))" >&2
  exit 1
fi
echo "setting up $venv with $found (once, a minute or two)"
"$found" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements.txt
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
