"""Continual instruction tuning of large multimodal models, as an extension of Avalanche."""

import logging

__version__ = "0.1.0"

# where bitsandbytes is installed, peft imports it, and it warns that 4 bits are slow on this CPU before anything asks
logging.getLogger("bitsandbytes.backends.cpu").setLevel(logging.ERROR)
