"""What a Decider is made of: memory of the market, kernel, account, lines of bars."""
