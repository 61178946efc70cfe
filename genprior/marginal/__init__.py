"""The marginal likelihood of a measurement, ln p(y), behind `genprior.evidence`; one method per file."""
