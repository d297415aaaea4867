"""Running models: a contract, and the engines that keep it."""
