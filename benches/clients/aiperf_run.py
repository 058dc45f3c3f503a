#!/usr/bin/env python3
"""Load an OpenAI-compatible server with NVIDIA AIPerf and print its TTFT percentiles."""
import glob
import json
import os
import sys

import common

def add_arguments(parser):
    parser.add_argument("--workers", type=int, default=0, help="worker processes; 0 leaves AIPerf's default")


def write_tokenizer(home):
    """A tiny tokenizer, laid out as one in the hub's local cache: offline, AIPerf takes no plain folder."""
    revision = "0" * 40
    model = f"{home}/hub/models--local--words"
    folder = f"{model}/snapshots/{revision}"
    os.makedirs(folder)
    os.mkdir(f"{model}/refs")
    with open(f"{model}/refs/main", "w") as file:
        file.write(revision)
    words = ["<unk>", "<s>", "</s>"] + [f"w{i}" for i in range(97)]
    with open(f"{folder}/tokenizer.json", "w") as file:
        json.dump({"version": "1.0", "truncation": None, "padding": None, "added_tokens": [
            {"id": i, "content": words[i], "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True} for i in range(3)],
            "normalizer": None, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
            "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)},
                      "unk_token": "<unk>"}}, file)
    with open(f"{folder}/tokenizer_config.json", "w") as file:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "bos_token": "<s>",
                   "eos_token": "</s>", "model_max_length": 1000000}, file)


def prepare(args, venv, folder):
    write_tokenizer(f"{folder}/hf")
    # Each request needs its own prompt: one that repeats would get the same reply and the same timing.
    with open(f"{folder}/prompts.jsonl", "w") as file:
        for number in range(1, args.streams * (args.seconds + 10) + 1):
            file.write(json.dumps({"text": f"Tell me short story number {number}."}) + "\n")
    command = [f"{venv}/bin/aiperf", "profile", "--model", args.model, "--url", args.url,
               "--endpoint-type", "chat", "--streaming",
               "--concurrency", str(args.streams),
               "--benchmark-duration", str(args.seconds), "--benchmark-grace-period", "60",
               "--input-file", f"{folder}/prompts.jsonl", "--custom-dataset-type", "single_turn",
               "--dataset-sampling-strategy", "sequential",
               "--tokenizer", "local/words", "--use-server-token-count",
               "--no-gpu-telemetry", "--no-server-metrics", "--ui", "none",
               "--export-level", "summary", "--artifact-dir", f"{folder}/artifacts"]
    if args.ramp:
        command += ["--concurrency-ramp-duration", str(args.ramp)]
    if args.workers:
        command += ["--workers-max", str(args.workers)]
    return command, common.environment(folder, HF_HOME=f"{folder}/hf")


def results(folder):
    [path] = glob.glob(f"{folder}/artifacts/**/profile_export_aiperf.json", recursive=True)
    with open(path) as file:
        report = json.load(file)
    errors = (report.get("error_request_count") or {}).get("avg") or 0
    if errors:
        common.log(f"aiperf: {errors:.0f} requests failed")
    ttft = report["time_to_first_token"]
    if ttft["unit"] != "ms":
        raise ValueError(f"unit {ttft['unit']}")
    return report["request_count"]["avg"], ttft["p50"], ttft["p99"]


if __name__ == "__main__":
    sys.exit(common.main("aiperf", __doc__, add_arguments, prepare, results))
