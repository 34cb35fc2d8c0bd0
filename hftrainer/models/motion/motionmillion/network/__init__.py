"""The networks of Go to Zero (arXiv 2507.07095), under the names that its checkpoints use. Plain torch."""

from hftrainer.models.motion.motionmillion.network.fsq import FSQ
from hftrainer.models.motion.motionmillion.network.llama import LLaMAHF, LLaMAHFConfig
from hftrainer.models.motion.motionmillion.network.vqvae import HumanVQVAE

__all__ = ["FSQ", "HumanVQVAE", "LLaMAHF", "LLaMAHFConfig"]
