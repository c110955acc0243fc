"""What trained predictors are asked to do: a file a task, see ``gped_nas.api.tasks.base``."""
