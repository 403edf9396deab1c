"""Rule 33, as far as it is reached: the web never parses models or media, and inline input is small."""

import json
import subprocess
import sys

from django.conf import settings as live

from aitbc.accounts import parameters
from apps.gpu.tests.test_artifacts import (  # noqa: F401 - collected here too
    test_a_body_over_the_limit_is_refused_before_it_is_read,
)
from apps.gpu.tests.test_queue import (  # noqa: F401 - collected here too
    test_a_client_may_queue_so_many_jobs_and_more_when_some_have_run,
    test_submissions_at_once_never_exceed_the_quota,
)
from apps.gpu.tests.test_submission import (  # noqa: F401 - collected here too
    test_an_input_over_the_inline_limit_must_be_an_artifact,
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


def test_stored_bytes_have_a_quota_per_owner():
    definition = {d.name: d for d in parameters.DEFINITIONS}["max_stored_bytes"]

    assert 0 < definition.default < definition.maximum
