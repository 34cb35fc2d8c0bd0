"""T2M-GPT (Zhang et al., CVPR 2023, arXiv 2301.06052) as a plug-in of hftrainer; importing it registers what it has."""

from importlib.util import find_spec

from t2m_gpt import bundle, pipeline

if find_spec("lightning") is not None:  # generating needs no trainer
    from t2m_gpt import tasks

__all__ = ["bundle", "pipeline", "tasks"]
