"""Records what `src/diffusion/text` is compared with: tests/golden/text/{tokens,prompts}.json, {clip,encode}.safetensors.

    python text.py PATH/TO/ComfyUI            everything; ComfyUI 0.8.0 (commit 618b803d), torch 2.15.0, transformers 5.23.0,
                                              tokenizers 0.23.3, safetensors 0.8.0
    python text.py PATH/TO/ComfyUI slow       adds to tokens.json where the tokenizer in pure Python of transformers 4.57.3
                                              (tokenizers 0.22.1, no ftfy), which ComfyUI ran with until 2026, differs

No model is stored. Weights and embeddings are numbers hashed from their names (`numbers`), which the tests hash again.
"""

import json
import pathlib
import random
import sys
import tempfile

import numpy as np

OUT = pathlib.Path(__file__).with_name("text")
VOCABULARY, CONTEXT, BEGIN, END = 49408, 77, 49406, 49407


# --- weights without files ------------------------------------------------------------------------------------------------


def hashed(x):
    """A mixing function on 32-bit numbers (multiply and shift, constants by Wellons)."""
    x = x.astype(np.uint32)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def numbers(name, shape, scale, offset=0.0):
    """`scale · u + offset`, `u` even over -1 to 1, rounded to f16."""
    seed = 0x811C9DC5
    for byte in name.encode():
        seed = (seed ^ byte) * 0x01000193 % 2**32
    count = int(np.prod(shape))
    bits = hashed(np.arange(count, dtype=np.uint32) + hashed(np.array([seed], dtype=np.uint32)))
    even = (bits >> np.uint32(8)).astype(np.float32) / np.float32(2**23) - np.float32(1)
    return (even * np.float32(scale) + np.float32(offset)).astype(np.float16).reshape(shape)


def encoder(width, layers, hidden):
    """A text encoder's tensors below `text_model.`, by name."""
    linear = lambda out, into: {"weight": ((out, into), 1.7 * into**-0.5, 0.0), "bias": ((out,), 0.2, 0.0)}
    norm = {"weight": ((width,), 0.4, 1.0), "bias": ((width,), 0.2, 0.0)}
    parts = {
        "embeddings.token_embedding": {"weight": ((VOCABULARY, width), 1.0, 0.0)},
        "embeddings.position_embedding": {"weight": ((CONTEXT, width), 0.5, 0.0)},
        "final_layer_norm": norm,
    }
    for i in range(layers):
        layer = f"encoder.layers.{i}."
        for name in ["q_proj", "k_proj", "v_proj", "out_proj"]:
            parts[f"{layer}self_attn.{name}"] = linear(width, width)
        parts |= {layer + "layer_norm1": norm, layer + "layer_norm2": norm}
        parts |= {layer + "mlp.fc1": linear(hidden, width), layer + "mlp.fc2": linear(width, hidden)}
    return {f"{part}.{kind}": numbers(f"{part}.{kind}", *how) for part, kinds in parts.items() for kind, how in kinds.items()}


# --- texts ----------------------------------------------------------------------------------------------------------------

TEXTS = [
    "", " ", "\n\t ", "a photo of a cat", "A Photo Of A CAT", "a photo of a cat, highly detailed, 8k, masterpiece",
    "don't we'll they've I'm it's you'd we're", "DON'T WE'LL IT'S", "'s's 't ''s '", "rock'n'roll o'clock 'tis", "it’s",
    "1234567890", "3.14159 -2e10 1,000,000", "f/1.8, 35mm, ISO100", "½ ¾ ² ³ ¹ Ⅷ ⅳ ⑤ ٣ ४ ９ 𝟗 〇 三", "!!! ?? ... --- ___ ~~~",
    "!!!!!!!!!!!!!!!!!!!!!!!!", "((([[[{{{<<<>>>}}}]]])))", "a,b;c:d|e/f\\g", "#hashtag @user $100 50% a&b c*d e+f=g ^h `i`",
    "café naïve über Ångström façade jalapeño", "cafe\u0301 nai\u0308ve u\u0308ber A\u030angstro\u0308m", "ÉCOLE ÜBER ÑANDÚ ŒUVRE ÆON",
    "İstanbul ISPARTA ıspanak", "Straße STRASSE ẞ", "ΣΊΣΥΦΟΣ ΟΔΥΣΣΕΎΣ σοφός ΟΔΟΣ Σ", "Привет, мир! ЁЖИК Ё", "שָׁלוֹם עולם", "مرحبا بالعالم ١٢٣",
    "नमस्ते दुनिया क्षत्रिय", "สวัสดีชาวโลก", "안녕하세요 한글", "\u1112\u1161\u11ab\u1100\u1173\u11af", "こんにちは 世界 カタカナ ﾊﾝｶｸ", "か\u3099き\u3099",
    "漢字 汉字 漢字テスト a漢b字c", "\uf900\ufa10 \u2f00", "ｆｕｌｌ　ｗｉｄｔｈ　１２３！", "Å \u212b \u2126 \u212a ﬁ ﬀ ﬃ", "ǅ ǆ Ǆ Ǳ",
    "🙂", "🙂🙂🙂 cat 🐈", "👨‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇩🇪 1️⃣ ❤️", "☃ ★ ☆ ♥ → ∞ ≠ √ ∑ π µ", "𝓯𝓪𝓷𝓬𝔂 𝕥𝕖𝕩𝕥 𝐀", "\U0001f9ff\U00020000\U000e0041",
    "\u200b", "a\u200bb a\u200cb a\u200db a\u2060b", "a\u00a0b a\u3000b a\u2003b a\u202fb", "a\u00adb", "\ufeffbom", "\ufffd \ue000",
    "a\x00b", "a\x01b\x02c", "a\x1cb\x1db\x1eb\x1fb", "a\x7fb\x80c\x85d\x9fe", "tab\tnew\nline\r\nreturn\rform\x0cfeed\x0bvertical",
    "\u2028line\u2029paragraph\u1680ogham\u180e", "a" * 80, "ab" * 200, "supercalifragilisticexpialidocious", "x" * 3 + "y" * 30 + "!" * 9,
    "pneumonoultramicroscopicsilicovolcanoconiosis Donaudampfschifffahrtsgesellschaft", "aaa aaaa aaaaa aaaaaa aaaaaaa", "zzzzzzz hmmmmm nooooooo",
    "<|startoftext|>", "<|endoftext|>", "a<|endoftext|>b", "a <|endoftext|> b <|startoftext|>", "<|endoftext|><|endoftext|>", "!<|endoftext|>!",
    "<|endoftext|", "<|EndOfText|>", "a<|ENDOFTEXT|>b", "!<|ENDOFTEXT|>!", "x <|StartOfText|>!?", "<| endoftext |>", "</w> a</w> b", "<|startoftext",
    "https://example.org/a_b?c=d&e=%20#f", "C:\\Users\\me\\file.png", "me@example.org", "snake_case camelCase kebab-case SCREAMING_CASE",
    "by Greg Rutkowski and Alphonse Mucha", "(masterpiece:1.2), [blurry], {a|b}", "ELIZABETH'S ſ's K's", "a'S b'T c'RE d'LL", "e\u0301\u0302 q\u0323\u0307 \u0301a",
    "\u0958\u2adc \u0344 \u0f73", "ﷺ ﷽ ㎏ ㍿ ™ © ® ℡", "ͺ ΐ ᾳ ᾼ ʼn", "ＡＢＣ ａｂｃ", "Ⅻ ⅻ Ⓐ ⓐ", "𐐀𐐨 ꭰᎠ", "ა Ა ᏸ", "ŉ ǰ ẖ ẗ ẘ ẙ ẚ",
]

POOLS = [
    "a cat dog photo of the painting in style detailed light Red GREEN Vincent van Gogh 's 't 'll 're we're it's x y z".split(),
    list(".,;:!?'\"()[]{}<>/\\|@#$%^&*-_=+~`"), ["...", "!!", "?!", "--", "::", "'", "''", "\"'", "|>", "<|"],
    list("0123456789½²٣Ⅷ①９"), list("éèüñçøåßÆœĳİıŁǅſ"), ["e\u0301", "a\u0308", "\u0301", "\u0327\u0301", "o\u0302\u0301", "q\u0323"],
    list("αβγΣςΩπΆΐ"), list("абвЁЙжщ"), list("אבגשׁ"), list("ابةلا١"), list("कखिी्४"), list("กขคำ้"), list("가나다한"), ["\u1100\u1161", "\u1112\u1161\u11ab", "\u11a8"],
    list("あいうがぱんーアイウ"), list("漢字仮名豈更"), list("🙂🐈👍🚀❤★→"), ["👨‍👩‍👧", "🏽", "\ufe0f", "\u200d", "🇫🇷", "1️⃣"], list("𝐀𝒷𝟗𐐀𠀀"),
    [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2009", "\u0085", "\u2028"], list("\x00\x01\x08\x1b\x1c\x1f\x7f\x9f"), ["\u200b", "\u00ad", "\ufeff", "\u2060"],
    ["<|endoftext|>", "<|startoftext|>", "<|EndOfText|>", "</w>"],
]


def random_text(dice):
    pools = dice.sample(POOLS, dice.randint(1, 5)) + [[" "]]
    return "".join(dice.choice(dice.choice(pools)) + dice.choice(["", "", " "]) for _ in range(dice.randint(1, 24)))


def texts():
    dice = random.Random(1)
    return TEXTS + [random_text(dice) for _ in range(320)]


def tokenizer(comfyui):
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(str(pathlib.Path(comfyui) / "comfy" / "sd1_tokenizer"))


def record_tokens(comfyui):
    tokenize = tokenizer(comfyui)
    cases = [{"text": text, "tokens": tokenize(text)["input_ids"][1:-1]} for text in texts()]
    write_json("tokens.json", cases)


def record_slow_tokens(comfyui):
    sys.modules["ftfy"] = None
    tokenize = tokenizer(comfyui)
    cases = json.loads((OUT / "tokens.json").read_text())
    for case in cases:
        slow = tokenize(case["text"])["input_ids"][1:-1]
        if slow != case["tokens"]:
            case["slow"] = slow
    write_json("tokens.json", cases)
    print(sum("slow" in case for case in cases), "of", len(cases), "texts differ")


# --- prompts --------------------------------------------------------------------------------------------------------------

# Name, vectors, width, key in the file. `flat` is one vector without a dimension for the number of vectors.
EMBEDDINGS = [("one", 1, 64, "emb_params"), ("three", 3, 64, "clip_l"), ("nine", 9, 64, "emb_params"), ("wide", 2, 128, "emb_params"),
              ("flat", 0, 64, "emb_params"), ("many", 80, 64, "emb_params"), ("a-b_c.1", 1, 64, "emb_params")]

LONG = ("a highly detailed oil painting of an old lighthouse on a cliff above a stormy sea at dusk, waves breaking on black rocks, gulls "
        "circling, a small red boat returning to the harbour, warm light in the windows, dramatic clouds, rain in the distance, in the "
        "style of the romantic school, thick brush strokes, muted colours, wide angle, golden ratio, museum quality, varnished canvas")

PROMPTS = [
    "", " ", "a photo of a cat", "a (cat)", "a ((cat))", "(((cat)))", "a (cat:1.3) on a (mat:0.7)", "((a:1.2))", "((a:1.2):1.5)", "((a:1.2) b)", "(a:b:1.3)",
    "(:1.3)", "()", "(())", "( )", "(a", "a)", "a) (b)", "a)( (b)", "(a (b)", "(a) (b", "(a)) (b)", "((a)", "((a) b", ")(", "(", ")", "(()", "())", "(a:1.2", "a:1.2)",
    "[a] {b}", "[(a):2]", r"\(a\)", r"(\(a\):1.5)", r"(a\)", r"\((a)\)", r"a\\(b)", "\\", r"\\", r"(a\:1.2)", "(a: 1.2 )", "(a:+1.2)", "(a:-1)", "(a:0)", "(a:.5)", "(a:5.)",
    "(a:1e-1)", "(a:1_0)", "(a:1__0)", "(a:１.５)", "(a:٣)", "(a:1,5)", "(a:1.2.3)", "(a:)", "(a: )", "(a:b)", "(a::1.2)", "(a:1.0)", "(a:1)", "((a:1.0))", "(a:1.1)",
    "(a :1.2) ,b", "(a\n:1.2)", "a (b c d:1.2), e ((f)), (g (h:0.5) i:1.4)", "(((((((((((((((deep)))))))))))))))", "(a:1.2)(b:1.3)(c)", "x(a:1.2)y",
    "embedding:one", "a embedding:one b", "a, embedding:one, b", "a,embedding:one b", "a\nembedding:one\nb", "(embedding:one:1.2)", "(a embedding:three b:1.3) c", "embedding:three",
    "embedding:nine", "embedding:wide", "a embedding:wide b c", "(embedding:wide:1.4) (b:1.2)", "embedding:flat x", "embedding:missing", "embedding:missing a b", "a embedding:missing, b",
    "embedding:one,", "embedding:,one,", "embedding:one,,", "embedding:one,b", "embedding:one embedding:three", "embedding:one, embedding:three", "embedding:one\nembedding:three", " embedding:one",
    "\nembedding:one", "  embedding:one", "embedding: one", "a embedding: embedding:one", "embedding:embedding:one", "xembedding:one", "Embedding:one", "embedding:ONE", "embedding:a-b_c.1.", "embedding:a-b_c.1",
    "embedding:one\tb  c\u3000d", "embedding:(one:1.2)", "embedding:one (b)", "(embedding:one)", "((embedding:one) b)", "embedding:one.safetensors", "embedding:many", "a b c embedding:many d",
    "<|endoftext|> a", "a <|endoftext|> b", "a <|endoftext|> embedding:one b", "a <|endoftext|> (b:1.2)", "<|startoftext|>",
    LONG, LONG + ", " + LONG, LONG + ", (masterpiece:1.2), " + LONG, "(" + LONG + ":1.2)", ", ".join(["(red:1.1)", "blue", "(dark green:0.9)"] * 14),
    "cat " * 75, "cat " * 76, "cat " * 74 + "(dog:1.2)", "cat " * 75 + "(dog:1.2)", "cat " * 70 + "(one two three four five:1.2)", "cat " * 70 + "(one two three four five six:1.2)",
    "cat " * 70 + "(one two three four five six seven:1.2)", "cat " * 70 + "(one two three four five six seven eight:1.2)", "cat " * 74 + " embedding:three b", "cat " * 70 + " embedding:nine b",
    "cat " * 75 + " embedding:nine", "cat " * 150, "cat " * 151, "漢字 (🙂:1.3) café",
]

PIECES = ["a", "cat ", " dog", ", ", ":", ":1.2", ":0.5", "(", "(", ")", ")", ":1.3)", "((", "))", r"\(", r"\)", "\\", "[", "]", " embedding:one", "embedding:three", " embedding:missing,", "\n", " "]


def prompts():
    dice = random.Random(2)
    return PROMPTS + ["".join(dice.choice(PIECES) for _ in range(dice.randint(3, 16))) for _ in range(120)]


def embedding(name, rows, width):
    return numbers(name, (rows, width) if rows else (width,), 1.0).astype(np.float32)


def write_embeddings(folder):
    from safetensors.numpy import save_file

    for name, rows, width, key in EMBEDDINGS:
        save_file({key: embedding(name, rows, width)}, pathlib.Path(folder) / f"{name}.safetensors")


def clip_tokenizer(folder, **how):
    from comfy.sd1_clip import SDTokenizer

    return SDTokenizer(embedding_directory=folder, embedding_size=64, **how)


def named(token):
    """A vector as `name/row`, found again by its first numbers."""
    if isinstance(token, int):
        return token
    for name, rows, width, _ in EMBEDDINGS:
        for row, vector in enumerate(embedding(name, rows, width).reshape(-1, width)):
            if token.shape[-1] == width and np.array_equal(vector, token.numpy()):
                return f"{name}/{row}"
    raise ValueError("an unknown vector")


def without_padding(chunk, pad):
    chunk = [(named(token), weight) for token, weight in chunk]
    while chunk and chunk[-1] == (pad, 1.0):
        chunk.pop()
    return {"tokens": [token for token, _ in chunk], "weights": [weight for _, weight in chunk]}


def record_prompts():
    from comfy.sd1_clip import escape_important, token_weights, unescape_important

    cases = []
    with tempfile.TemporaryDirectory() as folder:
        write_embeddings(folder)
        for pad, how in [(END, {}), (0, {"pad_with_end": False})]:
            tokenize = clip_tokenizer(folder, **how)
            for prompt in prompts() if pad else PROMPTS[::9]:
                try:
                    chunks = tokenize.tokenize_with_weights(prompt)
                except IndexError:  # `embedding:` without a name ends ComfyUI's node.
                    continue
                assert all(len(chunk) == CONTEXT for chunk in chunks)
                weighted = token_weights(escape_important(prompt), 1.0)
                case = {"prompt": prompt, "pad": pad}
                case["segments"] = [[unescape_important(text), weight] for text, weight in weighted]
                case["chunks"] = [without_padding(chunk, pad) for chunk in chunks]
                cases.append(case)
    write_json("prompts.json", cases)


# --- encoders -------------------------------------------------------------------------------------------------------------

# Name, width, layers, hidden width, nonlinearity.
ENCODERS = [("two-heads", 128, 3, 320, "quick_gelu"), ("one-head", 64, 2, 256, "gelu")]


def config(width, layers, hidden, activation):
    return {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": hidden, "hidden_act": activation,
            "vocab_size": VOCABULARY, "num_attention_heads": width // 64, "max_position_embeddings": CONTEXT,
            "layer_norm_eps": 1e-5, "bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": END, "projection_dim": width}


def tensors(width, layers, hidden, prefix=""):
    import torch

    arrays = encoder(width, layers, hidden)
    return {prefix + name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()}


def record_clip():
    """States of transformers' `CLIPTextModel`, `<encoder>.hidden.<n>` after n blocks, `.last` after the final norm."""
    import torch
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel

    dice = random.Random(3)
    long, short = [dice.randrange(VOCABULARY - 2) for _ in range(75)], [dice.randrange(VOCABULARY - 2) for _ in range(9)]
    rows = [[BEGIN, *long, END], [BEGIN, *short] + [END] * (CONTEXT - 10)]
    out = {"ids": torch.tensor(rows, dtype=torch.float32)}
    for name, *shape in ENCODERS:
        model = CLIPTextModel(CLIPTextConfig(**config(*shape))).eval()
        prefix = "text_model." if any(key.startswith("text_model.") for key in model.state_dict()) else ""
        missing, unexpected = model.load_state_dict(tensors(*shape[:3], prefix), strict=False)
        assert not unexpected and all("position_ids" in key for key in missing), (missing, unexpected)
        with torch.no_grad():
            states = model(torch.tensor(rows), output_hidden_states=True)
        # Every seventh token: a wrong one changes those after it.
        for n, hidden in enumerate(states.hidden_states[1:], 1):
            out[f"{name}.hidden.{n}"] = hidden[:, ::7].contiguous()
        out[f"{name}.last"], out[f"{name}.pooled"] = states.last_hidden_state[:, ::7].contiguous(), states.pooler_output
    save_file(out, OUT / "clip.safetensors")


# Name, prompt, layer (none: as the family has it), how the family differs from Stable Diffusion 1.x.
G_LIKE = {"layer": "hidden", "layer_idx": -2, "layer_norm_hidden_state": False}
ENCODED = [
    ("plain", "a photo of a cat", None, {}),
    ("empty", "", None, {}),
    ("weights", "a (cat:1.3) on a (mat:0.7), ((sharp))", None, {}),
    ("negative", "a (cat:-0.5) (dog:0)", None, {}),
    ("two-chunks", "(" + LONG + ":1.2)" + " and " + LONG, None, {}),
    ("skip-1", "a (cat:1.3)", -1, {}),
    ("skip-2", "a (cat:1.3) on a mat", -2, {}),
    ("skip-3", "a (cat:1.3) on a mat", -3, {}),
    ("skip-all", "a (cat:1.3) on a mat", -24, {}),
    ("embedding", "a (embedding:three:1.2) cat, embedding:one, on a mat", None, {}),
    ("embedding-misfit", "a (embedding:wide:1.4) cat, (mat:1.3) embedding:one", None, {}),
    ("early-end", "a <|endoftext|> cat embedding:one dog", None, {}),
    ("g-like", "a (cat:1.3) on a mat", None, G_LIKE),
    ("g-like-skip-1", "a cat on a mat", -1, G_LIKE),
    ("g-like-skip-all", "a cat on a mat", -9, G_LIKE),
]


def record_encode():
    """Whole encodings by ComfyUI: `<case>.cond`, `<case>.pooled` (unprojected)."""
    import torch
    from comfy.sd1_clip import SDClipModel
    from safetensors.torch import save_file

    out, (width, layers, hidden) = {}, (64, 3, 192)
    with tempfile.TemporaryDirectory() as folder:
        write_embeddings(folder)
        for name, prompt, stop, family in ENCODED:
            pad = 0 if family else END
            tokenize = clip_tokenizer(folder, pad_with_end=not family)
            model = SDClipModel(textmodel_json_config=config(width, layers, hidden, "quick_gelu"), dtype=torch.float16,
                                special_tokens={"start": BEGIN, "end": END, "pad": pad},
                                return_projected_pooled=False, **family)
            missing, unexpected = model.load_sd(tensors(width, layers, hidden, "text_model."))
            assert not unexpected and missing == ["text_projection.weight"], (missing, unexpected)
            if stop is not None:
                model.set_clip_options({"layer": stop})
            with torch.no_grad():
                cond, pooled = model.encode_token_weights(tokenize.tokenize_with_weights(prompt))
            out[f"{name}.cond"], out[f"{name}.pooled"] = cond.contiguous(), pooled.contiguous()
    cases = {case: {"prompt": prompt, "stop": stop, "g_like": bool(family)} for case, prompt, stop, family in ENCODED}
    save_file(out, OUT / "encode.safetensors", {case: json.dumps(how) for case, how in cases.items()})


def write_json(name, cases):
    lines = ",\n".join(json.dumps(case) for case in cases)
    (OUT / name).write_text(f"[\n{lines}\n]\n")


def main():
    comfyui = sys.argv[1]
    OUT.mkdir(exist_ok=True)
    if sys.argv[2:] == ["slow"]:
        return record_slow_tokens(comfyui)
    sys.argv[1:] = ["--cpu"]
    sys.path.insert(0, comfyui)
    import comfy.options

    comfy.options.enable_args_parsing()
    record_tokens(comfyui)
    record_prompts()
    record_clip()
    record_encode()


if __name__ == "__main__":
    main()
