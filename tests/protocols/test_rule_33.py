"""Rule 33, but for queued jobs: the web parses no models or media, inline input is small, owners have quotas."""

import json
import subprocess
import sys

from django.conf import settings as live

from apps.gpu.tests.test_artifacts import (  # noqa: F401 - collected here too
    test_a_body_over_the_limit_is_refused_before_it_is_read,
    test_the_quota_counts_what_an_owner_uploaded_and_is_checked_before_the_body,
)
from apps.gpu.tests.test_logs import (  # noqa: F401 - collected here too
    test_logs_count_against_their_clients_quota_and_what_is_cut_is_said,
)
from apps.gpu.tests.test_queue import (  # noqa: F401 - collected here too
    test_a_client_may_queue_so_many_jobs_and_more_when_some_have_run,
    test_submissions_at_once_never_exceed_the_quota,
)
from apps.gpu.tests.test_submission import (  # noqa: F401 - collected here too
    test_an_input_over_the_inline_limit_must_be_an_artifact,
)
from apps.gpu.tests.test_uploads import (  # noqa: F401 - collected here too
    test_two_at_once_cannot_both_have_the_last_bytes_of_a_quota,
    test_unfinished_uploads_have_a_quota_of_their_own_before_any_byte,
)

PARSERS = ("onnx", "onnxruntime", "cv2", "PIL", "torch", "rapidocr_onnxruntime", "numpy")


def test_the_web_process_loads_no_parser_of_models_or_media():
    code = (
        "import aitbc.wsgi, sys, json; from django.test import Client; Client().get('/v1/openapi.json');"
        f"print(json.dumps(sorted(set(sys.modules) & set({PARSERS!r}))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=live.BASE_DIR, capture_output=True, text=True, timeout=60, check=True
    )

    assert json.loads(done.stdout.splitlines()[-1]) == []
