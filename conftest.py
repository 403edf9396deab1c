pytest_plugins = ["aitbc.core.testing.plugin"]
