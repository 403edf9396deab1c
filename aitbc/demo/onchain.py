"""The chain as an outsider sees it: JSON-RPC to the node, a key of one's own, the contracts' public ABI."""

from dataclasses import dataclass
from typing import Any, Final

from aitbc.chain.abi import interface
from aitbc.chain.keystore import Signer
from aitbc.demo.failure import require, wait_for
from aitbc.stack import rpc

JSON = dict[str, Any]
_ETHER: Final = 10**18
_TIP: Final = 10**9  # wei per gas


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Addresses of the contracts and the node to ask."""

    url: str
    token: str
    settlement: str

    def call(self, method: str, *params: Any) -> Any:
        return rpc.call(self.url, method, *params)

    def receipt(self, tx_hash: str) -> JSON:
        found: JSON | None = self.call("eth_getTransactionReceipt", tx_hash)
        require(found is not None, f"the chain does not know the transaction {tx_hash}")
        assert found is not None  # required above
        require(int(found["status"], 16) == 1, f"the transaction {tx_hash} was reverted")
        return found

    def anchored_root(self, tx_hash: str) -> tuple[str, int]:
        """(root in the Anchored event of our contract, gas used) of a mined transaction."""
        receipt = self.receipt(tx_hash)
        for log in receipt["logs"]:
            if log["address"].lower() == self.settlement.lower():
                decoded = interface("Settlement").decode_log(log["topics"], log["data"])
                if decoded and decoded[0] == "Anchored":
                    return str(decoded[1]["root"]), int(receipt["gasUsed"], 16)
        require(False, f"the transaction {tx_hash} anchored nothing")
        raise AssertionError("unreachable")

    def balance(self, account: str) -> int:
        """AIT of an address, in smallest units."""
        data = interface("AIT").call_data("balanceOf", [account])
        answer = self.call("eth_call", {"to": self.token, "data": data}, "latest")
        return int(interface("AIT").result("balanceOf", answer)[0])

    def claim(self, claim: JSON, signer: Signer) -> str:
        """Send the provider's claim from the provider's own address; the hash of the mined transaction."""
        arguments = [claim[name] for name in ("batch_id", "index", "account", "units", "proof")]
        data = interface("Settlement").call_data("claim", arguments)
        self.call("anvil_setBalance", signer.address, hex(_ETHER))  # gas; a development chain gives it away
        call = {"from": signer.address, "to": self.settlement, "data": data}
        raw, tx_hash = signer.sign_transaction(self._fields(call))
        self.call("eth_sendRawTransaction", "0x" + raw.hex())
        wait_for(
            lambda: self.call("eth_getTransactionReceipt", tx_hash), seconds=20, what=f"{tx_hash} is mined"
        )
        self.receipt(tx_hash)
        return tx_hash

    def _fields(self, call: JSON) -> JSON:
        base = int(self.call("eth_getBlockByNumber", "latest", False)["baseFeePerGas"], 16)
        return {
            "type": 2,
            "chainId": int(self.call("eth_chainId"), 16),
            "nonce": int(self.call("eth_getTransactionCount", call["from"], "pending"), 16),
            "gas": int(self.call("eth_estimateGas", call), 16) * 5 // 4,
            "maxFeePerGas": 2 * base + _TIP,
            "maxPriorityFeePerGas": _TIP,
            "value": 0,
            "to": call["to"],
            "data": call["data"],
        }
