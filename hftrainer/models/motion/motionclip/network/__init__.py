"""Plain torch modules; parameter names are the published checkpoint's."""

from hftrainer.models.motion.motionclip.network.clip import MotionCLIP, TowerConfig

__all__ = ["MotionCLIP", "TowerConfig"]
