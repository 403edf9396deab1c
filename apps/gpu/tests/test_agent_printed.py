"""What a miner takes of a job's log: whole lines, in order, each once; and what runtimes really write."""

import contextlib
import os

import pytest

from apps.gpu.agent import child
from apps.gpu.agent.printed import READ_BYTES, Printed
from apps.gpu.agent.sandbox import Limits, Sandbox, Slot
from apps.gpu.agent.workspace import Workspace
from apps.gpu.agent.zygote import ROOT
from apps.gpu.joblog import REPORT_LINES
from apps.gpu.runtimes.contract import RuntimeFailure

LIMITS = Limits(seconds=30)


@pytest.fixture
def printed(tmp_path):
    return Printed(Workspace(tmp_path, None))


def write(printed, content):
    with open(printed.workspace.folder / child.LOG, "ab") as file:
        file.write(content)


def lines_of(reports):
    return [line for report in reports for line in report["logs"]]


def test_no_log_or_an_empty_one_is_no_report(printed):
    assert printed.reports(ended=True) == []
    write(printed, b"")
    assert printed.reports(ended=True) == []


def test_a_line_without_its_end_waits_until_the_job_has_ended(printed):
    write(printed, b"one\ntw")
    assert printed.reports(ended=False) == [{"logs": ["one"], "logs_from": 0}]

    printed.count = 1
    assert printed.reports(ended=False) == []
    assert printed.reports(ended=True) == [{"logs": ["tw"], "logs_from": 1}]
    write(printed, b"o\r\n\nfour")
    assert printed.reports(ended=False) == [{"logs": ["two", ""], "logs_from": 1}]


def test_what_was_not_accepted_is_reported_again(printed):
    write(printed, b"a\nb\n")
    assert printed.reports(ended=False) == printed.reports(ended=False) == [
        {"logs": ["a", "b"], "logs_from": 0}
    ]  # fmt: skip


def test_bytes_that_are_no_text_are_replaced(printed):
    write(printed, b"\xff\x00\x1b[1m\xc3\xa9\n")
    assert lines_of(printed.reports(ended=True)) == ["\ufffd\ufffd\ufffd[1m\u00e9"]


def test_much_is_handed_out_in_portions_and_what_is_not_read_is_said(printed):
    write(printed, b"x\n" * (REPORT_LINES + 1))
    reports = printed.reports(ended=False)
    assert [(len(report["logs"]), report["logs_from"]) for report in reports] == [(200, 0), (1, 200)]

    write(printed, (b"y" * 999 + b"\n") * (READ_BYTES // 1000))
    reports = printed.reports(ended=True)
    assert lines_of(reports)[-1] == f"[the miner reads no more than {READ_BYTES} bytes of a log]"
    assert {len(report["logs"]) for report in reports[:-1]} == {REPORT_LINES}
    assert [report["logs_from"] for report in reports[:3]] == [0, 200, 400]


def test_the_miners_folders_are_not_named(printed):
    write(printed, f'File "{ROOT}/apps/gpu/x.py", {printed.workspace.folder}/y\n'.encode())
    assert lines_of(printed.reports(ended=True)) == ['File "aitbc/apps/gpu/x.py", ./y']


def test_a_link_in_the_logs_place_is_refused(printed):
    os.symlink("/etc/passwd", printed.workspace.folder / child.LOG)
    with pytest.raises(RuntimeFailure):
        printed.reports(ended=True)


def test_a_runtime_that_ran_says_so_in_its_log():
    matmul = {"kind": "bench.matmul", "input": {"n": 8, "seed": 1, "dtype": "float32"}}
    with contextlib.closing(Sandbox(tier="process", threads=1)) as sandbox, sandbox.workspace() as workspace:
        sandbox.run(workspace, "job", matmul, LIMITS, Slot())
        started, done = lines_of(Printed(workspace).reports(ended=True))

    assert started == "bench.matmul: started on cpu, threads 1"
    assert done.startswith("bench.matmul: done after 0.")


def test_a_runtime_that_failed_says_why_in_its_log():
    broken = {"kind": "vision.ocr", "input": {"image": "AAAA"}}
    with contextlib.closing(Sandbox(tier="process", threads=1)) as sandbox, sandbox.workspace() as workspace:
        with pytest.raises(RuntimeFailure) as failure:
            sandbox.run(workspace, "job", broken, LIMITS, Slot())
        lines = lines_of(Printed(workspace).reports(ended=True))

    assert lines[0] == "vision.ocr: started on cpu, threads 1"
    assert lines[-1] == f"{failure.value.code}: {failure.value.message}"
