#!/usr/bin/env python3
"""Hold Keel against PyTorch: the same weights, the same batches, two programs that share no line.

    python3 scripts/compare_pytorch.py build/keel work/

Not part of the tests, and PyTorch is no dependency of Keel: whoever doubts the numbers of docs/verification.md runs
this with a PyTorch of theirs (pip install torch, or Debian's python3-torch). It trains two small models for 100 steps
in f32 with both, then compares logits and gradients of the trained weights in double with those of `keel dump`, and
prints the tables of that page. The text is Keel's own source. Exit code 1 where a bound is missed.

The model below is written from the papers; what is Keel's own are the names of the weights, read from
model.safetensors, and the shards' layout (src/data/shard.h).
"""
import json
import math
import os
import subprocess
import sys

import torch

STEPS = 100
SHAPE = "model.layers=4 model.width=64 model.context=64 model.attention.heads=4 train.batch_tokens=512"
MODELS = {
    "gpt2-like": "model.bias=true model.position.kind=learned model.norm.kind=layer model.norm.affine=scale_bias "
                 "model.ffn.kind=mlp model.ffn.activation=gelu_tanh model.ffn.width=256",
    "llama-like": "model.attention.kv_heads=2 model.norm.preset=pre_qk model.ffn.width=192 model.tie_head=false "
                  "model.head.z_loss=1e-4",
}
TRAINING = ("data.train=src data.document=blank_line data.vocab=1024 data.order=sequential train.precision=f32 "
            "train.clip=1 train.schedule.kind=constant train.schedule.warmup=0% train.checkpoint.every=none "
            "train.evaluate.every=none")
LOSS_BOUND, DOUBLE_BOUND = 2e-5, 1e-10

# ---- files


def read_safetensors(path):
    kinds = {"F32": torch.float32, "F64": torch.float64}
    with open(path, "rb") as f:
        data = bytearray(f.read())
    size = int.from_bytes(data[:8], "little")
    arrays = {}
    for name, a in json.loads(data[8:8 + size]).items():
        if name != "__metadata__":
            begin, end = (8 + size + at for at in a["data_offsets"])
            arrays[name] = torch.frombuffer(data[begin:end], dtype=kinds[a["dtype"]]).reshape(a["shape"])
    return arrays


def read_shard(folder):
    """All tokens of the first training shard, and the id that ends a document."""
    with open(os.path.join(folder, "train-00000.bin"), "rb") as f:
        data = bytearray(f.read())
    width, tokens = int.from_bytes(data[12:16], "little"), int.from_bytes(data[16:24], "little")
    eos = int.from_bytes(data[52:56], "little")
    kind = torch.int16 if width == 2 else torch.int32
    ids = torch.frombuffer(data[64:64 + width * tokens], dtype=kind).long()
    return (ids & 0xFFFF if width == 2 else ids), eos


def read_settings(keel, path):
    """A run's resolved configuration: c["model.ffn.width"], as text."""
    out = subprocess.run([keel, "config", "resolve", path, "--json"], check=True, capture_output=True).stdout
    return {key: entry["value"] for key, entry in json.loads(out).items()}


# ---- batches: sample i is the T + 1 tokens from i T on


class Batch:
    def __init__(self, ids, eos, step, rows, T):
        at = (torch.arange(rows) + step * rows)[:, None] * T + torch.arange(T + 1)
        both = ids[at]
        self.tokens, self.targets = both[:, :-1], both[:, 1:].clone()
        self.start = torch.zeros_like(self.tokens)
        for t in range(1, T):  # the document begins behind the last end of text
            self.start[:, t] = torch.where(self.tokens[:, t - 1] == eos, t, self.start[:, t - 1])
        self.position = torch.arange(T) - self.start
        self.targets[self.tokens == eos] = -1  # the next document's first token is nobody's target


# ---- the model


def norm(c, w, name, x, kind):
    gain, bias = w[name + ".gain"], w.get(name + ".bias")
    eps = float(c["model.norm.eps"])
    if kind == "layer":
        return torch.nn.functional.layer_norm(x, x.shape[-1:], gain, bias, eps)
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * gain


def linear(w, name, x):
    return torch.nn.functional.linear(x, w[name + ".weight"], w.get(name + ".bias"))


def rotate(c, x, position):
    """x [B, T, heads, width], the pairs (i, i + width/2)."""
    half = x.shape[-1] // 2
    frequency = float(c["model.position.base"]) ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = (position[..., None] * frequency)[:, :, None, :]
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


def attention(c, w, p, x, batch):
    B, T, _ = x.shape
    heads = int(c["model.attention.heads"])
    kv = heads if c["model.attention.kv_heads"] == "auto" else int(c["model.attention.kv_heads"])
    q, k, v = (linear(w, p + n, x).view(B, T, h, -1) for n, h in ((".q", heads), (".k", kv), (".v", kv)))
    if p + ".norm_q.gain" in w:
        q, k = norm(c, w, p + ".norm_q", q, "rms"), norm(c, w, p + ".norm_k", k, "rms")
    if c["model.position.kind"] == "rope":
        q, k = rotate(c, q, batch.position), rotate(c, k, batch.position)
    k, v = (y.repeat_interleave(heads // kv, 2) for y in (k, v))
    scores = torch.einsum("bthw,bshw->bhts", q, k) / math.sqrt(q.shape[-1])
    t = torch.arange(T)
    seen = (t[None, None, :] <= t[None, :, None]) & (t[None, None, :] >= batch.start[:, :, None])
    weights = scores.masked_fill(~seen[:, None], -math.inf).softmax(-1)
    return linear(w, p + ".o", torch.einsum("bhts,bshw->bthw", weights, v).reshape(B, T, -1))


def feed_forward(c, w, p, x):
    if c["model.ffn.kind"] == "mlp":
        return linear(w, p + ".down", torch.nn.functional.gelu(linear(w, p + ".up", x), approximate="tanh"))
    return linear(w, p + ".down", torch.nn.functional.silu(linear(w, p + ".gate", x)) * linear(w, p + ".up", x))


def logits_of(c, w, batch):
    kind = c["model.norm.kind"]
    x = w["embedding.weight"][batch.tokens]
    if "position.weight" in w:
        x = x + w["position.weight"][batch.position]
    for layer in range(int(c["model.layers"])):
        p = f"blocks.{layer}."
        x = x + attention(c, w, p + "attention", norm(c, w, p + "attention.norm_pre", x, kind), batch)
        x = x + feed_forward(c, w, p + "ffn", norm(c, w, p + "ffn.norm_pre", x, kind))
    head = w["head.weight"] if "head.weight" in w else w["embedding.weight"]
    return norm(c, w, "norm_final", x, kind) @ head.T


def losses_of(c, logits, targets):
    """Mean next-token loss, and the objective: with z-loss."""
    valid = targets >= 0
    lse = logits.logsumexp(-1)
    nll = (lse - logits.gather(-1, targets.clamp(min=0)[..., None])[..., 0])[valid]
    return nll.mean(), (nll + float(c["model.head.z_loss"]) * lse[valid] ** 2).mean()


# ---- the two comparisons


def run_keel(keel, *arguments):
    environment = dict(os.environ, KEEL_REGISTRY=os.path.join(WORK, "runs.db"))
    done = subprocess.run([keel, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"keel {' '.join(arguments)}: {done.stderr}")


def train_keel(keel, name, steps, lr):
    """lr = 0 leaves the initial weights as they are: so they get into a checkpoint."""
    out = os.path.join(WORK, f"{name}-lr{lr}")
    if not os.path.exists(os.path.join(out, f"step_{steps}")):
        run_keel(keel, "train", *SHAPE.split(), *MODELS[name].split(), *TRAINING.split(), f"train.steps={steps}",
                 f"train.optimizer.lr={lr}", "--out", out)
    return out


def shards_of(run):
    folder = os.path.join(run, "data")
    return os.path.join(folder, next(n for n in os.listdir(folder) if n.startswith("shards-")))


def optimizer_of(c, w, lr):
    """Decay for matrices and the untied head only (train.optimizer.decay)."""
    decays = [n for n, x in w.items() if x.ndim == 2 and n not in ("embedding.weight", "position.weight")]
    groups = [{"params": [w[n] for n in decays], "weight_decay": float(c["train.optimizer.weight_decay"])},
              {"params": [x for n, x in w.items() if n not in decays], "weight_decay": 0.0}]
    betas = tuple(float(b) for b in c["train.optimizer.betas"].strip("[]").replace(",", " ").split())
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=float(c["train.optimizer.eps"]))


def compare_training(keel, name):
    lr = 1e-3
    start, run = train_keel(keel, name, 1, 0), train_keel(keel, name, STEPS, lr)
    c = read_settings(keel, os.path.join(run, "config.yaml"))
    T, rows = int(c["model.context"]), int(c["train.batch_tokens"]) // int(c["model.context"])
    ids, eos = read_shard(shards_of(run))
    w = {n: x.clone().requires_grad_() for n, x in
         read_safetensors(os.path.join(start, "step_1", "model.safetensors")).items()}
    with open(os.path.join(run, "metrics.jsonl")) as f:
        keel_steps = [m for m in map(json.loads, f) if "loss" in m]
    optimizer, losses, norms = optimizer_of(c, w, lr), [], []
    for step in range(STEPS):
        batch = Batch(ids, eos, step, rows, T)
        loss, objective = losses_of(c, logits_of(c, w, batch), batch.targets)
        optimizer.zero_grad()
        objective.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(list(w.values()), float(c["train.clip"])).item())
        optimizer.step()
        losses.append(loss.item())
    worst = max(abs(k["loss"] - p) for k, p in zip(keel_steps, losses))
    worst_norm = max(abs(k["grad_norm"] / p - 1) for k, p in zip(keel_steps, norms))
    shown = [0, STEPS // 4 - 1, STEPS // 2 - 1, STEPS - 1]
    for who, values in (("Keel", [k["loss"] for k in keel_steps]), ("PyTorch", losses)):
        print(f"| {name} | {who} | " + " | ".join(f"{values[i]:.6f}" for i in shown) + " | | |")
    print(f"| | worst difference | | | | | {worst:.1e} | {worst_norm:.1e} |")
    return worst <= LOSS_BOUND


def compare_dump(keel, name):
    """The trained weights, four sequences, everything in double."""
    run = os.path.join(WORK, f"{name}-lr0.001")
    c = read_settings(keel, os.path.join(run, "config.yaml"))
    T = int(c["model.context"])
    ids, _ = read_shard(shards_of(run))
    batch = Batch(ids[:4 * T + 1], -1, 0, 4, T)  # every line is one document
    batch.targets[:, -1] = -1
    with open(os.path.join(WORK, "ids.txt"), "w") as f:
        f.writelines(" ".join(map(str, row)) + "\n" for row in batch.tokens.tolist())
    out = os.path.join(WORK, name + ".safetensors")
    run_keel(keel, "dump", run, "--tokens", f.name, "--out", out)
    got = read_safetensors(out)
    w = {n: x.double().requires_grad_() for n, x in
         read_safetensors(os.path.join(run, f"step_{STEPS}", "model.safetensors")).items()}
    logits = logits_of(c, w, batch)
    loss, objective = losses_of(c, logits, batch.targets)
    objective.backward()
    whole = math.sqrt(sum((x.grad ** 2).sum().item() for x in w.values()))
    errors = {n: (got["grad." + n] - x.grad).norm().item() / max(x.grad.norm().item(), 1e-6 * whole)
              for n, x in w.items()}
    off = [(logits - got["logits"]).abs().max().item() / logits.abs().max().item(),
           abs(loss.item() - got["loss"].item()), abs(objective.item() - got["objective"].item()),
           max(errors.values())]
    print(f"| {name} | {len(errors)} | {off[0]:.1e} | {off[1]:.1e} | {off[2]:.1e} | {off[3]:.1e} |")
    return max(off) <= DOUBLE_BOUND


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: compare_pytorch.py KEEL WORK_FOLDER   (in the root of Keel's sources)")
    KEEL, WORK = (os.path.abspath(a) for a in sys.argv[1:])
    os.makedirs(WORK, exist_ok=True)
    torch.set_num_threads(1)  # the models are small: more threads only wait for each other
    good = True
    print(f"PyTorch {torch.__version__}, {STEPS} steps\n")
    print(f"| model | loss by | step 1 | step {STEPS // 4} | step {STEPS // 2} | step {STEPS} | of all steps | "
          "gradient's norm, relative |\n|---|---|---|---|---|---|---|---|")
    for model in MODELS:
        good &= compare_training(KEEL, model)
    print("\n| model | gradients | logits | loss | objective | worst gradient |\n|---|---|---|---|---|---|")
    for model in MODELS:
        good &= compare_dump(KEEL, model)
    sys.exit(0 if good else 1)
