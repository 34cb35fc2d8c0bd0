"""Motion import against an independent reader, as a table; and what a kill costs.

    python tools/import_table.py dialects FOLDER --skeleton cmu   positions against bvhio, directions of knees, toes
    python tools/import_table.py layouts                          shipped maps on bodies in the layout of real files
    python tools/import_table.py kill FOLDER --skeleton daz       kill -9 at 20 moments: bytes equal, clips lost

bvhio (``pip install bvhio``) reads BVH files with code of its own; errors are of joints at the file's own rate, in
millimetres.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hftrainer.motion.io.bvh import read_bvh
from hftrainer.motion.joint_names import find_joints
from hftrainer.motion.retarget import RetargetedMotion, RetargetOptions, retarget
from hftrainer.motion.skeleton import JOINTS, global_rotations
from hftrainer.motion.skeleton_map import SkeletonMap, load_map

AT = {joint: index for index, joint in enumerate(JOINTS)}


def main() -> int:
    """Run one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("dialects", "kill"):
        sub = verbs.add_parser(verb)
        sub.add_argument("source", type=Path)
        sub.add_argument("--skeleton", required=True)
        sub.add_argument("--files", type=int, default=12, help="at most so many (default 12)")
    sub = verbs.add_parser("layouts")
    args = parser.parse_args()
    return {"dialects": dialects, "layouts": layouts, "kill": kill}[args.verb](args)


def dialects(args: argparse.Namespace) -> int:
    """A row a file: mean and largest error, and the cosines of knee caps and toes with the way the body faces."""
    skeleton = load_map(args.skeleton)
    files = sorted(p for p in args.source.rglob("*") if p.suffix.lower() == ".bvh") if args.source.is_dir() else []
    print(f"{'file':40} {'frames':>6} {'mean mm':>8} {'max mm':>8} {'knees':>12} {'toes':>12}  remarks")
    for path in files[: args.files] or [args.source]:
        try:
            bvh = read_bvh(path)
            clip = retarget(bvh, skeleton, RetargetOptions(fps=bvh.fps), source=path.name)
        except ValueError as error:
            print(f"{path.name[-40:]:40} refused: {error}")
            continue
        remarks = list(clip.notes)
        try:
            errors = 1000 * independent_errors(path, clip, skeleton)
            numbers = f"{errors.mean():8.3f} {errors.max():8.2f}"
        except (SyntaxError, ValueError, IndexError) as error:
            numbers, remarks = f"{'-':>8} {'-':>8}", [*remarks, f"bvhio cannot read it ({type(error).__name__})"]
        knees, toes = directions(clip)
        print(f"{path.name[-40:]:40} {len(clip.root):6} {numbers} {knees:>12} {toes:>12}  {'; '.join(remarks)}")
    return 0


def independent_errors(path: Path, clip: RetargetedMotion, skeleton: SkeletonMap) -> np.ndarray:
    """Metres (T, joints) between the clip and where bvhio has the mapped joints of the file."""
    import bvhio

    root = bvhio.readAsHierarchy(str(path))
    names = [joint.Name for joint, _, _ in root.layout()]
    bvh = read_bvh(path)
    found = {
        j: at for j, at in find_joints(bvh.names, skeleton, list(bvh.end_offsets), path.name).items() if at.at is None
    }
    joints = {joint: root.layout()[names.index(bvh.names[at.index])][0] for joint, at in found.items()}
    unit = next(iter([skeleton.units[0]]))
    errors = []
    for frame in range(0, len(clip.root), max(1, len(clip.root) // 50)):
        root.loadPose(frame + clip.skipped, recursive=True)
        theirs = np.array([list(joint.PositionWorld) for joint in joints.values()]) * unit
        errors.append(np.linalg.norm(theirs - clip.joints[frame, [AT[joint] for joint in joints]], axis=-1))
    return np.array(errors)


def directions(clip: RetargetedMotion) -> tuple[str, str]:
    """Mean cosines, left and right, of knee caps and of toes with the way the body faces."""
    world, joints = global_rotations(clip.rotations), clip.joints
    left = joints[:, AT["left_hip"]] - joints[:, AT["right_hip"]]
    forward = np.cross(left, joints[:, AT["neck"]] - joints[:, AT["pelvis"]])
    forward /= np.maximum(np.linalg.norm(forward, axis=-1, keepdims=True), 1e-12)
    knees, toes = [], []
    for side in ("left", "right"):
        knees.append((world[:, AT[f"{side}_knee"], :, 2] * forward).sum(-1).mean())
        bone = joints[:, AT[f"{side}_foot"]] - joints[:, AT[f"{side}_ankle"]]
        toes.append((bone / np.maximum(np.linalg.norm(bone, axis=-1, keepdims=True), 1e-12) * forward).sum(-1).mean())
    return f"{knees[0]:+.2f} {knees[1]:+.2f}", f"{toes[0]:+.2f} {toes[1]:+.2f}"


def layouts(args: argparse.Namespace) -> int:
    """A row a shipped map, on a marching body in the layout of real files: the left knee lifted."""
    from tests.motion.layouts import LAYOUTS, write_pose

    print(f"{'map':20} {'prefix':22} {'mean mm':>8} {'knees':>12} {'toes':>12}")
    with tempfile.TemporaryDirectory() as folder:
        for layout in LAYOUTS:
            path = Path(folder) / "march.bvh"
            pose = write_pose(layout, path)
            clip = retarget(read_bvh(path), load_map(layout.map))
            shared = [joint for joint in JOINTS if joint in pose.places and not joint.endswith("foot")]
            errors = [np.linalg.norm(clip.joints[0, AT[joint]] - pose.places[joint]) for joint in shared]
            knees, toes = directions(clip)
            print(f"{layout.map:20} {layout.prefix:22} {1000 * np.mean(errors):8.3f} {knees:>12} {toes:>12}")
    return 0


def kill(args: argparse.Namespace) -> int:
    """Imports killed at 20 moments: what is lost, and are the bytes those of an import left alone?"""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        source = place / "source"
        source.mkdir()
        for path in sorted(args.source.rglob("*.bvh"))[: args.files]:
            (source / path.name).symlink_to(path.resolve())
        start = time.monotonic()
        subprocess.run(command(source, place / "want", args.skeleton), check=True, capture_output=True)
        seconds = time.monotonic() - start
        want, worst, unequal = content(place / "want"), 0, 0
        for number in range(20):
            out = place / f"out{number}"
            process = subprocess.Popen(
                command(source, out, args.skeleton), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            time.sleep(random.Random(number).uniform(0.1, 0.95) * seconds)
            process.kill()
            process.wait()
            time.sleep(0.5)  # workers look for their parent every 0.2 s
            there = len(list(out.rglob("*.npy")))
            again = subprocess.run(command(source, out, args.skeleton), capture_output=True, text=True, check=True)
            kept = int(again.stdout.split(" imported, ")[1].split()[0])
            worst, unequal = max(worst, there - kept), unequal + (content(out) != want)
            print(f"kill {number:2}: {there} clips were there, {kept} kept; bytes equal: {content(out) == want}")
        print(f"20 kills: {unequal} with other bytes, at most {worst} finished clips made again")
        return 1 if unequal else 0


def command(source: Path, out: Path, skeleton: str) -> list[str]:
    """An import by two workers."""
    return [sys.executable, "-m", "hftrainer", "data", "import-motion", str(source), "--skeleton", skeleton, "--out",
            str(out), "--workers", "2"]  # fmt: skip


def content(root: Path) -> dict[str, str]:
    """Hashes of all files, but of records the place that they name."""
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file() and not p.name.startswith(".")
    }


if __name__ == "__main__":
    sys.exit(main())
