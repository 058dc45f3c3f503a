#!/usr/bin/env python3
"""Load an OpenAI-compatible server with GuideLLM and print its TTFT percentiles."""
import json
import sys

import common

def add_arguments(parser):
    parser.add_argument("--workers", type=int, default=0, help="worker processes at most; 0 leaves GuideLLM's default")


def prepare(args, venv, folder):
    # Each request needs its own prompt: one that repeats would get the same reply and the same timing.
    with open(f"{folder}/prompts.jsonl", "w") as file:
        for number in range(1, args.streams * (args.seconds + 10) + 1):
            file.write(json.dumps({"prompt": f"Tell me short story number {number}."}) + "\n")
    command = [f"{venv}/bin/guidellm", "run",
               "--backend", f"kind=openai_http,target={args.url},model={args.model},"
                            "request_format=/v1/chat/completions",
               "--profile", f"kind=concurrent,streams={args.streams},rampup_duration={args.ramp:g}",
               "--constraint", f"kind=max_duration,seconds={args.seconds}",
               "--data", f"kind=json_file,path={folder}/prompts.jsonl",
               "--metrics", "kind=generative,sample_size=0",
               "--output", f"kind=json,path={folder}/report.json",
               "--output", "kind=console",
               "--disable-console-interactive"]
    extra = {"GUIDELLM__MAX_WORKER_PROCESSES": str(args.workers)} if args.workers else {}
    return command, common.environment(folder, **extra)


def results(folder):
    with open(f"{folder}/report.json") as file:
        report = json.load(file)
    [benchmark] = report["benchmarks"]
    totals = benchmark["metrics"]["request_totals"]
    if totals["errored"]:
        common.log(f"guidellm: {totals['errored']} requests failed; the TTFT is over the others")
    percentiles = benchmark["metrics"]["time_to_first_token_ms"]["successful"]["percentiles"]
    return totals["successful"], percentiles["p50"], percentiles["p99"]


if __name__ == "__main__":
    sys.exit(common.main("guidellm", __doc__, add_arguments, prepare, results))
