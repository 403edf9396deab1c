from aitbc.chain.testing.net import *  # noqa: F403 - fixtures
