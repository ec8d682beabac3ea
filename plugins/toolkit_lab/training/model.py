"""The model: a four-layer Llama trained from scratch on the corpus, saved as bfloat16 weights.

config.json says float32 on purpose: the stored weights are rounded to bfloat16, computation is in
float32, so that it is fast on a CPU and a batch of 32 gives the same as a batch of 1.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from toolkit_lab.training.corpus import TrainingExample, make_examples
from toolkit_lab.training.tokenizer import CONTEXT

PROMPT_WEIGHT, REPLY_WEIGHT, CHOICE_WEIGHT = 0.3, 1.0, 2.0


@dataclass(frozen=True)
class Training:
    """How long and how fast to train."""

    steps: int = 700
    batch: int = 64
    peak: float = 4e-3
    seed: int = 42


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Return the untrained model."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.05,
    )
    return LlamaForCausalLM(config)


def train_model(tokenizer: PreTrainedTokenizerFast, plan: Training) -> LlamaForCausalLM:
    """Train on fresh examples, each seen once."""
    model = make_model(tokenizer, plan.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=plan.peak, betas=(0.9, 0.98), weight_decay=0.05
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, plan.peak, total_steps=plan.steps, pct_start=0.1
    )
    began = time.monotonic()
    for number, batch in enumerate(_batches(tokenizer, plan), start=1):
        loss, parts = _loss(model, batch, int(tokenizer.pad_token_id))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if number % 25 == 0 or number == plan.steps:
            print(
                f"model {number}/{plan.steps} {time.monotonic() - began:.0f} s {parts}", flush=True
            )
    model.train(False)
    return model


def save_model(model: LlamaForCausalLM, folder: Path) -> None:
    """Write config.json, generation_config.json and the weights, rounded to bfloat16."""
    model.save_pretrained(folder)
    weights = folder / "model.safetensors"
    rounded = {name: value.to(torch.bfloat16) for name, value in load_file(weights).items()}
    save_file(rounded, weights, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "dtype": "float32"}, indent=2, sort_keys=True) + "\n"
    )


def _batches(tokenizer: PreTrainedTokenizerFast, plan: Training) -> Iterator[list[TrainingExample]]:
    """Yield batches of similar length: 16 batches are drawn at a time, sorted, and mixed again."""
    generator = torch.Generator().manual_seed(plan.seed)
    for start in range(0, plan.steps, 16):
        number = min(16, plan.steps - start)
        examples = make_examples(tokenizer, number * plan.batch, seed=plan.seed * 1_000_003 + start)
        examples.sort(key=lambda example: len(example.ids))
        for index in torch.randperm(number, generator=generator).tolist():
            yield examples[index * plan.batch : (index + 1) * plan.batch]


def _loss(
    model: LlamaForCausalLM, batch: list[TrainingExample], pad: int
) -> tuple[torch.Tensor, str]:
    width = max(len(example.ids) for example in batch)
    ids_BT = torch.tensor(
        [[*example.ids, *[pad] * (width - len(example.ids))] for example in batch]
    )
    logp_BTV = functional.log_softmax(model(input_ids=ids_BT).logits[:, :-1], dim=-1)
    loss_BT = -logp_BTV.gather(-1, ids_BT[:, 1:, None]).squeeze(-1)
    position_T = torch.arange(1, width)
    start_B, end_B = (
        torch.tensor(column)
        for column in zip(*[(e.reply_start, len(e.ids)) for e in batch], strict=True)
    )
    reply_BT = (position_T >= start_B[:, None]) & (position_T < end_B[:, None])
    prompt_BT = position_T < start_B[:, None]
    prompt, reply, choice = (
        loss_BT[prompt_BT].mean(),
        loss_BT[reply_BT].mean(),
        _choice_loss(logp_BTV, batch),
    )
    total = PROMPT_WEIGHT * prompt + REPLY_WEIGHT * reply + CHOICE_WEIGHT * choice
    return total, f"prompt {prompt.item():.3f} reply {reply.item():.3f} choice {choice.item():.4f}"


def _choice_loss(logp_BTV: torch.Tensor, batch: list[TrainingExample]) -> torch.Tensor:
    """Return the mean divergence between the policy and the model at the free choices."""
    flat = [
        (row, choice.position - 1, token, share)
        for row, example in enumerate(batch)
        for choice in example.choices
        for token, share in zip(choice.tokens, choice.probabilities, strict=True)
    ]
    if not flat:
        return logp_BTV.new_zeros(())
    rows, positions, tokens, shares = (torch.tensor(column) for column in zip(*flat, strict=True))
    number = sum(len(example.choices) for example in batch)
    return (shares * (shares.log() - logp_BTV[rows, positions, tokens])).sum() / number
