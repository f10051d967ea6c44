"""The fast learner: rollout and update of MaskablePPO and PPO as kernels."""
