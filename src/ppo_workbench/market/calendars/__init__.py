"""When a market trades: exchange calendars, own ones, clocks, and how long a year is."""
