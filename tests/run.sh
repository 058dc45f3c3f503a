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
