from apps.gpu.admin import artifacts, jobs, miners, queue, receipts  # noqa: F401 - registers their pages
