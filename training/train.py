# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trains a small BitNet b1.58 model, ternary and with int8 activations from the first step on.

The network is the one that ``swarm_intelligence.reference`` computes. In its linear layers the forward pass uses
``clip(round(w / mean|w|), -1, 1) * mean|w|`` for the weights and ``round(x * 127 / max|x|)`` for each token's
activations; gradients pass both roundings unchanged (straight-through). Matrices learn by Muon (orthogonalised
momentum), the rest by AdamW. The learning rate rises, stays, and falls to nothing over the last ``--decay`` steps,
so that a run may be continued from a checkpoint with another end.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import corpus
import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

WIDTH, HIDDEN, LAYERS, HEADS = 256, 768, 4, 4
CONTEXT, VOCABULARY = 256, 2048
ROPE_BASE, EPSILON = 10000.0, 1e-5
BEGIN, END = "<|begin_of_text|>", "<|end_of_text|>"
MATRICES = {
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (WIDTH, WIDTH),
    "attn_v": (WIDTH, WIDTH),
    "attn_output": (WIDTH, WIDTH),
    "ffn_gate": (HIDDEN, WIDTH),
    "ffn_up": (HIDDEN, WIDTH),
    "ffn_down": (WIDTH, HIDDEN),
}
NORMS = {"attn_norm": WIDTH, "attn_sub_norm": WIDTH, "ffn_norm": WIDTH, "ffn_sub_norm": HIDDEN}
ADAM_SHARE = 0.4
"""Of the rate, for what learns by AdamW beside Muon."""
STEPS, DECAY = 640, 220
Tree = dict[str, Any]
State = dict[str, Tree]


# ---- text ----


def make_tokenizer(passages: list[str], path: Path) -> Tokenizer:
    """Byte-level BPE with GPT-2's way of cutting text into words; the special tokens come last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(passages, trainer)
    tokenizer.add_special_tokens([BEGIN, END])
    tokenizer.save(str(path))
    return tokenizer


def encode(tokenizer: Tokenizer, passages: list[str]) -> list[list[int]]:
    begin, end = tokenizer.token_to_id(BEGIN), tokenizer.token_to_id(END)
    return [[begin, *line.ids, end] for line in tokenizer.encode_batch(passages, add_special_tokens=False)]


# ---- the network ----


def ternary(w: jax.Array) -> jax.Array:
    scale = jnp.mean(jnp.abs(w), axis=(-2, -1), keepdims=True) + 1e-8
    return w + jax.lax.stop_gradient(jnp.clip(jnp.round(w / scale), -1, 1) * scale - w)


def int8(x: jax.Array) -> jax.Array:
    scale = 127 / (jnp.max(jnp.abs(x), axis=-1, keepdims=True) + 1e-8)
    return x + jax.lax.stop_gradient(jnp.round(x * scale) / scale - x)


def rms(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + EPSILON)


def rope(x: jax.Array) -> jax.Array:
    half = x.shape[-1] // 2
    angle = np.arange(x.shape[1])[:, None] * (ROPE_BASE ** (-np.arange(half) / half))[None, :]
    cosine, sine = jnp.asarray(np.cos(angle), x.dtype)[:, None], jnp.asarray(np.sin(angle), x.dtype)[:, None]
    low, high = x[..., :half], x[..., half:]
    return jnp.concatenate([low * cosine - high * sine, low * sine + high * cosine], axis=-1)


def forward(parameters: Tree, tokens: jax.Array) -> jax.Array:
    """Logits of (batch, length) tokens."""
    batch, length = tokens.shape
    weights = {name: ternary(parameters[name]) for name in MATRICES}
    mask = jnp.where(np.tril(np.ones((length, length), bool)), 0.0, -1e9)
    x = parameters["token_embd"][tokens]
    for layer in range(LAYERS):
        w = {name: weights[name][layer] for name in MATRICES}
        n = {name: parameters[name][layer] for name in NORMS}
        h = int8(rms(x) * n["attn_norm"])
        q, k, v = (h @ w[name].T for name in ("attn_q", "attn_k", "attn_v"))
        q, k, v = (part.reshape(batch, length, -1, WIDTH // HEADS) for part in (q, k, v))
        q, k = rope(q), rope(k)
        # Heads and batch in one leading dimension: plain batched products are twice as fast here as einsum's.
        q, k, v = (jnp.swapaxes(part, 1, 2).reshape(-1, length, WIDTH // HEADS) for part in (q, k, v))
        scores = jnp.matmul(q, jnp.swapaxes(k, 1, 2)) / math.sqrt(WIDTH // HEADS) + mask
        mixed = jnp.matmul(jax.nn.softmax(scores, axis=-1), v).reshape(batch, HEADS, length, -1)
        mixed = jnp.swapaxes(mixed, 1, 2).reshape(batch, length, WIDTH)
        x = x + int8(rms(mixed) * n["attn_sub_norm"]) @ w["attn_output"].T
        h = int8(rms(x) * n["ffn_norm"])
        gated = jnp.square(jax.nn.relu(h @ w["ffn_gate"].T)) * (h @ w["ffn_up"].T)
        x = x + int8(rms(gated) * n["ffn_sub_norm"]) @ w["ffn_down"].T
    return (rms(x) * parameters["output_norm"]) @ parameters["token_embd"].T


def losses(parameters: Tree, tokens: jax.Array) -> jax.Array:
    """Negative log-likelihood, in nats, of each token after the first: (batch, length - 1)."""
    logits = forward(parameters, tokens[:, :-1])
    chosen = jnp.sum(logits * jax.nn.one_hot(tokens[:, 1:], VOCABULARY), axis=-1)
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def initial(seed: int) -> Tree:
    random = np.random.default_rng(seed)
    parameters: Tree = {"token_embd": random.normal(0, 0.02, (VOCABULARY, WIDTH))}
    for name, (rows, columns) in MATRICES.items():
        parameters[name] = random.normal(0, 0.6 / math.sqrt(columns), (LAYERS, rows, columns))
    parameters.update({name: np.ones((LAYERS, length)) for name, length in NORMS.items()})
    parameters["output_norm"] = np.ones(WIDTH)
    return {name: jnp.asarray(value, jnp.float32) for name, value in parameters.items()}


# ---- learning ----


def orthogonal(update: jax.Array) -> jax.Array:
    """The nearest orthogonal matrix, roughly: five quintic Newton-Schulz iterations on each matrix of a stack."""
    turned = update.shape[-2] > update.shape[-1]
    x = jnp.swapaxes(update, -2, -1) if turned else update
    x = x / (jnp.linalg.norm(x, axis=(-2, -1), keepdims=True) + 1e-7)
    for _unused in range(5):
        square = x @ jnp.swapaxes(x, -2, -1)
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return jnp.swapaxes(x, -2, -1) if turned else x


@partial(jax.jit, donate_argnums=0)
def step(state: State, tokens: jax.Array, number: jax.Array, rate: jax.Array) -> tuple[State, jax.Array]:
    """One step; ``number`` counts from 1."""
    parameters, first, second = state["parameters"], state["first"], state["second"]
    loss, gradients = jax.value_and_grad(lambda tree: losses(tree, tokens).mean())(parameters)
    norm = jnp.sqrt(sum(jnp.sum(g * g) for g in gradients.values()))
    clip = jnp.minimum(1, 1 / (norm + 1e-6))
    for name, gradient in gradients.items():
        g = gradient * clip
        if name in MATRICES:
            first[name] = 0.95 * first[name] + g
            update = orthogonal(g + 0.95 * first[name]) * 0.2 * math.sqrt(max(MATRICES[name]))
            update = update + 0.1 * parameters[name]
        else:
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.95 * second[name] + 0.05 * g * g
            corrected = second[name] / (1 - 0.95**number)
            update = ADAM_SHARE * first[name] / (1 - 0.9**number) / (jnp.sqrt(corrected) + 1e-8)
        parameters[name] = parameters[name] - rate * update
    return {"parameters": parameters, "first": first, "second": second}, loss


def rate_at(number: int, options: argparse.Namespace) -> float:
    rising = min(1.0, (number + 1) / options.warmup)
    falling = min(1.0, (options.steps - number) / options.decay)
    return float(options.rate * min(rising, falling))


score = jax.jit(losses)


def evaluate(parameters: Tree, sequences: list[list[int]], text: list[str]) -> dict[str, float]:
    """Loss per token and bits per character on passages, each read from its beginning up to the context's length."""
    total, tokens, characters = 0.0, 0, 0
    for sequence, passage in zip(sequences, text, strict=True):
        if len(sequence) > CONTEXT + 1:
            continue
        padded = np.full((1, CONTEXT + 1), sequence[-1])
        padded[0, : len(sequence)] = sequence
        total += float(score(parameters, jnp.asarray(padded))[0, : len(sequence) - 1].sum())
        tokens += len(sequence) - 1
        characters += len(passage)
    return {
        "loss": round(total / tokens, 4),
        "perplexity": round(math.exp(total / tokens), 3),
        "bits_per_character": round(total / math.log(2) / characters, 4),
        "tokens": tokens,
    }


def save(path: Path, state: State, **more: Any) -> None:
    content = {f"{part}/{name}": value for part, tree in state.items() for name, value in tree.items()}
    temporary = path.with_suffix(".part.npz")
    np.savez(temporary, **content, **more)
    temporary.replace(path)


def load(path: Path) -> tuple[State, int]:
    """State and number of steps done."""
    with np.load(path) as kept:
        state: State = {}
        for key in kept.files:
            if "/" in key:
                part, name = key.split("/")
                state.setdefault(part, {})[name] = jnp.asarray(kept[key])
        return state, int(kept["step"])


def fresh(seed: int) -> State:
    parameters = initial(seed)
    first, second = ({name: jnp.zeros_like(value) for name, value in parameters.items()} for _unused in range(2))
    return {"parameters": parameters, "first": first, "second": second}


def batches(sequences: list[list[int]], seed: int, size: int) -> Iterator[np.ndarray]:
    """Passages in a row, in an order that each epoch shuffles anew, cut into rows of the context's length."""
    stream = np.empty(0, dtype=np.int64)
    span = size * (CONTEXT + 1)
    for epoch in itertools.count():
        order = np.random.default_rng((seed, epoch)).permutation(len(sequences))
        stream = np.concatenate([stream, *(sequences[number] for number in order)])
        while len(stream) >= span:
            yield stream[:span].reshape(size, CONTEXT + 1)
            stream = stream[span:]


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    corpus.add_options(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="for checkpoints and figures")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="a checkpoint to go on from")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=STEPS, help=f"default {STEPS}")
    parser.add_argument(
        "--decay", type=int, default=DECAY, help=f"the last steps, with a falling rate (default {DECAY})"
    )
    parser.add_argument("--warmup", type=int, default=20, help="the first steps, with a rising rate (default 20)")
    parser.add_argument("--rate", type=float, default=0.01, help="of learning (default 0.01)")
    parser.add_argument("--batch", type=int, default=8, help=f"rows of {CONTEXT} tokens (default 8)")
    parser.add_argument("--every", type=int, default=100, help="steps from one checkpoint to the next (default 100)")
    return parser.parse_args()


def main() -> None:
    options = options_of()
    options.output.mkdir(parents=True, exist_ok=True)
    text, held_out = corpus.load(options.jargon, options.devil)
    (options.output / "held-out.txt").write_text("\n\n".join(held_out) + "\n", encoding="ascii")
    tokenizer = make_tokenizer(text, options.output / "tokenizer.json")
    sequences, held_out_sequences = encode(tokenizer, text), encode(tokenizer, held_out)
    print(f"{len(text)} passages, {sum(map(len, text))} characters, {sum(map(len, sequences))} tokens", flush=True)
    state, start = load(options.resume) if options.resume else (fresh(options.seed), 0)
    print(f"{sum(value.size for value in state['parameters'].values())} parameters", flush=True)

    began, recent = time.monotonic(), []
    for number, rows in enumerate(batches(sequences, options.seed, options.batch), 1):
        if number <= start:
            continue
        rate = rate_at(number - 1, options)
        state, loss = step(state, jnp.asarray(rows), jnp.float32(number), jnp.float32(rate))
        recent.append(float(loss))
        if number % 20 == 0:
            pace = (time.monotonic() - began) / (number - start)
            print(f"step {number} loss {np.mean(recent[-20:]):.4f} {pace:.2f} s/step rate {rate:.5f}", flush=True)
        if number % options.every == 0 or number == options.steps:
            figures = evaluate(state["parameters"], held_out_sequences, held_out)
            print(f"step {number} held out {json.dumps(figures)}", flush=True)
            save(options.output / "checkpoint.npz", state, step=number)
        if number == options.steps:
            break


if __name__ == "__main__":
    main()
