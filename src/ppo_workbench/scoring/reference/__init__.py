"""What an agent is compared with: rules, forecasts, and what knows the synthetic market."""
