"""Evaluation protocols by name: which clips, which captions, which frames, which batches, which metrics."""

from hftrainer.evaluation.protocols.schema import Protocol, load_protocol, protocol_names

__all__ = ["Protocol", "load_protocol", "protocol_names"]
