#!/usr/bin/env python3
"""Hold Keel's import and export against Hugging Face's transformers: small random models, there and back.

    python3 scripts/compare_transformers.py build/keel work/

Not part of the tests; transformers, PyTorch and gguf are no dependencies of Keel (pip install torch transformers gguf).
For each architecture a random model is written by transformers and imported; its logits, by transformers in double and
by `keel dump`, must agree. Then Keel exports it as a folder and as a GGUF file, and transformers reads both: again the
same logits (transformers reads no GGUF file of OLMo 2). Prints the largest difference of a logit over the largest logit.
At last the gguf package encodes and decodes every tensor in every type; how many differ from Keel's in a bit is printed
too. Exit code 1 where that is not 0, or a difference is above 5e-6 (transformers turns rotary positions in f32 always).
"""
import json
import os
import subprocess
import sys

import gguf
import numpy as np
import tokenizers
import torch
import transformers

BOUND = 5e-6
SOURCE = os.path.abspath(__file__)
VOCAB, CONTEXT = 320, 32
ROPE = dict(vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=CONTEXT, pad_token_id=None, bos_token_id=0, eos_token_id=0,
            initializer_range=0.2)
MODELS = {
    "gpt2": (transformers.GPT2Config, dict(vocab_size=VOCAB, n_embd=64, n_layer=2, n_head=4, n_positions=1024,
                                           initializer_range=0.2, bos_token_id=0, eos_token_id=0)),
    "llama": (transformers.LlamaConfig, dict(ROPE, tie_word_embeddings=False)),
    "llama, tied": (transformers.LlamaConfig, dict(ROPE, tie_word_embeddings=True)),
    "qwen2": (transformers.Qwen2Config, dict(ROPE, tie_word_embeddings=False)),
    "qwen3": (transformers.Qwen3Config, dict(ROPE, head_dim=128, tie_word_embeddings=True)),
    "olmo2": (transformers.Olmo2Config, dict(ROPE, tie_word_embeddings=False)),
    "mistral": (transformers.MistralConfig, dict(ROPE, sliding_window=5, tie_word_embeddings=False)),
}
GGUF_READ = ("gpt2", "llama", "qwen2", "qwen3")


def keel(*arguments):
    done = subprocess.run([sys.argv[1], *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"keel {' '.join(arguments)}: {done.stderr}")


def read_logits(path):
    kinds = {"F32": np.float32, "F64": np.float64}
    with open(path, "rb") as f:
        data = f.read()
    size = int.from_bytes(data[:8], "little")
    about = json.loads(data[8:8 + size])["logits"]
    begin, end = (8 + size + at for at in about["data_offsets"])
    return np.frombuffer(data[begin:end], kinds[about["dtype"]]).reshape(about["shape"])


def logits_of(model, tokens):
    with torch.no_grad():
        return model.double().eval()(torch.tensor(tokens)).logits.numpy()


def load(*place, **more):
    return transformers.AutoModelForCausalLM.from_pretrained(*place, dtype=torch.float32, attn_implementation="eager",
                                                             **more)


def randomize(model):
    for name, p in model.named_parameters():  # gains not 1, biases not 0
        if p.ndim == 1:
            torch.nn.init.normal_(p, mean=0.0 if "bias" in name else 1.0, std=0.2)


def write_tokenizer(folder):
    """A byte-level BPE of VOCAB tokens, of this file's own text."""
    t = tokenizers.Tokenizer(tokenizers.models.BPE())
    t.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=["<|endoftext|>"], show_progress=False,
                                             initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    with open(SOURCE, encoding="utf-8") as f:
        t.train_from_iterator(f, trainer)
    assert t.get_vocab_size() == VOCAB
    transformers.PreTrainedTokenizerFast(tokenizer_object=t, eos_token="<|endoftext|>").save_pretrained(folder)


def tokens_of(folder):
    with open(SOURCE, encoding="utf-8") as f:
        return transformers.AutoTokenizer.from_pretrained(folder).encode(f.read(), add_special_tokens=False)


def difference(a, b):
    return float(np.abs(a - b).max() / np.abs(b).max())


def read_tensors(path):
    with open(path, "rb") as f:
        data = f.read()
    size = int.from_bytes(data[:8], "little")
    return [np.frombuffer(data[8 + size + a["data_offsets"][0]:8 + size + a["data_offsets"][1]], np.float32)
            for name, a in json.loads(data[8:8 + size]).items() if name != "__metadata__"]


def compare_tensors(path, exact, imported):
    """How many tensors differ: what the gguf package encodes of the f32 file's tensor from what Keel wrote, or what
    it decodes from what Keel imports. (Rows change places and -0 is 0: values are compared sorted.)"""
    ours = {np.sort(x + 0.0).tobytes() for x in read_tensors(imported)}
    f32 = {t.name: t.data for t in gguf.GGUFReader(exact).tensors}
    different = 0
    for t in gguf.GGUFReader(path).tensors:
        values = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        same = np.array_equal(gguf.quants.quantize(f32[t.name], t.tensor_type).view(np.uint8), t.data.view(np.uint8))
        different += not same
        if "qkv" not in t.name:  # GPT-2's q, k and v are three tensors here
            different += np.sort(values.ravel() + 0.0).tobytes() not in ours
    return different


def main():
    os.makedirs(sys.argv[2], exist_ok=True)
    os.chdir(sys.argv[2])
    torch.manual_seed(1)
    tokens = torch.randint(0, VOCAB, (3, CONTEXT)).tolist()
    with open("tokens", "w") as f:
        f.writelines(" ".join(map(str, row)) + "\n" for row in tokens)
    failed = False
    print(f"{'model':14}{'import':>10}{'export':>10}{'gguf':>10}   tensors that differ: f32, f16, q8_0, q4_0")
    for name, (kind, settings) in MODELS.items():
        base = name.replace(", ", "-")
        model = transformers.AutoModelForCausalLM.from_config(kind(**settings), attn_implementation="eager")
        randomize(model)
        model.save_pretrained(f"{base}-theirs")
        write_tokenizer(f"{base}-theirs")
        wanted = logits_of(load(f"{base}-theirs"), tokens)
        keel("import", f"{base}-theirs", "--out", f"{base}-run")
        keel("dump", f"{base}-run", "--tokens", "tokens", "--out", f"{base}.logits")
        row = [difference(read_logits(f"{base}.logits"), wanted)]
        keel("export", f"{base}-run", "--out", f"{base}-ours")
        row.append(difference(logits_of(load(f"{base}-ours"), tokens), wanted))
        if tokens_of(f"{base}-ours") != tokens_of(f"{base}-theirs"):
            sys.exit(f"{name}: the exported tokenizer encodes otherwise")
        if base != "mistral":  # its window has no place in a GGUF file
            for dtype in ("f32", "f16", "q8_0", "q4_0"):
                keel("export", f"{base}-run", "--dtype", dtype, "--out", f"{base}-{dtype}.gguf")
                keel("import", f"{base}-{dtype}.gguf", "--out", f"{base}-{dtype}")
                if dtype == "f32" and base.split("-")[0] not in GGUF_READ:
                    row.append(None)
                elif dtype == "f32":
                    os.makedirs("gguf", exist_ok=True)
                    there = load(".", gguf_file=f"{base}-f32.gguf")
                    row.append(difference(logits_of(there, tokens), wanted))
                row.append(compare_tensors(f"{base}-{dtype}.gguf", f"{base}-f32.gguf",
                                           f"{base}-{dtype}/step_0/model.safetensors"))
        print(f"{name:14}" + "".join(f"{'-':>10}" if x is None else f"{x:10}" if isinstance(x, int) else f"{x:10.1e}"
                                     for x in row))
        failed = failed or any(x is not None and not x <= BOUND for x in row)
    sys.exit(failed)


main()
