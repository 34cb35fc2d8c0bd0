"""Write docs/zoo.md and a page for each built-in card, and the hashes of committed models into their cards.

python tools/build_model_pages.py            # pages
python tools/build_model_pages.py --hashes   # first the hashes of models that are in this repository
python tools/build_model_pages.py --check    # write nothing; exit 1 if a page is out of date
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hftrainer.evaluation.vocabulary import label_of
from hftrainer.files import sha256, write_text
from hftrainer.zoo import ModelCard, read_card
from hftrainer.zoo.collection import BUILT_IN
from hftrainer.zoo.pages import model_page, zoo_page

REPOSITORY = Path(__file__).resolve().parents[1]
NOT_HASHED = {"README.md", "manifest.json"}  # text, and a list of hashes


def main() -> int:
    """Write the pages, or list those that are out of date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hashes", action="store_true", help="write the hashes of committed models into their cards")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is out of date")
    args = parser.parse_args()
    if args.hashes:
        for card in built_in():
            write_hashes(card)
    old = [path for path, text in pages().items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in old:
        print(f"{'out of date' if args.check else 'wrote'}: {path.relative_to(REPOSITORY)}")
        if not args.check:
            write_text(path, pages()[path])
    return 1 if args.check and old else 0


def built_in() -> list[ModelCard]:
    """The package's own cards; those of installed plug-ins are not documented."""
    return [read_card(path) for path in sorted(BUILT_IN.glob("*.yaml"))]


def pages() -> dict[Path, str]:
    """All pages built from cards."""
    cards = built_in()
    docs = REPOSITORY / "docs"
    models = {docs / "models" / f"{card.name}.md": model_page(card, label=label_of) for card in cards}
    return {docs / "zoo.md": zoo_page(cards), **models}


def write_hashes(card: ModelCard) -> None:
    """Replace the block ``files:`` at the end of a card by the hashes of the model's folder, if git keeps it here."""
    folders = [REPOSITORY / folder for folder in card.folders if (REPOSITORY / folder).is_dir()]
    if not folders or card.hub is not None or card.file is None:
        return
    paths = sorted(p for p in folders[0].rglob("*") if p.is_file() and p.name not in NOT_HASHED)
    lines = [f"  {path.relative_to(folders[0]).as_posix()}: {sha256(path)}\n" for path in paths]
    text, _, rest = card.file.read_text(encoding="utf-8").partition("files:\n")
    if any(line.strip() and not line.startswith(" ") for line in rest.splitlines()):
        raise SystemExit(f"{card.file}: the block 'files:' must be the last one")
    write_text(card.file, f"{text}files:\n{''.join(lines)}")


if __name__ == "__main__":
    sys.exit(main())
