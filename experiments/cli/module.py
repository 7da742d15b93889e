"""`python -m elastune`: the same as the `elastune` command."""

from elastune.experiments.cli.entry import main

main()
