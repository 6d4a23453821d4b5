"""Pages of frameworks that servers are measured with. What workers import; each needs its framework alone."""
