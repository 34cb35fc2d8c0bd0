"""Deterministic weights: every tensor is a function of its name and shape alone, so two implementations that
share parameter names share weights, and a golden file needs to hold only inputs and outputs."""

import zlib

import numpy as np
import torch


def values(name, shape, scale=0.02):
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    return (rng.standard_normal(tuple(shape)) * scale).astype(np.float32)


def fill(module, scale=0.02, prefix=""):
    """Overwrite every float tensor of module.state_dict(); norm scales/weights become 1 + noise."""
    sd = module.state_dict()
    for k, v in sd.items():
        if not v.is_floating_point() or k.endswith("wavelets") or k.endswith(".pe"):
            continue
        a = values(prefix + k, v.shape, scale)
        if ("norm" in k.lower() or "rms_" in k or "ln_f" in k) and (k.endswith("weight") or k.endswith("scale")):
            a = 1.0 + a
        sd[k] = torch.from_numpy(a).to(v.dtype)
    module.load_state_dict(sd)
    return module
