from aitbc.core.admin import platform, schedules  # noqa: F401 - registers their pages
