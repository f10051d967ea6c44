"""From a study's best trials to a champion, or to a refusal."""
