"""Which hardware for a model, and how to spread its training: feasibility first, then the objective, with reasons."""
