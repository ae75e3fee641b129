"""A run with faults: what is drawn from its seed, who takes part, and how it is judged."""
