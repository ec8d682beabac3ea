"""Make the lab's files: `python -m toolkit_lab.training --out DIR [--quick] [--stage NAME]`.

DIR receives what plugins/toolkit_lab/files holds: model/, saes/, gemma_scope/, labels/ and
metrics.json.
Everything is seeded. `--quick` takes the same steps in well under a minute, for the tests; its
weights have no other use.
"""

import argparse
import csv
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from toolkit_lab import lab_files
from toolkit_lab.training import layout_files, measure, sentences
from toolkit_lab.training.corpus import make_examples, tokenizer_texts
from toolkit_lab.training.labels import write_labels
from toolkit_lab.training.model import Training, save_model, train_model
from toolkit_lab.training.saes import fold, residuals, train_coder
from toolkit_lab.training.tokenizer import save_tokenizer, train_tokenizer

SEED, TOKENIZER_SEED = 42, 0
WIDTH, K = 512, 24
GEMMA_LAYER, GEMMA_WIDTH, GEMMA_KS = 2, 1024, (12, 30)
FULL = Training(seed=SEED)


@dataclass(frozen=True)
class TrainingSize:
    """How much to train and measure; the defaults make the committed files."""

    training: Training = FULL
    sae_examples: int = 1600
    sae_steps: int = 600
    decisions: int = 3000
    games: int = 200
    measured: int = 300
    labelled: int = 300


QUICK = TrainingSize(Training(steps=6, batch=16, seed=SEED), 40, 12, 24, 6, 12, 12)


def make_model_files(out: Path, size: TrainingSize) -> None:
    """Train tokenizer and model and write them."""
    folder = out / "model"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(tokenizer_texts(TOKENIZER_SEED))
    save_tokenizer(tokenizer, folder)
    save_model(train_model(tokenizer, size.training), folder)


def make_sae_files(out: Path, size: TrainingSize) -> None:
    """Train the SAEs on the stored model and write them in both layouts."""
    model, tokenizer = _load(out)
    acts = residuals(model, make_examples(tokenizer, size.sae_examples, seed=SEED + 1))
    for layer, rows in enumerate(acts):
        coder = train_coder(rows, WIDTH, K, size.sae_steps, SEED + layer, by_norm=True)
        threshold = fold(coder, rows, K, by_norm=True).threshold.item()
        layout_files.save_llama_scope(out / "saes", layer, coder, threshold, K, SEED + layer)
        print(f"sae layer {layer}", flush=True)
    rows = acts[GEMMA_LAYER]
    for k in GEMMA_KS:
        sae = fold(
            train_coder(rows, GEMMA_WIDTH, k, size.sae_steps, SEED, by_norm=False),
            rows,
            k,
            by_norm=False,
        )
        layout_files.save_gemma_scope(out / "gemma_scope", GEMMA_LAYER, sae, k)
        print(f"sae gemma layout, L0 {k}", flush=True)


def make_label_files(out: Path, size: TrainingSize) -> None:
    """Write labels of the features of the stored SAEs."""
    model, tokenizer = _load(out)
    write_labels(model, tokenizer, out, size.labelled)


def make_measurements(out: Path, size: TrainingSize) -> None:
    """Measure what the files do; write metrics.json and print the tables."""
    model, tokenizer = _load(out)
    play = measure.measure_play(model, tokenizer, size.decisions, size.games)
    trait = measure.measure_trait(model, tokenizer)
    saes = measure.measure_saes(model, tokenizer, out, size.measured)
    (out / "metrics.json").write_text(
        json.dumps({"play": play, "trait": trait, "saes": saes}, indent=1) + "\n"
    )
    print({name: value for name, value in play.items() if name != "causes"}, trait)
    print(measure.markdown(play, saes))


def write_trait_rows(path: Path) -> None:
    """Write the held-out sentences with their labels: specs/data/lab_trait.csv."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["sentence", "concept_strength_label"])
        writer.writerows(sentences.labelled_rows(80))


def _load(out: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    folder = str(out / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise TypeError(f"{folder} holds no fast tokenizer")
    return LlamaForCausalLM.from_pretrained(folder), tokenizer


def compare(out: Path) -> None:
    """Compare the metrics with the packaged ones; exit with 1 if any is outside its tolerance."""
    measured, committed = (
        json.loads((folder / "metrics.json").read_text()) for folder in (out, lab_files())
    )
    deviations = measure.differences(measured, committed)
    print("\n".join(deviations) or "every metric is within its tolerance of the packaged one")
    if deviations:
        raise SystemExit(1)


STAGES = {
    "model": make_model_files,
    "saes": make_sae_files,
    "labels": make_label_files,
    "measure": make_measurements,
}


def main() -> None:
    """Run all stages, or one."""
    parser = argparse.ArgumentParser(prog="python -m toolkit_lab.training", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/lab"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--compare",
        action="store_true",
        help="fail when the metrics are not those of the packaged files",
    )
    parser.add_argument("--stage", choices=STAGES, help="run only this stage on what DIR holds")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, make in STAGES.items():
        if options.stage in (None, name):
            make(options.out, QUICK if options.quick else TrainingSize())
    if options.compare:
        compare(options.out)


if __name__ == "__main__":
    main()
