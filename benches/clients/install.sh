#!/usr/bin/env bash
# Create one venv per load-test client under DIR: DIR/locust, DIR/aiperf, DIR/guidellm.
# Usage: install.sh DIR [tool ...]        (default: all three)
# Idempotent; one tool failing does not stop the others. Exit status: number of tools that failed.
# Which package index is used is left to pip's own configuration.
set -u
if [ $# -lt 1 ]; then echo "usage: $0 DIR [locust|aiperf|guidellm ...]" >&2; exit 64; fi
dir=$1; shift
[ $# -gt 0 ] || set -- locust aiperf guidellm
python=${PYTHON:-python3}
mkdir -p "$dir" || exit 1

pins() {
  case $1 in
    locust)   echo "locust==2.47.0" ;;
    aiperf)   echo "aiperf==0.13.0" ;;
    guidellm) echo "guidellm==0.8.1" ;;
    *) return 1 ;;
  esac
}

install_one() {
  tool=$1
  want=$(pins "$tool") || { echo "$tool: unknown tool" >&2; return 1; }
  venv=$dir/$tool
  if [ -f "$venv/.installed" ] && [ "$(cat "$venv/.installed")" = "$want" ]; then
    echo "$tool: already installed ($want)"; return 0
  fi
  start=$(date +%s)
  rm -f "$venv/.installed"
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || { echo "$tool: venv failed" >&2; return 1; }
  "$venv/bin/python" -m pip install --disable-pip-version-check --quiet "$want" || { echo "$tool: pip install failed" >&2; return 1; }
  echo "$want" > "$venv/.installed"
  echo "$tool: installed ($want) in $(( $(date +%s) - start )) s, $(du -sm "$venv" | cut -f1) MiB"
}

failed=0
for tool in "$@"; do install_one "$tool" || failed=$((failed + 1)); done
exit "$failed"
