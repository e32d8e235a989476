"""What every part speaks of: profile, observation, action, step, reward. numpy and msgspec only."""
