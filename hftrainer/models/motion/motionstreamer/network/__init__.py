"""The encoders and the training decoder as plain torch modules."""

from hftrainer.models.motion.motionstreamer.network.actor import (
    Gaussian,
    MotionDecoder,
    MotionEncoder,
    TextEncoder,
)

__all__ = ["Gaussian", "MotionDecoder", "MotionEncoder", "TextEncoder"]
