"""`python -m elastune`: the same as the `elastune` command."""

from elastune.experiments.cli.app import main

main()
