from aitbc.chain.testing.net import *  # noqa: F403 - fixtures
from apps.gpu.tests.conftest import alice, artifacts_dir, mallory, mike, nora  # noqa: F401 - fixtures
