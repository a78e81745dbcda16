#!/usr/bin/env python3
"""E on tokens that the solver has not seen: stories260K, real activations.

    python3 docs/bench/solver_heldout.py BUILD DATA [--threads T]

A forward pass in NumPy (float32) over TinyStories documents 500..627, each cut at 512 tokens (48,324 tokens), gives
the inputs of every linear. H comes from tokens of the first half, E is measured with the H of the second half. Prints
one table per question: do recipes rank as in-sample, and which damping is best for how many tokens. Also called by
solver_quality.py. Needs NumPy, as the Python binding does.
"""
import argparse
import json
import os
import sys

import numpy as np

RECIPES = ("rtn", "paper", "fast", "default", "best")
WIDTHS = (4, 3, 2)
DAMPINGS = (0.0001, 0.001, 0.003, 0.01, 0.03, 0.1)
DOCUMENTS, LONGEST = range(500, 628), 512
FEW_DOCUMENTS = 260  # 60,000 tokens of tiny-llama's tokenizer, and a few

INPUTS = ("attn_in", "wo_in", "ffn_in", "w2_in")
LINEARS = (("q_proj", "self_attn", "attn_in"), ("k_proj", "self_attn", "attn_in"), ("v_proj", "self_attn", "attn_in"),
           ("o_proj", "self_attn", "wo_in"), ("gate_proj", "mlp", "ffn_in"), ("up_proj", "mlp", "ffn_in"),
           ("down_proj", "mlp", "w2_in"))


def load_binding(build):
    os.environ.setdefault("GANQ_LIBRARY", os.path.join(build, "lib", "libganq.so"))
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bindings", "python"))
    import ganq
    return ganq


def forward(config, tensors, tokens):
    """The inputs of every linear for one document: {(block, input): X [tokens, K]}."""
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    dim = config["hidden_size"] // heads
    count = len(tokens)
    angle = np.arange(count)[:, None] * config["rope_theta"] ** (-np.arange(0, dim, 2) / dim)
    cos, sin = (np.tile(f(angle), 2).astype(np.float32)[:, None] for f in (np.cos, np.sin))
    hidden_later = np.triu(np.full((count, count), -np.inf, np.float32), 1)

    def norm(x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(config["rms_norm_eps"])) * weight

    def rotate(x):  # [tokens, heads, dim], the halves of a head rotate together
        halves = np.concatenate([-x[..., dim // 2:], x[..., :dim // 2]], -1)
        return x * cos + halves * sin

    seen = {}
    x = tensors["model.embed_tokens.weight"][tokens]
    for block in range(config["num_hidden_layers"]):
        t = {k[len(f"model.layers.{block}."):]: v for k, v in tensors.items() if k.startswith(f"model.layers.{block}.")}
        a = seen[block, "attn_in"] = norm(x, t["input_layernorm.weight"])
        q = rotate((a @ t["self_attn.q_proj.weight"].T).reshape(count, heads, dim))
        k = rotate((a @ t["self_attn.k_proj.weight"].T).reshape(count, groups, dim)).repeat(heads // groups, 1)
        v = (a @ t["self_attn.v_proj.weight"].T).reshape(count, groups, dim).repeat(heads // groups, 1)
        scores = np.einsum("ihd,jhd->hij", q, k) / np.float32(np.sqrt(dim)) + hidden_later
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        a = seen[block, "wo_in"] = np.einsum("hij,jhd->ihd", scores, v).reshape(count, heads * dim)
        x = x + a @ t["self_attn.o_proj.weight"].T
        a = seen[block, "ffn_in"] = norm(x, t["post_attention_layernorm.weight"])
        gate = a @ t["mlp.gate_proj.weight"].T
        a = seen[block, "w2_in"] = gate / (1 + np.exp(-gate)) * (a @ t["mlp.up_proj.weight"].T)
        x = x + a @ t["mlp.down_proj.weight"].T
    return seen


def activations(ganq, data, model, numbers):
    """Weights by (block, name), and inputs [tokens, K] by (block, input) over the documents of these numbers."""
    text = os.path.join(data, "text/tinystories_1000.json")
    with open(os.path.join(model, "config.json")) as file:
        config = json.load(file)
    with ganq.Tensors(os.path.join(model, "model.safetensors")) as file:
        tensors = {name: file.read(name, dtype=np.float32) for name in file}
    tokenizer = ganq.Tokenizer(model)
    with open(text) as file:
        documents = json.load(file)
    parts = {}
    for number in numbers:
        tokens = tokenizer.encode(documents[number], bos=True)[:LONGEST]
        for key, x in forward(config, tensors, tokens).items():
            parts.setdefault(key, []).append(x)
    inputs = {key: np.concatenate(x) for key, x in parts.items()}
    weights = {(block, name): tensors[f"model.layers.{block}.{where}.{name}.weight"]
               for block in range(config["num_hidden_layers"]) for name, where, _ in LINEARS}
    return weights, inputs


def check_inputs(ganq, data, inputs):
    """The H of data's own file was measured on the same tokens; its layout of q and k differs, not their inputs."""
    with ganq.Tensors(os.path.join(data, "layers/stories260K.safetensors")) as file:
        for (block, name), x in inputs.items():
            expected = file.read(f"layers.{block}.{name}.H", dtype=np.float64)
            found = x.astype(np.float64).T @ x
            scale = np.trace(found) / np.trace(expected)  # a sum or a mean
            if np.abs(found - scale * expected).max() > 1e-4 * np.abs(found).max():
                sys.exit(f"block {block}, {name}: H differs from layers/stories260K.safetensors")


def measure(build, data, threads):
    """Prints the tables; returns their figures."""
    ganq = load_binding(build)
    ctx = ganq.Context(threads=threads)
    weights, inputs = activations(ganq, data, os.path.join(data, "models/stories260K"), DOCUMENTS)
    check_inputs(ganq, data, inputs)
    half = len(next(iter(inputs.values()))) // 2

    def hessians(first, last):
        made = {}
        for key, x in inputs.items():
            made[key] = ganq.Hessian(ctx, x.shape[1])
            made[key].add(x[first:last])
        return made

    heldout = hessians(half, 2 * half)

    def errors(calibration, **options):
        """Total E on the tokens of `calibration` and on the held-out ones."""
        sums = np.zeros(4)
        for (block, name), w in weights.items():
            source = next(i for n, _, i in LINEARS if n == name)
            with ganq.Layer.quantize(ctx, w, calibration[block, source], **options) as layer:
                sums += [*layer.objective(w, calibration[block, source]), *layer.objective(w, heldout[block, source])]
        return {"in": sums[0] / sums[1], "out": sums[2] / sums[3]}

    def cell(pair):
        return f"{pair['in']:.3e} -> {pair['out']:.3e}"

    found = {"tokens": half, "recipes": {}, "dampings": {}}
    print(f"## Held-out, stories260K: E on the {half} tokens of H -> E on the {half} tokens after them\n")
    calibration = hessians(0, half)
    print("| bits | " + " | ".join(RECIPES) + " |\n|" + "---|" * (len(RECIPES) + 1))
    for bits in WIDTHS:
        for r in RECIPES:
            found["recipes"][f"{r} {bits}"] = errors(calibration, bits=bits, recipe=r)
        row = [cell(found["recipes"][f"{r} {bits}"]) for r in RECIPES]
        print(f"| {bits} | " + " | ".join(row) + " |", flush=True)
    print("\n## Damping of fast (held-out E)\n")
    print("| tokens | bits | " + " | ".join(f"{100 * d:g}%" for d in DAMPINGS) + " |\n|" + "---|" * (len(DAMPINGS) + 2))
    for tokens in (500, 2000, 8000, half):
        calibration = hessians(0, tokens)
        for bits in (4, 3):
            for d in DAMPINGS:
                found["dampings"][f"{tokens} {bits} {d}"] = errors(calibration, bits=bits, recipe="fast", damping=d)
            row = [f"{found['dampings'][f'{tokens} {bits} {d}']['out']:.3e}" for d in DAMPINGS]
            print(f"| {tokens} | {bits} | " + " | ".join(row) + " |", flush=True)
    print()
    found["few_tokens"] = few_tokens(ganq, ctx, data)
    return found


def few_tokens(ganq, ctx, data):
    """E of `default` on other tokens, for H of more and more tokens: shrunk, as it is where the number of tokens is known,
    and not. tiny-llama, documents from 0 on until 60,000 tokens, the last 20,000 held out; 48 rows of blocks 0, 2 and 4."""
    model = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples", "data", "tiny-llama")
    weights, inputs = activations(ganq, data, model, range(FEW_DOCUMENTS))
    weights = {key: np.ascontiguousarray(w[:48]) for key, w in weights.items() if key[0] % 2 == 0}

    def hessian(x, known=True):
        made = ganq.Hessian(ctx, x.shape[1])
        made.add(x)
        return made if known else ganq.Hessian.from_matrix(ctx, made.to_numpy(np.float64))

    def held_out(tokens, bits, known):
        ratios = []
        for (block, name), w in weights.items():
            x = inputs[block, next(i for n, _, i in LINEARS if n == name)]
            with ganq.Layer.quantize(ctx, w, hessian(x[:tokens], known), bits=bits) as layer:
                error, norm = layer.objective(w, hessian(x[40000:60000]))
                ratios.append(error / norm)
        return float(np.exp(np.mean(np.log(ratios))))

    found = {}
    print("## tiny-llama: E on other tokens, geometric mean over linears, H as it is -> shrunk towards its diagonal\n")
    print("| tokens | " + " | ".join(f"{b} bits" for b in WIDTHS) + " |\n|" + "---|" * (len(WIDTHS) + 1))
    for tokens in (500, 1000, 4000, 40000):
        row = []
        for bits in WIDTHS:
            pair = found[f"{tokens} {bits}"] = [held_out(tokens, bits, known) for known in (False, True)]
            row.append("{:.3e} -> {:.3e}".format(*pair))
        print(f"| {tokens} | " + " | ".join(row) + " |", flush=True)
    print()
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("data")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    measure(arguments.build, arguments.data, arguments.threads)
