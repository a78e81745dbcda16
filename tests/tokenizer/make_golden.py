#!/usr/bin/env python3
"""Writes golden_families.json and golden_components.json: token ids as the reference packages give them.

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install tokenizers tiktoken sentencepiece protobuf
    GANQ_TEST_DATA=... /tmp/golden/bin/python tests/tokenizer/make_golden.py

golden_families.json   ids for the real tokenizer files of $GANQ_TEST_DATA, from `tokenizers` (GPT-2, OPT, Qwen2.5,
                       Llama 2's tokenizer.json), `tiktoken` (Llama 3, gpt2.tiktoken) and `sentencepiece`.
golden_components.json two small vocabularies made here, and for every component of tokenizer.json that the library knows
                       a tokenizer that uses it, with ids and decoded text. Needs no data.
                       A case is [text, ids, ids with special tokens looked for or null, decoded ids or null]; null
                       stands for "the same".
sample_rules.model     a small SentencePiece model with normalization rules and user-defined pieces, and its ids in
                       sample_rules.json.
../fuzz/corpus/tokenizer  seeds for fuzz_tokenizer.
"""
import base64
import json
import os
import tempfile

import sentencepiece
import tiktoken
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.environ.get("GANQ_TEST_DATA", "")

TEXTS = [
    "Hello world",
    " Hello  world ",
    "I'm sure they'll say we've 'd'one IT'S THEY'RE o'clock don't",
    "1 12 123 1234 12345 3.14159 1,000,000 ½ ² ٣٤٥ Ⅷ",
    "tabs\tand\t\tmore\nlines\n\n\n and\r\nCRLF\r\n\r\n  end   ",
    "     five leading, trailing     ",
    "\n",
    "   ",
    " ",
    "a",
    "def f(x):\n    return x**2 + [i for i in range(10)]  # comment\n\n\tif (a!=b) { c->d(); }",
    "Größe, naïve café, Ångström, Łódź, İstanbul, ſharp ẞ",
    "cafe\u0301 A\u030angstro\u0308m \u1112\u1161\u11ab\u1100\u116e\u11a8",
    "Привет, мир! Как дела? Ελληνικά κείμενο.",
    "你好，世界。今天天气很好！日本語のテキスト、カタカナとひらがな。",
    "안녕하세요 세계 한국어",
    "مرحبا بالعالم ١٢٣ שלום עולם",
    "नमस्ते दुनिया ไทยภาษา தமிழ்",
    "😀 👩‍👩‍👧‍👦 🇩🇪 👍🏽 ❤️ ☕",
    "mixed中文and English混合 text123中",
    "<s>begin</s> <unk> <pad><mask>",
    "<|endoftext|>x<|im_start|>user\nhi<|im_end|><|begin_of_text|><|eot_id|><|start_header_id|>",
    "call <tool_call>{\"a\": 1}</tool_call> done",
    "nbsp\u00a0and\u2003em\u3000ideographic\u200bzero\u180emongolian\u202fnarrow",
    "dashes – — … “quotes” ‘single’ «guillemets» ¿¡",
    "https://example.org/path?x=1&y=%20#frag user@example.com C:\\dir\\file.txt",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "================================================================----------......!!!!????",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "CamelCaseWords snake_case_words SHOUTING kebab-case x86_64 H2O",
    "∑ x² ≤ ∞ ∀ε>0 ∃δ \U0001d54f \U0001f9ec \ufffd \ufeffbom",
    "ﬁ ﬂ ① ㍿ ＡＢＣ １２３ ｶﾀｶﾅ",
    "Once upon a time, there was a little girl named Lily.",
    "x\u0300\u0301\u0302 zalgo h\u0353e\u0322l\u0320l\u034fo",
    "\u2581under\u2581score mark",
    "'S 'T 'Re ’s it’s",
    "foo\u0085bar\u2028line\u2029para\x1c\x7f\x01",
]


def families():
    def path(name):
        return os.path.join(DATA, "tokenizers", name)

    def hf(name, regex, nfc, specials, plain=()):
        vocab = json.load(open(path(name + "/vocab.json"), encoding="utf-8"))
        lines = open(path(name + "/merges.txt"), encoding="utf-8").read().split("\n")
        merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
        if nfc:
            tokenizer.normalizer = normalizers.NFC()
        if regex:
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
                pre_tokenizers.Split(Regex(regex), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        else:
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokens = [AddedToken(s, special=True, normalized=False) for s in specials]
        tokens += [AddedToken(s, special=False, normalized=False) for s in plain]
        tokenizer.add_tokens(tokens)
        return tokenizer

    def hf_cases(tokenizer):
        cases = []
        for text in TEXTS:
            tokenizer.encode_special_tokens = True
            plain = tokenizer.encode(text, add_special_tokens=False).ids
            tokenizer.encode_special_tokens = False
            special = tokenizer.encode(text, add_special_tokens=False).ids
            cases.append([text, plain, special if special != plain else None])
        return cases

    def tiktoken_cases(file, regex, specials):
        lines = open(path(file), "rb").read().splitlines()
        ranks = {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in lines if line}
        encoding = tiktoken.Encoding("x", pat_str=regex, mergeable_ranks=ranks, special_tokens=specials)
        return [[text, encoding.encode_ordinary(text), encoding.encode(text, allowed_special="all")] for text in TEXTS]

    def spm_cases(file, texts):
        model = sentencepiece.SentencePieceProcessor(model_file=file)
        return [[text, model.encode(text)] for text in texts]

    qwen = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
            r"\s+(?!\S)|\s+")
    llama3 = qwen.replace(r"\p{N}|", r"\p{N}{1,3}|")
    gpt2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    names = {0: "<|begin_of_text|>", 1: "<|end_of_text|>", 6: "<|start_header_id|>", 7: "<|end_header_id|>",
             9: "<|eot_id|>"}
    reserved = iter(range(256))
    llama3_specials = {names[i] if i in names else f"<|reserved_special_token_{next(reserved)}|>": 128000 + i
                       for i in range(256)}
    config = json.load(open(path("qwen2.5/tokenizer_config.json"), encoding="utf-8"))["added_tokens_decoder"]
    config = sorted(config.items(), key=lambda item: int(item[0]))
    qwen_specials = [token["content"] for _, token in config if token["special"]]
    tokenizer = hf("qwen2.5", qwen, True, [])
    tokenizer.add_tokens([AddedToken(token["content"], special=token["special"], normalized=False)
                          for _, token in config])
    assert all(tokenizer.token_to_id(token["content"]) == int(i) for i, token in config) and qwen_specials
    squeezed = [text for text in TEXTS if "  " not in text and not text.startswith(" ") and not text.endswith(" ")]
    return {
        "tokenizers/gpt2": hf_cases(hf("gpt2", None, False, ["<|endoftext|>"])),
        "tokenizers/opt": hf_cases(hf("opt", None, False, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])),
        "tokenizers/qwen2.5": hf_cases(tokenizer),
        "tokenizers/llama2": hf_cases(Tokenizer.from_file(path("llama2/tokenizer.json"))),
        "tokenizers/llama2/tokenizer.model": spm_cases(path("llama2/tokenizer.model"), TEXTS),
        "tokenizers/llama3": tiktoken_cases("llama3/tokenizer.model", llama3, llama3_specials),
        "tokenizers/gpt2/gpt2.tiktoken": tiktoken_cases("gpt2/gpt2.tiktoken", gpt2, {"<|endoftext|>": 50256}),
        "models/stories260K": spm_cases(os.path.join(DATA, "models/stories260K/tokenizer.model"), squeezed),
    }


# ---- components ----

CORPUS = ("the quick brown fox jumps over the lazy dog and the other dogs there; they're not there, isn't it? "
          "In the year 2024 the 12345 things cost 1,234.50 euros. Über größere Straßen läuft die Maus. "
          "hello hello world, hello there world. I'll say we've done it; I'm sure. naïve café. ") * 3


def alphabet():
    kept = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    others = [b for b in range(256) if b not in kept]
    return {**{b: chr(b) for b in kept}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def train(words, vocab, count):
    """Plain BPE training: words are lists of symbols."""
    merges = []
    for _ in range(count):
        pairs = {}
        for word in words:
            for pair in zip(word, word[1:]):
                pairs[pair] = pairs.get(pair, 0) + 1
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(list(best))
        vocab.setdefault(best[0] + best[1], len(vocab))
        for i, word in enumerate(words):
            out = []
            for symbol in word:
                if out and (out[-1], symbol) == best and not out[-1] is None:
                    out[-1] = best[0] + best[1]
                else:
                    out.append(symbol)
            words[i] = out
    return merges


def bases():
    spell = alphabet()
    vocab = {"<s>": 0, "</s>": 1, "<unk>": 2}
    for byte in range(256):
        vocab[spell[byte]] = len(vocab)
    words = [[spell[b] for b in (" " + word).encode()] for word in CORPUS.split()]
    byte_model = {"type": "BPE", "unk_token": None, "vocab": vocab, "merges": train(words, vocab, 90)}
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    for c in sorted(set("▁" + CORPUS) - {" ", "ß", "9"}):
        vocab[c] = len(vocab)
    words = [[c for c in "▁" + word if c in vocab] for word in CORPUS.split()]
    char_model = {"type": "BPE", "unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True, "vocab": vocab,
                  "merges": [" ".join(merge) for merge in train(words, vocab, 90)]}
    return {"byte": byte_model, "char": char_model}


def token(number, content, special, **flags):
    return {"id": number, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": special, **flags}


SAMPLES = [
    "the quick brown fox",
    " hello  there,world!  they're 2024 things: 12345... ",
    "line\none\r\n\ttwo   three\n\n",
    "Über größere Straßen, CAFÉ naïve İX 日本語 ½",
    "<s>hello</s> the <unk> dog",
    "say<tool>the  <end> x <word> the<word>re <word>",
    "it's IT'S 'tis a.b.c--d__e (f) [g] #9 9 99",
    "ﬁne ① cafe\u0301 A\u030a \u1112\u1161\u11ab",
    "   ",
    "",
    "▁mark ▁▁two the",
    "😀 <0x41> <0xC3>",
]

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
NO_REGEX = {**BYTE_LEVEL, "use_regex": False}
BYTE_DECODER = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
LLAMA_NORM = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                                                  {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
LLAMA_DECODER = {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
BYTE_ADDED = [token(0, "<s>", True), token(1, "</s>", True), token(2, "<unk>", True)]
CHAR_ADDED = [token(0, "<unk>", True), token(1, "<s>", True), token(2, "</s>", True)]
TEMPLATE = {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}}


def byte_variant(name, **parts):
    return {"name": name, "base": "byte", "model": {}, "normalizer": None, "pre_tokenizer": BYTE_LEVEL,
            "post_processor": None, "decoder": BYTE_DECODER, "added_tokens": BYTE_ADDED, "same_text": True, **parts}


def char_variant(name, **parts):
    return {"name": name, "base": "char", "model": {}, "normalizer": LLAMA_NORM, "pre_tokenizer": None,
            "post_processor": None, "decoder": LLAMA_DECODER, "added_tokens": CHAR_ADDED, "same_text": True, **parts}


def split(pattern, behavior, invert=False, regex=True):
    return {"type": "Split", "pattern": {"Regex" if regex else "String": pattern}, "behavior": behavior,
            "invert": invert}


def sequence(*items):
    return {"type": "Sequence", "pretokenizers": list(items)}


def norms(*items):
    return {"type": "Sequence", "normalizers": list(items)}


def variants():
    out = [
        byte_variant("byte level"),
        byte_variant("prefix space", pre_tokenizer={**BYTE_LEVEL, "add_prefix_space": True}),
        byte_variant("no regex", pre_tokenizer=NO_REGEX),
        byte_variant("ignore merges", model={"ignore_merges": True}),
        byte_variant("ignore merges, one word", model={"ignore_merges": True}, pre_tokenizer=NO_REGEX,
                     added_tokens=BYTE_ADDED + [token(349, "<tool>", True), token(350, "the quick brown fox", True)]),
        byte_variant("template", post_processor={
            "type": "Sequence", "processors": [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False,
                                                "use_regex": True}, TEMPLATE]}),
        byte_variant("roberta", post_processor={"type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0],
                                                "trim_offsets": True, "add_prefix_space": False}),
        byte_variant("digits", pre_tokenizer=sequence({"type": "Digits", "individual_digits": True}, BYTE_LEVEL)),
        byte_variant("digit runs", pre_tokenizer=sequence({"type": "Digits", "individual_digits": False}, NO_REGEX)),
        byte_variant("whitespace", pre_tokenizer=sequence({"type": "Whitespace"}, NO_REGEX)),
        byte_variant("whitespace split", pre_tokenizer=sequence({"type": "WhitespaceSplit"}, NO_REGEX)),
        byte_variant("llama 3", pre_tokenizer=sequence(split(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
            r"\s+(?!\S)|\s+", "Isolated"), NO_REGEX)),
        byte_variant("threes from the right", pre_tokenizer=sequence(split(r"(?=(\d{3})+(?!\d))", "Isolated"), NO_REGEX)),
        byte_variant("word class", pre_tokenizer=sequence(split(r"\w+|\W", "Removed", True), NO_REGEX)),
    ]
    for behavior in ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        out.append(byte_variant("punctuation " + behavior, pre_tokenizer=sequence(
            {"type": "Punctuation", "behavior": behavior}, NO_REGEX)))
        for invert in (False, True):
            out.append(byte_variant(f"split {behavior} {invert}", pre_tokenizer=sequence(
                split(r"\s|[aeiou]", behavior, invert), NO_REGEX)))
        out.append(byte_variant(f"split string {behavior}", pre_tokenizer=sequence(
            split("e", behavior, False, False), NO_REGEX)))
    for form in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase"):
        out.append(byte_variant(form, normalizer={"type": form}))
    out += [
        byte_variant("strip", normalizer={"type": "Strip", "strip_left": True, "strip_right": True}),
        byte_variant("strip right", normalizer={"type": "Strip", "strip_left": False, "strip_right": True}),
        byte_variant("replace regex", normalizer=norms(
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": "_"},
            {"type": "Replace", "pattern": {"Regex": r"[0-9]"}, "content": ""})),
        byte_variant("added", added_tokens=BYTE_ADDED + [
            token(349, "<tool>", False), token(350, "<end>", False, lstrip=True),
            token(351, "<word>", False, single_word=True, rstrip=True), token(352, "the quick", False, normalized=True)]),
        byte_variant("added and lowercase", normalizer={"type": "Lowercase"}, same_text=False, added_tokens=BYTE_ADDED + [
            token(349, "HELLO", False, normalized=True), token(350, "CAFÉ", False)]),
        char_variant("llama 2"),
        char_variant("llama 2 as published", added_tokens=[{**t, "normalized": True} for t in CHAR_ADDED]),
        char_variant("no fallback", model={"byte_fallback": False}),
        char_variant("no fallback, unknowns apart", model={"byte_fallback": False, "fuse_unk": False}),
        char_variant("no unknown", model={"byte_fallback": False, "unk_token": None}),
        char_variant("gemma", normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
                     decoder={"type": "Sequence", "decoders": LLAMA_DECODER["decoders"][:3]},
                     pre_tokenizer=split(" ", "MergedWithPrevious", False, False)),
    ]
    for scheme in ("always", "first", "never"):
        for cut in (True, False):
            meta = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": cut}
            out.append(char_variant(f"metaspace {scheme} {cut}", normalizer=None, pre_tokenizer=meta,
                                    decoder={**meta, "split": True}, same_text=scheme == "never"))
    out.append(char_variant("metaspace of old", normalizer=None, same_text=False,
                            pre_tokenizer={"type": "Metaspace", "replacement": "▁", "add_prefix_space": True},
                            decoder={"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}))
    return out


def components():
    models_ = bases()
    result = []
    for variant in variants():
        whole = {"version": "1.0", "truncation": None, "padding": None,
                 **{key: variant[key] for key in ("added_tokens", "normalizer", "pre_tokenizer", "post_processor",
                                                  "decoder")},
                 "model": {**models_[variant["base"]], **variant["model"]}}
        tokenizer = Tokenizer.from_str(json.dumps(whole))
        cases = []
        for text in SAMPLES:
            tokenizer.encode_special_tokens = True
            plain = tokenizer.encode(text, add_special_tokens=False).ids
            tokenizer.encode_special_tokens = False
            special = tokenizer.encode(text, add_special_tokens=False).ids
            decoded = tokenizer.decode(plain, skip_special_tokens=False)
            cases.append([text, plain, special if special != plain else None, decoded if decoded != text else None])
        # The first id that encoding an ordinary text adds.
        encoded = tokenizer.encode("x", add_special_tokens=True).ids
        bos = encoded[0] if len(encoded) > len(tokenizer.encode("x", add_special_tokens=False).ids) else -1
        result.append({**variant, "bos": bos, "cases": cases})
    return {"bases": models_, "variants": result}


def rules_model():
    rules = "\n".join(["41\t61", "FB01\t66 69", "2460\t31", "9\t20", "A\t20", "A0\t20", "63 61 66 65\t63 61 66 E9",
                       "200B\t"])
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/rules.tsv", "w", encoding="utf-8") as file:
            file.write(rules + "\n")
        with open(folder + "/text.txt", "w", encoding="utf-8") as file:
            file.write("\n".join(CORPUS.split(". ")))
        sentencepiece.SentencePieceTrainer.train(
            input=folder + "/text.txt", model_prefix=folder + "/m", model_type="bpe", vocab_size=420,
            byte_fallback=True, normalization_rule_tsv=folder + "/rules.tsv", user_defined_symbols=["<tool>", "he"],
            hard_vocab_limit=False, minloglevel=2)
        with open(folder + "/m.model", "rb") as file:
            proto = sentencepiece_model_pb2.ModelProto.FromString(file.read())
    proto.trainer_spec.ClearField("input")  # paths of the folder above
    proto.trainer_spec.ClearField("model_prefix")
    proto.normalizer_spec.ClearField("normalization_rule_tsv")
    blob = proto.SerializeToString()
    with open(os.path.join(HERE, "sample_rules.model"), "wb") as file:
        file.write(blob)
    model = sentencepiece.SentencePieceProcessor(model_proto=blob)
    return [[text, model.encode(text)] for text in SAMPLES + TEXTS]


def seeds():
    """For tests/fuzz: one tiny vocabulary under many components, and one file of every other kind."""
    folder = os.path.join(HERE, "..", "fuzz", "corpus", "tokenizer")
    os.makedirs(folder, exist_ok=True)
    spell = alphabet()
    byte_vocab = {spell[b]: b for b in range(256)}
    for piece in ("th", "the", spell[32] + "the"):
        byte_vocab[piece] = len(byte_vocab)
    char_vocab = {c: i for i, c in enumerate(["<unk>", "<s>", "▁", "t", "h", "e", "a", "<0xC3>", "<0xA9>", "th", "the",
                                              "▁the", "aa", "aaaa"])}
    small = {"byte": {"type": "BPE", "vocab": {c: i for c, i in byte_vocab.items() if c in "the " + spell[32] or i > 90},
                      "merges": [["t", "h"], ["th", "e"], [spell[32], "the"]]},
             "char": {"type": "BPE", "vocab": char_vocab, "unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True,
                      "merges": ["t h", "th e", "▁ the", "a a", "aa aa"]}}
    wanted = ["template", "threes from the right", "split MergedWithNext True", "punctuation Contiguous", "NFKC",
              "Lowercase", "replace regex", "strip", "added", "llama 2", "metaspace first True", "gemma", "whitespace"]
    for variant in variants():
        if variant["name"] not in wanted:
            continue
        whole = {key: variant[key] for key in ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder")}
        whole["added_tokens"] = [t for t in whole["added_tokens"] if t["id"] > 300] + [token(0, "<s>", True)]
        whole["model"] = {**small[variant["base"]], **variant["model"]}
        if variant["base"] == "char":
            whole["added_tokens"] = [token(1, "<s>", True)]
        name = variant["name"].replace(" ", "_") + ".json"
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(whole, file, ensure_ascii=False, separators=(",", ":"))
    ranks = b"".join(base64.b64encode(piece) + b" %d\n" % i
                     for i, piece in enumerate([bytes([b]) for b in range(256)] + [b"th", b"the", b" the"]))
    vocab = json.dumps(byte_vocab, ensure_ascii=False).encode()
    with open(os.path.join(HERE, "sample_rules.model"), "rb") as file:
        sentences = file.read()
    for name, data in (("ranks", ranks), ("sentencepiece", sentences),
                       ("vocab", vocab + b"\0#version: 0.2\nt h\nth e\n" + spell[32].encode() + b" the\n")):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(data)


def write(name, value):
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, separators=(",", ":"))
        file.write("\n")


write("golden_components.json", components())
write("sample_rules.json", rules_model())
seeds()
if DATA:
    write("golden_families.json", families())
