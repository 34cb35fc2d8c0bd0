"""Every protocol again, slowly and in the plainest words: what its description says, clip by clip and pair by pair.

Has no code in common with the package. `data` is a list of dictionaries: id, lines [(text, start, end)], real, pred.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import scipy.linalg


def fid(a, b, unit=False):
    a, b = np.asarray(a, float), np.asarray(b, float)
    if unit:
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    with warnings.catch_warnings():  # fewer clips than dimensions make covariances singular, which is meant
        warnings.filterwarnings("ignore", "Matrix is singular", scipy.linalg.LinAlgWarning)
        mixed = scipy.linalg.sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)).real
    gap = a.mean(0) - b.mean(0)
    return gap @ gap + np.trace(np.cov(a, rowvar=False)) + np.trace(np.cov(b, rowvar=False)) - 2 * np.trace(mixed)


def batches(order, size=32):
    out = []
    while len(order) >= size:
        out.append(list(order[:size]))
        order = order[size:]
    return out


def retrieval(texts, motions, groups):
    """R@1, 2, 3 and the mean distance of pairs over full batches; of motions that are equally near, chance decides."""
    hits, distances = [0.0, 0.0, 0.0], []
    for batch in groups:
        for i in batch:
            row = [np.linalg.norm(np.asarray(texts[i], float) - motions[j]) for j in batch]
            own = row[batch.index(i)]
            nearer, level = sum(other < own for other in row), row.count(own)
            for k in range(3):
                hits[k] += min(max(k + 1 - nearer, 0) / level, 1)
            distances.append(own)
    return [h / len(distances) for h in hits], float(np.mean(distances))


def diversity(motions, pairs, rng, unit_l1=False):
    first = rng.choice(len(motions), pairs, replace=False)
    second = rng.choice(len(motions), pairs, replace=False)
    if unit_l1:
        motions = [motion / np.linalg.norm(motion) for motion in motions]
        return float(np.mean([np.abs(motions[i] - motions[j]).sum() for i, j in zip(first, second, strict=True)]))
    return float(np.mean([np.linalg.norm(motions[i] - motions[j]) for i, j in zip(first, second, strict=True)]))


def full_captions(clip):
    return [text for text, start, end in clip["lines"] if start == 0 and end == 0]


def coin_crop(length, rng):
    coin = ["single", "single", "double"][rng.choice(3)]
    m = (length // 4) * 4 if coin == "single" else (length // 4 - 1) * 4
    m = max(m, 4)
    return int(rng.randint(0, length - m + 1)), m


def legacy_figures(texts, real, pred, refk=None, few=lambda n: n, seed=0):
    """Shuffle once, only full batches, everything over the items in them."""
    groups = batches(list(np.random.RandomState(seed).permutation(len(texts))))
    kept = [i for batch in groups for i in batch]
    out = {}
    for name, motions in (("real", real), ("predicted", pred)):
        (r1, r2, r3), distance = retrieval(texts, motions, groups)
        rng = np.random.RandomState(seed + 100)
        pairs = 300 if len(kept) > 300 else few(len(kept))
        out[name] = {"R@1": r1, "R@2": r2, "R@3": r3, "MM-Dist": distance,
                     "Diversity": diversity(np.asarray(motions)[kept], pairs, rng)}  # fmt: skip
    out["predicted"]["FID"] = fid(np.asarray(real)[kept], np.asarray(pred)[kept])
    if refk is not None:
        out["predicted"]["FID-refk"] = fid(np.asarray(refk)[kept], np.asarray(pred)[kept])
    return out


def leaderboard(data, encoder):
    data = [c for c in data if full_captions(c) and 1 <= len(c["real"]) <= 300 and len(c["real"]) >= 4]
    sides = {}
    for side in ("real", "refk", "pred"):
        rng, crops = np.random.RandomState(0), []
        for clip in data:
            start, m = coin_crop(len(clip[side]), rng)
            crops.append(clip[side][start : start + m])
        sides[side] = [encoder.encode_motions([crop])[0] for crop in crops]
    texts = [encoder.encode_texts([full_captions(clip)[0]])[0] for clip in data]
    return legacy_figures(texts, sides["real"], sides["pred"], sides["refk"], few=lambda n: n - 1)


def drawn_items(data, rng, low, high, fps, subclips):
    """Entries with their captions, then a caption and a crop each."""
    out = []
    for clip in data:
        length = len(clip["real"])
        if not low <= length < high:
            continue
        entries = []
        if full_captions(clip):
            entries.append((full_captions(clip), 0, length))
        for text, start, end in clip["lines"]:
            if subclips and not (start == 0 and end == 0):
                a, b = int(start * fps), min(int(end * fps), length)
                if low <= b - a < high:
                    entries.append(([text], a, b))
        for captions, a, b in entries:
            out.append((clip, captions, a, b))
    drawn = []
    for clip, captions, a, b in out:
        text = captions[0] if rng is None else captions[rng.choice(len(captions))]
        start, m = coin_crop(b - a, rng)
        drawn.append((clip, text, a + start, m))
    return drawn


def paper(data, encoder):
    items = drawn_items(data, np.random.RandomState(123), 60, 300, 30, True)
    texts = [encoder.encode_texts([text])[0] for _, text, _, _ in items]
    real = [encoder.encode_motions([clip["real"][a : a + m]])[0] for clip, _, a, m in items]
    pred = [encoder.encode_motions([clip["pred"][: min(m, len(clip["pred"])) // 4 * 4]])[0] for clip, _, _, m in items]
    return legacy_figures(texts, real, pred, few=lambda n: min(100, n), seed=123)


def upstream(data, encoder):
    items = drawn_items(data, np.random.RandomState(123), 60, 201, 30, False)
    texts = [encoder.encode_texts([text])[0] for _, text, _, _ in items]
    real = [encoder.encode_motions([clip["real"][a : a + m]])[0] for clip, _, a, m in items]
    pred = [encoder.encode_motions([clip["pred"][:100][:300]])[0] for clip, _, _, _ in items]
    return legacy_figures(texts, real, pred, few=lambda n: min(100, n), seed=123)


def shuffled_figures(texts, real, pred, repeats, seed, *, fid_unit=False, shared=False, unit_l1=False):
    """Shuffles from one stream; FID over everything."""
    rng, out = np.random.default_rng(seed), {"real": {}, "predicted": {}}

    def note(name, key, value):
        out[name].setdefault(key, []).append(value)

    for repeat in range(repeats):
        groups = batches(list(rng.permutation(len(texts))))
        for name, motions in (("real", real), ("predicted", pred)):
            rates, distance = retrieval(texts, motions, groups)
            for k in range(3):
                note(name, f"R@{k + 1}", rates[k])
            note(name, "MM-Dist", distance)
        for name, motions in (("real", real), ("predicted", pred)):
            n = min(300, len(motions))
            source = rng if shared else np.random.default_rng(seed + 100 + repeat)
            note(name, "Diversity", diversity(motions, n, source))
            if unit_l1:
                note(name, "Diversity-unit-L1", diversity(motions, n, np.random.default_rng(seed + 100 + repeat), True))
    out = {name: {key: float(np.mean(values)) for key, values in row.items()} for name, row in out.items()}
    out["predicted"]["FID-unit" if fid_unit else "FID"] = fid(real, pred, fid_unit)
    return out


def allcaptions(data, encoder):
    texts, real, pred = [], [], []
    for clip in data:
        length = len(clip["real"])
        if not 60 <= length < 300:
            continue
        spans = [(text, 0, length) for text in full_captions(clip)]
        spans += [
            (text, int(a * 30), min(int(b * 30), length)) for text, a, b in clip["lines"] if not (a == 0 and b == 0)
        ]
        for text, a, b in spans:
            if 60 <= b - a < 300:
                m = (b - a) // 4 * 4
                texts.append(encoder.encode_texts([text])[0])
                real.append(encoder.encode_motions([clip["real"][a : a + m]])[0])
                pred.append(encoder.encode_motions([clip["pred"][: min(m, len(clip["pred"])) // 4 * 4]])[0])
    return shuffled_figures(texts, np.array(real), np.array(pred), 20, 0)


def strict(data, encoder):
    texts, real, pred = [], [], []
    for clip in data:
        (text,) = full_captions(clip)
        texts.append(encoder.encode_texts([text])[0])
        for side, out in (("real", real), ("pred", pred)):
            motion = clip[side]
            out.append(encoder.encode_motions([motion[: min(len(motion), 300) // 4 * 4]])[0])
    return shuffled_figures(texts, np.array(real), np.array(pred), 1, 0, fid_unit=True, shared=True)


def motionclip(data, encoder):
    texts, real, pred, other = [], [], [], []
    for clip in data:
        if full_captions(clip):
            m = min(len(clip["real"]), len(clip["pred"]), 300)
            texts.append(encoder.encode_texts([full_captions(clip)[0]])[0])
            real.append(encoder.encode_motions([clip["real"][:m]])[0])
            pred.append(encoder.encode_motions([clip["pred"][:m]])[0])
            other.append(encoder.encode_motions([clip["refk"][:m]])[0])
    figures = shuffled_figures(texts, np.array(real), np.array(pred), 20, 0, unit_l1=True)
    figures["predicted"]["FID-refk"] = fid(other, pred)
    figures["real"]["FID-refk"] = fid(other, real)  # how far the references are apart
    return figures


def official263(data, encoder):
    """20 drawings; FID of both sides against yet another drawing of the real clips."""
    rows = []
    for repeat in range(20):
        rng = np.random.RandomState(42 + repeat)
        items = drawn_items(data, rng, 40, 200, 20, True)
        other = drawn_items(data, np.random.RandomState(42 + 100_003 + repeat), 40, 200, 20, True)
        texts = [encoder.encode_texts([text])[0] for _, text, _, _ in items]
        real = [encoder.encode_motions([clip["real"][a : a + m]])[0] for clip, _, a, m in items]
        again = [encoder.encode_motions([clip["real"][a : a + m]])[0] for clip, _, a, m in other]
        pred = [
            encoder.encode_motions([clip["pred"][: min(m, len(clip["pred"])) // 4 * 4]])[0] for clip, _, _, m in items
        ]
        figures = legacy_figures(texts, real, pred, few=lambda n: min(100, n), seed=42 + repeat)
        order = np.random.RandomState(42 + repeat).permutation(len(texts))
        kept = order[: len(order) // 32 * 32]
        figures["predicted"]["FID"] = fid(np.array(again)[kept], np.array(pred)[kept])
        figures["real"]["FID"] = fid(np.array(again)[kept], np.array(real)[kept])
        rows.append(figures)
    return {name: {key: float(np.mean([r[name][key] for r in rows])) for key in rows[0][name]} for name in rows[0]}


def leaderboard263(data, encoder):
    texts, real, pred = [], [], []
    for clip in data:
        if full_captions(clip) and 40 <= len(clip["real"]) < 200:
            m = min(len(clip["real"]) // 4 * 4, len(clip["pred"]) // 4 * 4, 196)
            texts.append(encoder.encode_texts([full_captions(clip)[0]])[0])
            real.append(encoder.encode_motions([clip["real"][:m]])[0])
            pred.append(encoder.encode_motions([clip["pred"][:m]])[0])
    return shuffled_figures(texts, np.array(real), np.array(pred), 20, 42)


def ours(data, encoder):
    """hftrainer-v1: each clip asks once; any motion whose clip has the same caption is right; a failure is wrong."""
    data = [c for c in data if full_captions(c) and len(c["real"]) >= 4]
    captions = [" ".join(full_captions(c)[0].lower().split()).rstrip(". ") for c in data]
    texts = [encoder.encode_texts([full_captions(c)[0]])[0] for c in data]
    n = len(data)

    def embed(motion):
        return encoder.encode_motions([motion[: min(len(motion), 300) // 4 * 4]])[0]

    real = [embed(c["real"]) for c in data]
    pred = [embed(c["pred"]) if c["pred"] is not None and len(c["pred"]) == len(c["real"]) else None for c in data]
    rng, out = np.random.default_rng(0), {"real": {}, "predicted": {}}
    for repeat in range(20):
        order = list(rng.permutation(n))
        for name, motions in (("real", real), ("predicted", pred)):
            hits = np.zeros(3)
            for place, i in enumerate(order):
                first = place // 32 * 32
                pool = order[first : first + 32]
                pool = pool + order[: 32 - len(pool)]
                if motions[i] is None:
                    continue
                distance = {
                    j: np.linalg.norm(np.asarray(texts[i], float) - motions[j]) for j in pool if motions[j] is not None
                }
                best = min(distance[j] for j in distance if captions[j] == captions[i])
                nearer = sum(distance[j] < best for j in distance if captions[j] != captions[i])
                level = sum(distance[j] == best for j in distance)
                right = sum(distance[j] == best for j in distance if captions[j] == captions[i])
                for k in range(3):
                    places = min(max(k + 1 - nearer, 0), level)  # which of the level ones get, all orders alike likely
                    hits[k] += 1 - math.comb(level - right, places) / math.comb(level, places)
            for k in range(3):
                out[name].setdefault(f"R@{k + 1}", []).append(hits[k] / n)
            there = [i for i in range(n) if motions[i] is not None]
            pairs = np.array([motions[i] for i in there])
            out[name].setdefault("MM-Dist", []).append(np.mean([np.linalg.norm(texts[i] - motions[i]) for i in there]))
            out[name].setdefault("Diversity", []).append(
                diversity(pairs, min(300, len(pairs)), np.random.default_rng(100 + repeat))
            )
    out = {name: {key: float(np.mean(values)) for key, values in row.items()} for name, row in out.items()}
    there = [motion for motion in pred if motion is not None]
    out["predicted"] |= {"FID": fid(real, there), "FID-unit": fid(real, there, True)}
    return out
