"""The mini world: drawn pictures with questions and captions that mirror the published data sets."""
