#!/usr/bin/env python3
"""Load an OpenAI-compatible server with Locust (one process, headless) and print its TTFT percentiles."""
import json
import sys

import common

LOCUSTFILE = '''
import itertools
import json
import os
import time

from locust import FastHttpUser, HttpUser, constant, events

MODEL = os.environ["LT_MODEL"]
NUMBERS = itertools.count(1)
PATH = "/v1/chat/completions"


def consume(lines, start):
    """Milliseconds to the first non-empty content; raises when the stream does not end with [DONE]."""
    first = None
    for line in lines:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            if first is None:
                raise ValueError("stream without content")
            return first
        if first is None:
            choices = json.loads(data).get("choices")
            if choices and choices[0].get("delta", {}).get("content"):
                first = (time.perf_counter() - start) * 1000
    raise ValueError("stream ended without [DONE]")


def chat(user):
    prompt = f"Tell me short story number {next(NUMBERS)}."
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": prompt}]}
    start = time.perf_counter()
    with user.client.post(PATH, json=body, stream=True, catch_response=True) as response:
        try:
            if response.status_code != 200:
                raise ValueError(f"status {response.status_code}")
            lines = user.lines(response)
            ttft = consume(lines, start)
            for _ in lines:  # to the end of the body, so that the connection is used again
                pass
        except Exception as error:
            response.failure(repr(error))
            return
        response.success()
    user.environment.events.request.fire(request_type="TTFT", name="ttft", response_time=ttft,
                                         response_length=0, exception=None, context={})


if os.environ["LT_CLIENT"] == "requests":
    class ChatUser(HttpUser):
        wait_time = constant(0)
        tasks = [chat]

        def lines(self, response):
            return response.iter_lines()
else:
    class ChatUser(FastHttpUser):
        wait_time = constant(0)
        tasks = [chat]
        network_timeout = connection_timeout = 60.0

        def lines(self, response):
            # Not FastHttpSession.iter_lines() or iter_content(): they wait for 1024 bytes before each step,
            # which delays the first token by several others (3 to 4 here: about 160 ms).
            readline = response.stream.readline
            return iter(lambda: readline(b"\\n"), b"")


@events.quitting.add_listener
def report(environment, **_):
    # Locust's own percentiles. Not from the --csv files: their last state is from before
    # the replies that end after the run time.
    ttft = environment.stats.get("ttft", "TTFT")
    with open(os.environ["LT_REPORT"], "w") as file:
        json.dump({"requests": ttft.num_requests, "failures": environment.stats.total.num_failures,
                   "p50": ttft.get_response_time_percentile(0.50),
                   "p99": ttft.get_response_time_percentile(0.99)}, file)
'''


def add_arguments(parser):
    parser.add_argument("--client", choices=("fast", "requests"), default="fast",
                        help="FastHttpUser (geventhttpclient) or HttpUser (requests)")


def prepare(args, venv, folder):
    with open(f"{folder}/locustfile.py", "w") as file:
        file.write(LOCUSTFILE)
    # In-flight replies may end after the run time: --stop-timeout lets users finish their task.
    command = [f"{venv}/bin/locust", "-f", f"{folder}/locustfile.py", "--headless", "--host", args.url,
               "--users", str(args.streams),
               "--spawn-rate", str(args.streams / args.ramp if args.ramp else args.streams),
               "--run-time", f"{args.seconds}s", "--stop-timeout", "60",
               "--only-summary", "--exit-code-on-error", "0", "--loglevel", "WARNING"]
    return command, common.environment(folder, LT_MODEL=args.model, LT_CLIENT=args.client, LT_REPORT=f"{folder}/report.json")


def results(folder):
    with open(f"{folder}/report.json") as file:
        report = json.load(file)
    if report["failures"]:
        common.log(f"locust: {report['failures']} requests failed; the TTFT is over the others")
    return report["requests"], report["p50"], report["p99"]


if __name__ == "__main__":
    sys.exit(common.main("locust", __doc__, add_arguments, prepare, results))
