"""Training: networks, cloning, PPO, the learner. The only part besides `convert.export` that imports torch."""
