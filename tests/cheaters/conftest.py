from apps.gpu.tests.conftest import alice, artifacts_dir, mallory, mike, nora  # noqa: F401 - fixtures
