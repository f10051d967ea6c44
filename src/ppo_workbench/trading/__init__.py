"""The step: actions, account, mask rules, reward and the environments built on it."""
