"""What the wrappers of other load testers share: run one, bound its time, clean up after it."""
import argparse
import ctypes
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time


def log(*args):
    print(*args, file=sys.stderr, flush=True)


def descendants():
    """Process ids below this one, deepest last."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    parents[int(entry)] = int(stat.read().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                pass
    found, frontier = [], [os.getpid()]
    while frontier:
        frontier = [pid for pid, parent in parents.items() if parent in frontier]
        found += frontier
    return found


def end_children():
    """End and reap every process below this one, also those that left our session."""
    for signum, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + patience
        sent = set()
        while time.monotonic() < deadline:
            for pid in set(descendants()) - sent:
                sent.add(pid)
                try:
                    os.kill(pid, signum)
                except OSError:
                    pass
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            time.sleep(0.05)


def run_tool(command, env, cwd, limit):
    """Run the tool with its output on our stderr; returns its exit status, None when out of time."""
    libc = ctypes.CDLL(None)
    libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans come to us
    child = subprocess.Popen(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL,
                             stdout=sys.stderr.fileno(), stderr=sys.stderr.fileno(),
                             start_new_session=True,
                             preexec_fn=lambda: libc.prctl(1, signal.SIGTERM, 0, 0, 0))  # PR_SET_PDEATHSIG
    try:
        return child.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        return None


def environment(folder, **extra):
    """Environment without proxies, with home, caches and temp files inside the temp folder."""
    env = {k: v for k, v in os.environ.items()
           if not k.lower().endswith("_proxy") and not k.startswith(("LOCUST_", "AIPERF_", "GUIDELLM_"))}
    env.update(HOME=folder, TMPDIR=folder, XDG_CACHE_HOME=f"{folder}/cache", XDG_CONFIG_HOME=f"{folder}/config",
               NO_PROXY="*", no_proxy="*", NO_COLOR="1", PYTHONUNBUFFERED="1",
               DO_NOT_TRACK="1", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_DATASETS_OFFLINE="1",
               HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false", OTEL_SDK_DISABLED="true", **extra)
    return env


def version_of(tool, venv):
    found = glob.glob(f"{venv}/lib/python*/site-packages/{tool}-*.dist-info")
    return os.path.basename(found[0])[len(tool) + 1:-len(".dist-info")] if found else None


def main(tool, about, add_arguments, prepare, results):
    """Run a tool as the command line says, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--venv", required=True, help=f"venv in which {tool} is installed")
    parser.add_argument("--url", required=True, help="base URL without /v1, such as http://127.0.0.1:8089")
    parser.add_argument("--model", required=True)
    parser.add_argument("--streams", type=int, default=300)
    parser.add_argument("--seconds", type=int, default=40)
    parser.add_argument("--ramp", type=float, default=0.0, help="seconds in which the streams start; 0 is all at once")
    add_arguments(parser)
    args = parser.parse_args()
    args.url = args.url.rstrip("/")
    venv = os.path.abspath(args.venv)
    version = version_of(tool, venv)
    if version is None:
        log(f"{tool}: not installed in {venv}")
        return 2

    def stop(signum, _frame):
        raise SystemExit(128 + signum)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, stop)

    folder = tempfile.mkdtemp(prefix="lt-")
    try:
        command, env = prepare(args, venv, folder)
        limit = args.seconds + 120
        log(f"{tool} {version}:", " ".join(command))
        status = run_tool(command, env, folder, limit)
        if status is None:
            log(f"{tool}: did not end within {limit} s")
            return 3
        if status != 0:
            log(f"{tool}: exit status {status}")
            return 4
        try:
            requests, p50, p99 = results(folder)
        except Exception as error:  # a missing or changed report file
            log(f"{tool}: no usable report: {type(error).__name__}: {error}")
            return 5
        if not requests:
            log(f"{tool}: no successful request")
            return 6
        print(json.dumps({"tool": tool, "version": version, "requests": int(requests),
                          "ttft_p50_ms": round(float(p50), 3), "ttft_p99_ms": round(float(p99), 3)}), flush=True)
        return 0
    finally:
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)
        end_children()
        shutil.rmtree(folder, ignore_errors=True)
