"""The marginal likelihood of a measurement, ln p(y): what `genprior.evidence` is made of, one method per file."""
