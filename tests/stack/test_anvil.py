import json
import os
import signal

import pytest

from aitbc.stack import process
from aitbc.stack.anvil import Anvil
from aitbc.stack.errors import StackError


@pytest.fixture
def anvil(tmp_path):
    chain = Anvil(31338, tmp_path / "chain")
    yield chain
    chain.stop()


def height(chain: Anvil) -> int:
    return int(chain.call("eth_blockNumber"), 16)


def test_a_chain_has_its_id_and_no_keys_in_the_node(anvil):
    anvil.start()

    assert int(anvil.call("eth_chainId"), 16) == 31338
    assert anvil.call("eth_accounts") == []


def test_a_block_is_mined_on_demand_only(anvil):
    anvil.start()
    before = height(anvil)

    anvil.call("evm_mine")

    assert height(anvil) == before + 1


def test_balance_set_without_a_block_and_blocks_survive_a_restart(anvil):
    anvil.start()
    anvil.call("anvil_setBalance", "0x00000000000000000000000000000000000000aa", hex(5))
    for _ in range(3):
        anvil.call("evm_mine")
    head = anvil.call("eth_getBlockByNumber", "latest", False)

    anvil.stop()
    assert anvil.pid is None
    anvil.start()

    assert anvil.call("eth_getBlockByNumber", "latest", False) == head
    assert int(anvil.call("eth_getBalance", "0x00000000000000000000000000000000000000aa", "latest"), 16) == 5


def test_a_killed_node_is_started_again_from_the_saved_state(anvil):
    anvil.start()
    anvil.call("evm_mine")
    head = anvil.call("eth_getBlockByNumber", "latest", False)["hash"]
    assert process.wait_for(lambda: saved_height(anvil) == 1, seconds=10)
    killed = anvil.pid
    process.wait_for(lambda: False, seconds=3)  # younger ones are taken for unable to live

    os.kill(killed, signal.SIGKILL)

    assert process.wait_for(lambda: anvil.pid not in (None, killed), seconds=10)
    anvil.start()
    assert anvil.call("eth_getBlockByNumber", "latest", False)["hash"] == head


def saved_height(chain: Anvil) -> int:
    state = chain.folder / "state.json"
    return json.loads(state.read_text())["best_block_number"] if state.exists() else -1


def test_kill_9_of_node_and_keeper_while_they_save_leaves_a_chain_that_starts(anvil):
    anvil.start()
    heights = []
    for _ in range(3):
        anvil.call("evm_mine")
        assert process.wait_for(lambda: saved_height(anvil) == height(anvil), seconds=10)
        anvil.call("evm_mine")  # being saved, or not, when the keeper dies
        os.kill(process.running(anvil.watched), signal.SIGKILL)
        assert process.wait_for(lambda: anvil.pid is None, seconds=10)
        anvil.start()
        heights.append(height(anvil))

    assert heights == sorted(set(heights))
    assert len(heights) == 3


def test_a_folder_of_another_chain_is_refused(anvil):
    anvil.start()
    anvil.stop()

    with pytest.raises(StackError, match="holds chain 31338, not 31337"):
        Anvil(31337, anvil.folder).start()
    assert process.running(anvil.watched) is None


def test_a_damaged_state_file_is_an_error_that_shows_the_log(anvil):
    anvil.start()
    anvil.stop()
    (anvil.folder / "state.json").write_text('{"block": ')

    with pytest.raises(StackError, match=r"(?s)ended while starting.*anvil\.log"):
        anvil.start()
    assert anvil.pid is None
