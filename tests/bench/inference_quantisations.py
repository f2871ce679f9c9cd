"""Compares quantisations of one model: size, speed, perplexity on a fixed text, and cost of a thousand tokens.

    make bench-quantisations
    python tests/bench/inference_quantisations.py [--model FILE] [--types Q4_0 Q8_0 ...] [--tokens 48] [--plot FILE.svg]

The packaged model comes as Q4_1 (with some matrices in other types); the others are made from it with ggml's own library (`gguf`): dequantised
and quantised again, tensor by tensor; vectors stay F32. So **none of them can be better than the source** here, and F16 shows what the
arithmetic costs, not what was lost: give `--model` an unquantised GGUF to see that. Perplexity is exp of the mean negative log probability of
each token of perplexity.txt after the ones before it. The cost is CPU seconds times `--price` a core-hour.
"""

from __future__ import annotations

import argparse
import asyncio
import html
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

TEXT = Path(__file__).parent / "perplexity.txt"
TYPES = ("F16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")
CONTEXT = 512


@dataclass(frozen=True)
class Result:
    """What one file is worth."""

    name: str
    mib: float
    tokens_per_second: float
    cpu_ms_per_token: float
    perplexity: float
    resident_mib: int

    def cost(self, price_per_core_hour: float) -> float:
        """Of 1,000 generated tokens."""
        return self.cpu_ms_per_token / 3600 * price_per_core_hour


# ---- making a file --------------------------------------------------------------------------------------------------------


def requantise(source: Path, target: Path, type_name: str) -> None:
    """Writes the model with all its matrices as `type_name`; metadata is copied."""
    import gguf

    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, architecture)
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in ("general.architecture", "general.file_type"):
            inner = field.types[-1] if field.types[0] is gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    file_type = {"F16": "MOSTLY_F16"}.get(type_name, f"MOSTLY_{type_name}")
    writer.add_file_type(gguf.LlamaFileType[file_type])
    wanted = gguf.GGMLQuantizationType[type_name]
    for tensor in reader.tensors:
        if len(tensor.shape) < 2:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        else:
            plain = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            writer.add_tensor(tensor.name, gguf.quants.quantize(plain, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# ---- measuring a file: in a child process, so that its memory is its own -----------------------------------------------------


def measure_main(path: Path, tokens: int, rounds: int, text_tokens: int) -> None:
    print(json.dumps(asyncio.run(measure(path, tokens, rounds, text_tokens)).__dict__))


async def measure(path: Path, tokens: int, rounds: int, text_tokens: int) -> Result:
    from sluice_inference.adapters import gguf as gguf_header
    from sluice_inference.adapters.llama_cpp.backend import LlamaCpp, LlamaCppOptions, model_facts

    facts = gguf_header.read_facts(path)
    model = model_facts(facts, model_id="m", aliases=(), digest="", context_tokens=CONTEXT, most_output_tokens=500)
    backend = LlamaCpp(LlamaCppOptions(path, 1, CONTEXT, 0), model=model, gguf=facts)
    await backend.load()
    spells = [await generate(backend, tokens) for _ in range(rounds + 1)][1:]
    perplexity, resident = await perplexity_of(backend, text_tokens), resident_mib()
    await backend.close()
    return Result(
        name=facts.quant_algo,
        mib=path.stat().st_size / 2**20,
        tokens_per_second=statistics.median(tokens / seconds for seconds, _ in spells),
        cpu_ms_per_token=statistics.median(1000 * cpu / tokens for _, cpu in spells),
        perplexity=perplexity,
        resident_mib=resident,
    )


async def generate(backend: Any, tokens: int) -> tuple[float, float]:
    """Seconds and CPU seconds of an answer of so many tokens."""
    from sluice_inference.domain.generation import Generation, RawPrompt, Stopping

    generation = Generation(
        "r", "m", RawPrompt("The sea is"), backend.model.default_sampling, Stopping(max_tokens=tokens, ignore_eos=True)
    )
    began, cpu = time.perf_counter(), time.process_time()
    await steps_of(backend, generation)
    return time.perf_counter() - began, time.process_time() - cpu


async def steps_of(backend: Any, generation: Any) -> list[Any]:
    run = backend.start(generation, slot=0, may_reuse_cache=True)
    steps = [step async for step in run]
    await run.closed()
    return steps


async def perplexity_of(backend: Any, most_tokens: int) -> float:
    """Each next token is forced by its bias; its log probability is told as it was before the bias."""
    ids = tokenise(backend, TEXT.read_text(encoding="utf-8"))[: most_tokens + 1]
    losses = [-await log_probability(backend, ids[:place], ids[place]) for place in range(1, len(ids))]
    return math.exp(statistics.fmean(losses))


def tokenise(backend: Any, text: str) -> list[int]:
    """Over llama.cpp's loopback port: the in-process interface has no tokeniser."""
    request = urllib.request.Request(
        backend._server.listening_address + "/tokenize",
        data=json.dumps({"content": text}).encode(),
        headers={"Authorization": f"Bearer {backend._key}", "Content-Type": "application/json"},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        return list(json.load(answer)["tokens"])


async def log_probability(backend: Any, before: list[int], token: int) -> float:
    from sluice_inference.domain.backend import NewTokens
    from sluice_inference.domain.generation import Generation, Sampling, Stopping, TokenPrompt

    sampling = Sampling(temperature=0.0, repetition_penalty=1.0, logit_bias=((token, 1000.0),)).over(
        backend.model.default_sampling
    )
    generation = Generation(
        "p", "m", TokenPrompt(tuple(before)), sampling, Stopping(max_tokens=1, ignore_eos=True), logprobs=0
    )
    found = [
        one for step in await steps_of(backend, generation) if isinstance(step, NewTokens) for one in step.logprobs
    ]
    assert found and found[0].token_id == token, "the token was not forced"
    return float(found[0].logprob)


def resident_mib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1024


def measure_apart(path: Path, *, tokens: int, rounds: int, text_tokens: int) -> Result:
    command = [sys.executable, __file__, "--measure", str(path)]
    command += ["--tokens", str(tokens), "--rounds", str(rounds), "--text-tokens", str(text_tokens)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    if done.returncode:
        raise SystemExit(done.stderr)
    return Result(**json.loads(done.stdout.splitlines()[-1]))


# ---- telling ----------------------------------------------------------------------------------------------------------------


def table(results: list[Result], price: float) -> str:
    lines = [
        "| type | MiB | resident MiB | tokens/s | CPU ms a token | perplexity | cost of 1,000 tokens |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.name} | {one.mib:.0f} | {one.resident_mib} | {one.tokens_per_second:.1f} | {one.cpu_ms_per_token:.1f} "
        f"| {one.perplexity:.2f} | {one.cost(price):.6f} |"
        for one in results
    ]
    return "\n".join(lines)


def plot(results: list[Result]) -> str:
    """Perplexity over CPU milliseconds a token, as SVG; the area of a dot is the file's size."""
    width, height, edge = 640, 400, 60
    xs, ys = [one.cpu_ms_per_token for one in results], [one.perplexity for one in results]

    def place(value: float, values: list[float], length: int) -> float:
        low, high = min(values), max(values)
        return edge + (value - low) / ((high - low) or 1.0) * (length - 2 * edge)

    dots = []
    for one in results:
        x, y = place(one.cpu_ms_per_token, xs, width), height - place(one.perplexity, ys, height)
        dots.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{math.sqrt(one.mib):.1f}" fill="#3b7dd8" fill-opacity="0.6"/>'
        )
        dots.append(f'<text x="{x:.1f}" y="{y - 14:.1f}" text-anchor="middle">{html.escape(one.name)}</text>')
    axes = (
        f'<path d="M{edge},{edge / 2:.0f} V{height - edge / 2:.0f} H{width - edge / 2:.0f}" fill="none" stroke="#888"/>'
        f'<text x="{width / 2}" y="{height - 8}" text-anchor="middle">CPU ms a token ({min(xs):.1f} to {max(xs):.1f}), less is cheaper</text>'
        f'<text x="16" y="{height / 2}" text-anchor="middle" transform="rotate(-90 16 {height / 2})">'
        f"perplexity ({min(ys):.2f} to {max(ys):.2f}), less is better</text>"
    )
    body = "\n".join([axes, *dots])
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">\n{body}\n</svg>\n'


def compare(options: argparse.Namespace) -> None:
    from sluice_inference.adapters import model_file

    source = options.model or model_file.locate_packaged()
    given = measure_apart(source, tokens=options.tokens, rounds=options.rounds, text_tokens=options.text_tokens)
    results = [replace(given, name=f"{given.name}, as it came")]
    with tempfile.TemporaryDirectory() as folder:
        for type_name in options.types:
            path = Path(folder) / f"{type_name}.gguf"
            requantise(source, path, type_name)
            results.append(
                measure_apart(path, tokens=options.tokens, rounds=options.rounds, text_tokens=options.text_tokens)
            )
            path.unlink()
            print(results[-1], file=sys.stderr, flush=True)
    print(table(results, options.price))
    texts = f"{options.rounds} rounds of {options.tokens} tokens, {options.text_tokens} tokens of text"
    print(f"{texts}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    if options.plot:
        options.plot.write_text(plot(results), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="GGUF to start from; the packaged one by default")
    parser.add_argument("--types", nargs="+", default=list(TYPES), choices=TYPES)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--text-tokens", type=int, default=250)
    parser.add_argument("--price", type=float, default=0.04, help="of a core-hour, in any currency")
    parser.add_argument("--plot", type=Path, help="where to write an SVG")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure_main(options.measure, options.tokens, options.rounds, options.text_tokens)
    else:
        compare(options)


if __name__ == "__main__":
    main()
