"""make_fixture.py OUT: makes tests/solver/layers.safetensors, real layers with their Hessians from the shipped model.

Block 2 of examples/data/tiny-llama over all of examples/data/text/calibration.jsonl: q_proj [256,256] with the Hessian of its
input, and o_proj [256,256] with its own; H = X^T X / tokens, F32; weights F16. The forward pass is NumPy in float64; tokens come
from the binding (GANQ_LIBRARY). Needs numpy and bindings/python on PYTHONPATH:

    GANQ_LIBRARY=build/lib/libganq.so PYTHONPATH=bindings/python python3 tests/solver/make_fixture.py tests/solver/layers.safetensors
"""
import json
import pathlib
import struct
import sys

import numpy as np

import ganq

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "examples/data/tiny-llama"
BLOCK = 2

config = json.loads((MODEL / "config.json").read_text())
heads, kv_heads, size = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
weights = ganq.Tensors(MODEL)


def weight(name):
    return weights.read(name + ".weight", dtype=np.float64)


def norm(x, name):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + config["rms_norm_eps"]) * weight(name)


def rotate(x):
    """Rotary embedding of x [T, heads, size], halves rotated (the Hugging Face convention)."""
    angles = np.arange(len(x))[:, None] * config["rope_theta"] ** (-np.arange(0, size, 2) / size)
    cos, sin = (np.concatenate([f(angles)] * 2, -1)[:, None] for f in (np.cos, np.sin))
    return x * cos + np.concatenate([-x[..., size // 2 :], x[..., : size // 2]], -1) * sin


def block(x, i, seen):
    """One block over x [T, hidden]; the inputs of q_proj and o_proj go to `seen`."""
    at = f"model.layers.{i}."
    a = norm(x, at + "input_layernorm")
    q = rotate((a @ weight(at + "self_attn.q_proj").T).reshape(len(x), heads, size))
    k = rotate((a @ weight(at + "self_attn.k_proj").T).reshape(len(x), kv_heads, size)).repeat(heads // kv_heads, 1)
    v = (a @ weight(at + "self_attn.v_proj").T).reshape(len(x), kv_heads, size).repeat(heads // kv_heads, 1)
    scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(size)
    scores[:, np.triu_indices(len(x), 1)[0], np.triu_indices(len(x), 1)[1]] = -np.inf
    p = np.exp(scores - scores.max(-1, keepdims=True))
    o = np.einsum("hts,shd->thd", p / p.sum(-1, keepdims=True), v).reshape(len(x), -1)
    seen.append((a, o))
    x = x + o @ weight(at + "self_attn.o_proj").T
    m = norm(x, at + "post_attention_layernorm")
    gate = m @ weight(at + "mlp.gate_proj").T
    return x + (gate / (1 + np.exp(-gate)) * (m @ weight(at + "mlp.up_proj").T)) @ weight(at + "mlp.down_proj").T


documents = ganq.Corpus.load(ganq.Tokenizer(MODEL), ROOT / "examples/data/text/calibration.jsonl", mode="documents",
                             samples=-1, length=config["max_position_embeddings"])
embedding = weight("model.embed_tokens")
attention, output, tokens = 0, 0, 0
for ids in documents:
    x, seen = embedding[ids], []
    for i in range(BLOCK + 1):
        x = block(x, i, seen)
    a, o = seen[BLOCK]
    attention, output, tokens = attention + a.T @ a, output + o.T @ o, tokens + len(ids)

at = f"model.layers.{BLOCK}.self_attn."
tensors = {
    "q_proj.weight": weight(at + "q_proj").astype(np.float16),
    "q_proj.H": (attention / tokens).astype(np.float32),
    "o_proj.weight": weight(at + "o_proj").astype(np.float16),
    "o_proj.H": (output / tokens).astype(np.float32),
}
header, offset = {"__metadata__": {"tokens": str(tokens), "source": "examples/data/tiny-llama"}}, 0
for name, t in tensors.items():
    header[name] = {"dtype": "F16" if t.dtype == np.float16 else "F32", "shape": t.shape,
                    "data_offsets": [offset, offset + t.nbytes]}
    offset += t.nbytes
text = json.dumps(header).encode()
text += b" " * (-(8 + len(text)) % 64)
pathlib.Path(sys.argv[1]).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(t.tobytes() for t in tensors.values()))
print(f"{tokens} tokens, {offset} bytes")
