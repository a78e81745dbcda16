#!/usr/bin/env python3
"""Train the tiny Llama of this folder from scratch and write it in Hugging Face layout.

    pip install torch tokenizers safetensors numpy
    python train.py --data TEXTS --out . --minutes 65 --bf16     # train, export, measure
    python train.py --data TEXTS --out . --export                # export the last checkpoint only
    python train.py --data TEXTS --out . --minutes 65 --bf16 --resume   # go on after a stop

TEXTS holds tinystories_1000.json (a JSON list of stories), GrimmsFairyTales.txt, dracula.txt,
frankenstein.txt and tinyshakespeare.txt; the default is $GANQ_TEST_DATA/text.
The learning rate follows elapsed time (--minutes) or steps (--steps) down to zero, so the run
ends well on any machine. With --steps the run is reproducible for a given seed and thread count.
"""
import argparse
import json
import math
import os
import random
import re
import time
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file, save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 2048,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 5,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "mlp_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "tie_word_embeddings": True,
    "torch_dtype": "float16",
    "use_cache": True,
}
BOS, EOS = "<s>", "</s>"

# Share of the training windows drawn from each text.
MIX = {"tinystories": 0.40, "grimm": 0.20, "dracula": 0.16, "frankenstein": 0.10, "shakespeare": 0.14}
BOOKS = {"grimm": "GrimmsFairyTales.txt", "dracula": "dracula.txt", "frankenstein": "frankenstein.txt",
         "shakespeare": "tinyshakespeare.txt"}
HOLD_OUT_STORIES = 900  # TinyStories documents from here on are held out
HOLD_OUT_PIECE = 25     # and every 25th piece of each book


# ---------------------------------------------------------------------------------------- texts

def plain(text):
    """Repair double-encoded quotes and use ASCII quotes and dashes throughout."""
    for a, b in (("â€œ", '"'), ("â€™", "'"), ("â€˜", "'"), ("â€“", "-"), ("â€”", " - "), ("â€¦", "..."), ("â€", '"'),
                 ("“", '"'), ("”", '"'), ("‘", "'"), ("’", "'"), ("—", " - "), ("–", "-"), ("\ufeff", "")):
        text = text.replace(a, b)
    return text


def book_pieces(path, name, size=1500):
    """A book as pieces of about `size` characters that begin and end with a paragraph."""
    text = path.read_text(encoding="utf-8").replace("\r", "")
    start = re.search(r"\*\*\* ?START OF.*\*\*\*", text)
    end = re.search(r"\*\*\* ?END OF", text)
    text = text[start.end() if start else 0:end.start() if end else len(text)]
    if name == "grimm":  # its speech stands in single quotes
        text = re.sub(r"’(?![a-zA-Z])", '"', text.replace("‘", '"'))
    text = plain(text)
    stories = re.split(r"\n\n(?=[A-Z][A-Z ,'\-]{5,}\n)", text) if name == "grimm" else [text]
    pieces = []
    for story in stories:
        paragraphs = [p.strip() for p in re.split(r"\n\s*\n", story)]
        if name != "shakespeare":  # verse keeps its lines
            paragraphs = [re.sub(r"\s+", " ", p).replace("_", "") for p in paragraphs]
        piece = ""
        for p in paragraphs:
            if not p or (name == "grimm" and p.isupper()):
                continue
            piece += ("\n\n" if piece else "") + p
            if len(piece) >= size:
                pieces.append(piece)
                piece = ""
        if len(piece) > 200:
            pieces.append(piece)
    return pieces


def read_texts(folder):
    """{name: (training documents, held-out documents)}"""
    stories = [plain(s).strip() for s in json.loads((folder / "tinystories_1000.json").read_text(encoding="utf-8"))]
    texts = {"tinystories": (stories[:HOLD_OUT_STORIES], stories[HOLD_OUT_STORIES:])}
    for name, file in BOOKS.items():
        pieces = book_pieces(folder / file, name)
        texts[name] = ([p for i, p in enumerate(pieces) if i % HOLD_OUT_PIECE != HOLD_OUT_PIECE - 1],
                       pieces[HOLD_OUT_PIECE - 1::HOLD_OUT_PIECE])
    return texts


def train_tokenizer(texts):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=CONFIG["vocab_size"], special_tokens=[BOS, EOS], show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    repeats = {"tinystories": 4, "grimm": 2}
    tok.train_from_iterator((d for n, (docs, _) in texts.items() for _ in range(repeats.get(n, 1)) for d in docs), trainer)
    tok.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B",
                                                       special_tokens=[(BOS, CONFIG["bos_token_id"])])
    return tok


class Stream:
    """Endless token stream over one text: all documents in random order, then again in another."""

    def __init__(self, docs, rng):
        self.docs, self.rng, self.order, self.buffer, self.epochs = docs, rng, [], [], 0

    def take(self, n):
        while len(self.buffer) < n:
            if not self.order:
                self.order = self.rng.sample(range(len(self.docs)), len(self.docs))
                self.epochs += 1
            self.buffer += self.docs[self.order.pop()]
        out, self.buffer = self.buffer[:n], self.buffer[n - 1:]
        return out


# ---------------------------------------------------------------------------------------- model

class RMSNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        x = x.float()
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + CONFIG["rms_norm_eps"]) * self.weight


def rotate(x, cos, sin):
    """Rotary embedding, Hugging Face convention: the pairs are (i, i + head_dim / 2)."""
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        c = CONFIG
        self.h, self.kv, self.d = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        self.q_proj = nn.Linear(c["hidden_size"], self.h * self.d, bias=False)
        self.k_proj = nn.Linear(c["hidden_size"], self.kv * self.d, bias=False)
        self.v_proj = nn.Linear(c["hidden_size"], self.kv * self.d, bias=False)
        self.o_proj = nn.Linear(self.h * self.d, c["hidden_size"], bias=False)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        q = rotate(self.q_proj(x).view(b, t, self.h, self.d).transpose(1, 2), cos, sin)
        k = rotate(self.k_proj(x).view(b, t, self.kv, self.d).transpose(1, 2), cos, sin)
        v = self.v_proj(x).view(b, t, self.kv, self.d).transpose(1, 2)
        k, v = (y.repeat_interleave(self.h // self.kv, 1) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1))


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        k, n = CONFIG["hidden_size"], CONFIG["intermediate_size"]
        self.gate_proj = nn.Linear(k, n, bias=False)
        self.up_proj = nn.Linear(k, n, bias=False)
        self.down_proj = nn.Linear(n, k, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.input_layernorm, self.self_attn = RMSNorm(CONFIG["hidden_size"]), Attention()
        self.post_attention_layernorm, self.mlp = RMSNorm(CONFIG["hidden_size"]), MLP()
        self.dropout = dropout

    def forward(self, x, cos, sin):
        x = x + F.dropout(self.self_attn(self.input_layernorm(x), cos, sin), self.dropout, self.training)
        return x + F.dropout(self.mlp(self.post_attention_layernorm(x)), self.dropout, self.training)


class Llama(nn.Module):
    """The parameter names are those of Hugging Face's LlamaForCausalLM."""

    def __init__(self, dropout=0.0):
        super().__init__()
        c = CONFIG
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.model.layers = nn.ModuleList(Layer(dropout) for _ in range(c["num_hidden_layers"]))
        self.model.norm = RMSNorm(c["hidden_size"])
        angle = torch.outer(torch.arange(c["max_position_embeddings"]).float(),
                            c["rope_theta"] ** (-torch.arange(0, c["head_dim"], 2) / c["head_dim"]))
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                last = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(p, std=c["initializer_range"] / (math.sqrt(2 * c["num_hidden_layers"]) if last else 1))

    def forward(self, ids):
        x = self.model.embed_tokens(ids)
        t = ids.shape[1]
        for layer in self.model.layers:
            x = layer(x, self.cos[:t], self.sin[:t])
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)


# ------------------------------------------------------------------------------------- training

def save_checkpoint(path, **state):
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


@torch.no_grad()
def quick_loss(model, docs):
    """Mean loss per token over a few documents, in nats."""
    model.eval()
    total = count = 0
    for d in docs:
        d = torch.tensor(d[:CONFIG["max_position_embeddings"]])[None]
        total += F.cross_entropy(model(d[:, :-1]).float()[0], d[0, 1:], reduction="sum").item()
        count += d.shape[1] - 1
    model.train()
    return total / count


def train(args, texts, tok):
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    bos, eos = CONFIG["bos_token_id"], CONFIG["eos_token_id"]
    encode = lambda docs: [[bos] + tok.encode(d, add_special_tokens=False).ids + [eos] for d in docs]
    streams = {n: Stream(encode(docs), random.Random(f"{args.seed} {n}")) for n, (docs, _) in texts.items()}
    held = {n: encode(docs[:16]) for n, (_, docs) in texts.items()}
    print("training tokens:", {n: sum(map(len, s.docs)) for n, s in streams.items()}, flush=True)

    model = Llama(args.dropout)
    print("parameters:", sum(p.numel() for p in model.parameters()), flush=True)
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    opt = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
                            lr=args.lr, betas=(0.9, 0.95), fused=True)
    checkpoint = args.work / "checkpoint.pt"
    step, before = 0, 0.0
    if args.resume and checkpoint.exists():
        c = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(c["model"])
        opt.load_state_dict(c["opt"])
        step, before = c["step"], c["seconds"]
        for s in streams.values():  # other documents than those of the first steps
            s.rng.seed(f"{args.seed} {step}")
        print(f"resumed at step {step}, {before:.0f} s", flush=True)

    names, shares = list(MIX), list(MIX.values())
    start = saved = time.monotonic()
    model.train()
    while True:
        seconds = before + time.monotonic() - start
        progress = step / args.steps if args.steps else seconds / (60 * args.minutes)
        if progress >= 1:
            break
        warm = min(1.0, (step + 1) / args.warmup)
        for group in opt.param_groups:
            group["lr"] = args.lr * warm * (1 - progress)
        batch = torch.tensor([streams[random.choices(names, shares)[0]].take(args.length + 1) for _ in range(args.batch)])
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            logits = model(batch[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        step += 1
        if step % 20 == 0:
            seconds = before + time.monotonic() - start
            print(f"step {step} loss {loss.item():.3f} norm {norm:.2f} progress {progress:.3f} "
                  f"{step * args.batch * args.length / seconds:.0f} tokens/s", flush=True)
        if step % 200 == 0:
            print("  held out:", {n: round(quick_loss(model, d), 3) for n, d in held.items()},
                  "epochs:", {n: s.epochs for n, s in streams.items()}, flush=True)
        if time.monotonic() - saved > 60:
            save_checkpoint(checkpoint, model=model.state_dict(), opt=opt.state_dict(), step=step, seconds=seconds)
            saved = time.monotonic()
    save_checkpoint(checkpoint, model=model.state_dict(), opt=opt.state_dict(), step=step, seconds=seconds)
    print(f"trained {step} steps, {step * args.batch * args.length} tokens, {seconds / 60:.1f} minutes, "
          f"epochs begun {({n: s.epochs for n, s in streams.items()})}", flush=True)


# -------------------------------------------------------------------------- export and measures

def write_json(path, data):
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def export(args, tok):
    state = torch.load(args.work / "checkpoint.pt", weights_only=True)["model"]
    args.out.mkdir(parents=True, exist_ok=True)
    weights = {n: p.to(torch.float16).contiguous() for n, p in state.items()}
    (args.out / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
    write_json(args.out / "config.json", CONFIG)
    write_json(args.out / "generation_config.json", {
        "bos_token_id": CONFIG["bos_token_id"], "eos_token_id": CONFIG["eos_token_id"],
        "do_sample": True, "temperature": 0.7, "max_length": CONFIG["max_position_embeddings"]})
    tok.save(str(args.out / "tokenizer.json"))
    write_json(args.out / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS, "eos_token": EOS, "add_bos_token": True,
        "add_eos_token": False, "clean_up_tokenization_spaces": False,
        "model_max_length": CONFIG["max_position_embeddings"]})


@torch.no_grad()
def perplexity(model, tok, docs, counts):
    """(model, unigram, tokens): one document per window, <s> first, cut at the context; every token after <s> counts."""
    model.eval()
    nll = uni = 0.0
    n = 0
    total = sum(counts)
    for text in docs:
        ids = torch.tensor(tok.encode(text).ids[:CONFIG["max_position_embeddings"]])
        if len(ids) < 2:
            continue
        nll += F.cross_entropy(model(ids[None])[0, :-1].double(), ids[1:], reduction="sum").item()
        uni -= sum(math.log(counts[i] / total) for i in ids[1:].tolist())
        n += len(ids) - 1
    return math.exp(nll / n), math.exp(uni / n), n


@torch.no_grad()
def generate(model, tok, prompt, temperature, seed, limit=120):
    model.eval()
    g = torch.Generator().manual_seed(seed)
    ids = tok.encode(prompt).ids
    for _ in range(limit):
        logits = model(torch.tensor([ids]))[0, -1]
        i = int(logits.argmax()) if temperature == 0 else int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=g))
        if i == CONFIG["eos_token_id"]:
            break
        ids.append(i)
    return tok.decode(ids)


def measure(args, texts, tok):
    """Perplexity and samples of the exported files (the float16 weights), computed in float32."""
    model = Llama()
    model.load_state_dict({n: p.float() for n, p in load_file(args.out / "model.safetensors").items()})
    counts = [1] * CONFIG["vocab_size"]  # add-one smoothing
    for docs, _ in texts.values():
        for d in docs:
            for i in tok.encode(d, add_special_tokens=False).ids:
                counts[i] += 1
    own = args.out.parent / "text"
    sets = {f"{n}, held out": docs for n, (_, docs) in texts.items()}
    sets["all held out"] = [d for docs in sets.values() for d in docs]
    for file in ("calibration.jsonl", "evaluation.jsonl"):
        if (own / file).exists():
            sets[f"text/{file}"] = [json.loads(x)["text"] for x in (own / file).read_text(encoding="utf-8").splitlines()]
    print(f"{'text':32s} {'tokens':>8s} {'model':>8s} {'unigram':>8s}")
    for name, docs in sets.items():
        p, u, n = perplexity(model, tok, docs, counts)
        print(f"{name:32s} {n:8d} {p:8.2f} {u:8.1f}", flush=True)
    for prompt in ("Once upon a time", "There was once a poor", "One day, Tom and his sister went to the"):
        for temperature in (0.0, 0.7):
            print(f"\n[temperature {temperature}] {generate(model, tok, prompt, temperature, args.seed)}", flush=True)


def main():
    data = os.environ.get("GANQ_TEST_DATA")
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", type=Path, default=Path(data) / "text" if data else None, help="folder with the texts")
    p.add_argument("--out", type=Path, required=True, help="folder for the model")
    p.add_argument("--work", type=Path, default=Path("train-work"), help="folder for the checkpoint and the tokenizer")
    p.add_argument("--minutes", type=float, default=65)
    p.add_argument("--steps", type=int, default=0, help="train this many steps instead of --minutes")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--batch", type=int, default=4)
    p.add_argument("--length", type=int, default=CONFIG["max_position_embeddings"])
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--warmup", type=int, default=100, help="steps")
    p.add_argument("--dropout", type=float, default=0.15)
    p.add_argument("--bf16", action="store_true", help="matrix products in bfloat16 while training")
    p.add_argument("--resume", action="store_true")
    p.add_argument("--export", action="store_true", help="no training: export the last checkpoint and measure it")
    args = p.parse_args()
    if args.data is None:
        p.error("give --data or set GANQ_TEST_DATA")
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    texts = read_texts(args.data)
    saved = args.work / "tokenizer.json"
    if saved.exists() and (args.resume or args.export):
        tok = Tokenizer.from_file(str(saved))
    else:
        tok = train_tokenizer(texts)
        tok.save(str(saved))
    if not args.export:
        train(args, texts, tok)
    export(args, tok)
    measure(args, texts, tok)


if __name__ == "__main__":
    main()
