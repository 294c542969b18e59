"""`python -m rlaif`, and the module that `accelerate launch -m rlaif` starts."""

from rlaif.cli.main import main

main()
