"""Joint maps from other skeletons to SMPL-22, as YAML; `hftrainer.motion.retarget` reads them."""
