"""Generative priors for imaging inverse problems: train them, sample posteriors, restore photographs."""

import lazy_loader

__version__ = "0.2.0"

# Names are those of __init__.pyi, each loaded on first access, so that `import genprior` is quick (PEP 562).
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
