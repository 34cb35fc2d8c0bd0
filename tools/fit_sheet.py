"""A contact sheet of motions before and after the fit, at the frame where the two differ most.

    python tools/fit_sheet.py out/demo/*.npy --out docs/images/fit_sheet.jpg

Top: the clip's own bones with the model's rotations, as exported before models had one skeleton (feet and hands are
marked). Bottom: the fitted motion with locked feet. Grey: the model's positions, in both.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from hftrainer.data.folder import load_motion
from hftrainer.defaults import DEFAULT_MODEL
from hftrainer.motion.body import body_of
from hftrainer.motion.fit import pose
from hftrainer.motion.representation import motion272
from hftrainer.motion.skeleton import CHAINS, bone_offsets, forward_kinematics
from hftrainer.render.fonts import font_for
from hftrainer.render.scene import Camera
from hftrainer.zoo.load import locate

WIDTH, HEIGHT, COLUMNS = 220, 250, 6
COLORS = ((63, 127, 193), (229, 138, 79), (90, 96, 108), (63, 127, 193), (229, 138, 79))  # right, left, spine
GREY = (190, 194, 202)


def main() -> None:
    """Write the image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("motions", nargs="+", type=Path)
    parser.add_argument("--titles", type=Path, help="a text file with one line per motion")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--out", type=Path, default=Path("docs/images/fit_sheet.jpg"))
    args = parser.parse_args()
    body = body_of(locate(args.model)[0])
    titles = args.titles.read_text(encoding="utf-8").splitlines() if args.titles else [p.stem for p in args.motions]
    rows = -(-len(args.motions) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * WIDTH, rows * (2 * HEIGHT + 24)), (246, 247, 249))
    draw = ImageDraw.Draw(sheet)
    for number, (path, title) in enumerate(zip(args.motions, titles, strict=False)):
        motion = np.asarray(load_motion(path), np.float64)
        positions = motion272.to_joints(motion)
        rotations, root = motion272.to_rotations(motion)
        before = forward_kinematics(rotations, root, bone_offsets(positions, rotations))
        after = pose(motion, body).joints
        frame = int(np.linalg.norm(before - positions, axis=-1).max(axis=1).argmax())
        x, y = (number % COLUMNS) * WIDTH, (number // COLUMNS) * (2 * HEIGHT + 24)
        draw.text((x + 6, y + 4), title[:34], fill=(60, 64, 72), font=font_for(title, 13))
        for row, shown in enumerate((before, after)):
            cell = Image.new("RGB", (2 * WIDTH, 2 * HEIGHT), (252, 252, 253))
            stick(ImageDraw.Draw(cell), positions[frame], shown[frame])
            sheet.paste(cell.resize((WIDTH - 4, HEIGHT - 4), Image.Resampling.LANCZOS), (x + 2, y + 24 + row * HEIGHT))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.out, quality=88)
    print(f"{args.out}: {len(args.motions)} motions")


def stick(draw: ImageDraw.ImageDraw, positions: np.ndarray, shown: np.ndarray) -> None:
    """Both bodies as sticks, the positions in grey."""
    target = np.array([positions[0, 0], 0.85, positions[0, 2]])
    camera = Camera(target, 2.5, (2 * WIDTH, 2 * HEIGHT), azimuth=0.6)
    for joints, colors, width in ((positions, [GREY] * 5, 12), (shown, COLORS, 6)):
        pixels, _ = camera.project(joints)
        for chain, color in zip(CHAINS, colors, strict=True):
            draw.line([tuple(pixels[j]) for j in chain], fill=color, width=width, joint="curve")
            if width == 6:
                px, py = pixels[chain[-1]]
                draw.ellipse([px - 7, py - 7, px + 7, py + 7], outline=(200, 50, 60), width=3)


if __name__ == "__main__":
    main()
