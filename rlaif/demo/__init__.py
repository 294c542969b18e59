"""The demo world: grammar, oracle, embedded models, and the demo that runs on them."""
