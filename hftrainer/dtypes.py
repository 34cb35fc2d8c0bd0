"""The names of floating-point types, as people spell them. Standard library only."""

from __future__ import annotations

_SPELLINGS = {
    "float32": "float32", "fp32": "float32", "bfloat16": "bfloat16", "bf16": "bfloat16",
    "float16": "float16", "fp16": "float16", "half": "float16",
}  # fmt: skip
DTYPES = ("float32", "bfloat16", "float16")


def dtype_name(text: str) -> str:
    """torch's name of a floating-point type: "bf16" and "bfloat16" are the same; ``ValueError`` for another word."""
    name = _SPELLINGS.get(str(text).strip().lower().removeprefix("torch."))
    if name is None:
        raise ValueError(f"unknown floating-point type {text!r}; write bf16, fp16 or fp32 (or {', '.join(DTYPES)})")
    return name
