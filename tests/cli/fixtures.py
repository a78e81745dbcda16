"""fixtures.py - what the command's tests share: running it, and a small checkpoint with random weights."""
import array
import json
import os
import random
import struct
import subprocess
import sys
import zlib


class Command:
    """Runs the ganq binary and looks at what it says."""

    def __init__(self, path):
        self.path = path

    def run(self, *arguments, expect=0, timeout=600):
        done = subprocess.run([self.path, *map(str, arguments)], capture_output=True, timeout=timeout,
                              stdin=subprocess.DEVNULL, encoding="utf-8", errors="surrogateescape")
        if expect is not None and done.returncode != expect:
            raise AssertionError("ganq %s: exit code %d, expected %d\n%s%s" %
                                 (" ".join(map(str, arguments)), done.returncode, expect, ascii(done.stdout), done.stderr))
        return done

    def json(self, *arguments, **how):
        return json.loads(self.run(*arguments, **how).stdout)


def write_safetensors(path, tensors):
    """tensors: {name: (dtype, shape, bytes)}"""
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            out.write(data)


def edit_safetensors(path, name, change):
    """Replaces a tensor's bytes with change(bytes), of the same length, and its CRC-32 with theirs."""
    with open(path, "rb") as file:
        raw = file.read()
    size = struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8:8 + size]), bytearray(raw[8 + size:])
    first, end = header[name]["data_offsets"]
    data[first:end] = change(bytes(data[first:end]))
    header["__metadata__"]["ganq.crc32." + name] = "%08x" % zlib.crc32(data[first:end])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def floats(shape, scale=0.1, offset=0.0):
    count = 1
    for n in shape:
        count *= n
    noise = random.randbytes(count)
    values = array.array("f", (offset + scale * (b - 127.5) / 64 for b in noise))
    if sys.byteorder == "big":
        values.byteswap()
    return ("F32", list(shape), values.tobytes())


def byte_tokenizer():
    """A tokenizer.json of single bytes, with <s> and </s> behind them."""
    visible = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    names, extra = {}, 0
    for b in range(256):
        if b in visible:
            names[b] = chr(b)
        else:
            names[b] = chr(256 + extra)
            extra += 1
    special = [{"id": 256 + i, "content": text, "special": True, "normalized": False, "lstrip": False,
                "rstrip": False, "single_word": False} for i, text in enumerate(["<s>", "</s>"])]
    return {"version": "1.0", "added_tokens": special, "normalizer": None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                              "use_regex": True},
            "post_processor": None, "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "vocab": {name: b for b, name in names.items()}, "merges": []}}


def write_model(directory, hidden=32, inter=48, layers=2, context=128):
    random.seed(5)
    heads, kv_heads, vocab = 4, 2, 258
    head_dim = hidden // heads
    os.makedirs(directory)
    tensors = {"model.embed_tokens.weight": floats((vocab, hidden))}
    for i in range(layers):
        block = "model.layers.%d." % i
        for name, shape in (("self_attn.q_proj", (hidden, hidden)), ("self_attn.k_proj", (kv_heads * head_dim, hidden)),
                            ("self_attn.v_proj", (kv_heads * head_dim, hidden)), ("self_attn.o_proj", (hidden, hidden)),
                            ("mlp.gate_proj", (inter, hidden)), ("mlp.up_proj", (inter, hidden)),
                            ("mlp.down_proj", (hidden, inter))):
            tensors[block + name + ".weight"] = floats(shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[block + name + ".weight"] = floats((hidden,), offset=1.0)
    tensors["model.norm.weight"] = floats((hidden,), offset=1.0)
    write_safetensors(os.path.join(directory, "model.safetensors"), tensors)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
              "intermediate_size": inter, "num_hidden_layers": layers, "num_attention_heads": heads,
              "num_key_value_heads": kv_heads, "vocab_size": vocab, "max_position_embeddings": context,
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": True,
              "bos_token_id": 256, "eos_token_id": 257, "torch_dtype": "float32"}
    for name, value in (("config.json", config), ("tokenizer.json", byte_tokenizer()),
                        ("tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>"})):
        with open(os.path.join(directory, name), "w", encoding="utf-8") as out:
            json.dump(value, out)


def write_opt_model(directory, hidden=32, inter=48, layers=2, context=128):
    """OPT: LayerNorm, learned positions, biases, a plain MLP; the files beside the weights are write_model's."""
    write_model(directory, hidden, inter, layers, context)
    random.seed(7)
    vocab, root = 258, "model.decoder."
    tensors = {root + "embed_tokens.weight": floats((vocab, hidden)), root + "embed_positions.weight": floats((context + 2, hidden))}
    norms = [root + "final_layer_norm"]
    for i in range(layers):
        block = "%slayers.%d." % (root, i)
        for name, shape in (("self_attn.q_proj", (hidden, hidden)), ("self_attn.k_proj", (hidden, hidden)),
                            ("self_attn.v_proj", (hidden, hidden)), ("self_attn.out_proj", (hidden, hidden)),
                            ("fc1", (inter, hidden)), ("fc2", (hidden, inter))):
            tensors[block + name + ".weight"] = floats(shape)
            tensors[block + name + ".bias"] = floats(shape[:1])
        norms += [block + "self_attn_layer_norm", block + "final_layer_norm"]
    for name in norms:
        tensors[name + ".weight"] = floats((hidden,), offset=1.0)
        tensors[name + ".bias"] = floats((hidden,))
    write_safetensors(os.path.join(directory, "model.safetensors"), tensors)
    config = {"architectures": ["OPTForCausalLM"], "model_type": "opt", "hidden_size": hidden, "ffn_dim": inter,
              "num_hidden_layers": layers, "num_attention_heads": 4, "vocab_size": vocab, "max_position_embeddings": context,
              "word_embed_proj_dim": hidden, "do_layer_norm_before": True, "activation_function": "relu",
              "bos_token_id": 256, "eos_token_id": 257, "torch_dtype": "float32"}
    with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as out:
        json.dump(config, out)


def write_documents(path, count, words=60):
    random.seed(6)
    with open(path, "w", encoding="utf-8") as out:
        for _ in range(count):
            text = " ".join(random.choice("the a cat dog ran sat on mat under tree sun moon".split()) for _ in range(words))
            out.write(json.dumps({"text": text}) + "\n")
