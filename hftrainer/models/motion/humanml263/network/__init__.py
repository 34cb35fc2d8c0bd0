"""Plain torch modules; parameter names are the published checkpoint's."""

from hftrainer.models.motion.humanml263.network.matcher import Matcher, MatcherConfig

__all__ = ["Matcher", "MatcherConfig"]
