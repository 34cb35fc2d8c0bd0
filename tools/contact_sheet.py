"""A contact sheet of a model: one cell a prompt, the figure at even moments of the motion from left to right.

python tools/contact_sheet.py gotozero-nano --prompts prompts.txt --out docs/images/sheet.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import hftrainer
from hftrainer.data.text_motion.prompt_file import read_prompt_file
from hftrainer.defaults import DEFAULT_MODEL
from hftrainer.motion.skeleton import CHAINS
from hftrainer.pipelines.base import GeneratedMotion
from hftrainer.render.fonts import font_for
from hftrainer.render.scene import Camera

WIDTH, HEIGHT, TITLE = 460, 170, 22  # pixels of a cell
COLORS = ((63, 127, 193), (229, 138, 79), (90, 96, 108), (63, 127, 193), (229, 138, 79))  # right, left, spine
INK, DOUBT, PAPER, FLOOR = (60, 64, 72), (200, 60, 60), (252, 252, 253), (214, 218, 226)


def main() -> None:
    """Write the picture; one motion a prompt, drawn with --seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--prompts", type=Path, required=True, help="a file with one prompt per line")
    parser.add_argument("--out", type=Path, default=Path("docs/images/sheet.png"))
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--moments", type=int, default=7, help="figures in a cell")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    prompts = read_prompt_file(args.prompts)
    pipe = hftrainer.load_pipeline(args.model)
    made = pipe.generate_rows([(prompt, args.seed) for prompt in prompts])
    rows = -(-len(made) // args.columns)
    sheet = Image.new("RGB", (args.columns * WIDTH, rows * (HEIGHT + TITLE)), (246, 247, 249))
    draw = ImageDraw.Draw(sheet)
    for number, motion in enumerate(made):
        x, y = number % args.columns * WIDTH, number // args.columns * (HEIGHT + TITLE)
        title = f"{motion.prompt[:58]}  {motion.seconds:.1f} s" + (" (?)" if motion.known is False else "")
        ink = DOUBT if motion.known is False else INK
        draw.text((x + 6, y + 4), title, fill=ink, font=font_for(title, 12))
        sheet.paste(cell(motion, args.moments), (x + 2, y + TITLE))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(96).save(args.out, optimize=True)
    print(f"{args.out}: {len(made)} motions, {args.out.stat().st_size / 1e6:.2f} MB")


def cell(motion: GeneratedMotion, moments: int) -> Image.Image:
    """The figure at so many moments; where it is in its slot is where it is on its path, seen from the front left."""
    large = Image.new("RGB", (2 * WIDTH - 8, 2 * HEIGHT - 4), PAPER)
    draw = ImageDraw.Draw(large)
    slot = large.width / moments
    if not len(motion.motion):
        return large.resize((WIDTH - 4, HEIGHT - 2))
    joints = motion.joints
    draw.line([(0, large.height - 24), (large.width, large.height - 24)], fill=FLOOR, width=4)
    for number, frame in enumerate(np.linspace(0, len(joints) - 1, moments).astype(int)):
        root = joints[frame, 0]
        camera = Camera(np.array([root[0], 0.95, root[2]]), 40.0, (int(slot), large.height), elevation=0.05, focal=36.0)
        pixels, _ = camera.project(joints[frame])
        for chain, color in zip(CHAINS, COLORS, strict=True):
            draw.line([(number * slot + p[0], p[1]) for p in pixels[list(chain)]], fill=color, width=5, joint="curve")
        head = pixels[15]
        x, y = number * slot + head[0], head[1] - 8
        draw.ellipse([x - 12, y - 14, x + 12, y + 12], fill=COLORS[2])
    return large.resize((WIDTH - 4, HEIGHT - 2), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
