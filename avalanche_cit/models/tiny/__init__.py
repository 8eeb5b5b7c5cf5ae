"""The tiny models that ship with the package, and how they are made."""
