"""What can be measured on a checkpoint; `eval.tasks.registry.TASKS` has it by name."""
