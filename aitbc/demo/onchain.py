"""The chain as an outsider sees it: JSON-RPC to the node, a key of one's own, the contracts' public ABI."""

from dataclasses import dataclass
from typing import Any, Final

from aitbc.chain.abi import interface
from aitbc.chain.client import Client, Receipt
from aitbc.chain.keystore import Signer
from aitbc.demo.failure import Failed, require, wait_for

JSON = dict[str, Any]
_ETHER: Final = 10**18
_FEE: Final = 10**11  # wei per gas, far above what a development chain asks
_TIP: Final = 10**9


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The node to ask, and the addresses of the contracts."""

    node: Client
    token: str
    settlement: str

    def receipt(self, tx_hash: str) -> Receipt:
        found = wait_for(lambda: self.node.receipt(tx_hash), seconds=20, what=f"{tx_hash} is mined")
        require(found.succeeded, f"the transaction {tx_hash} was reverted")
        return found

    def anchored_root(self, tx_hash: str) -> tuple[str, int]:
        """(root in the Anchored event of our contract, gas used) of a mined transaction."""
        receipt = self.receipt(tx_hash)
        for log in receipt.logs:
            if log["address"].lower() == self.settlement.lower():
                decoded = interface("Settlement").decode_log(log["topics"], log["data"])
                if decoded and decoded[0] == "Anchored":
                    return str(decoded[1]["root"]), receipt.gas_used
        raise Failed(f"the transaction {tx_hash} anchored nothing")

    def balance(self, account: str) -> int:
        """AIT of an address, in smallest units."""
        data = interface("AIT").call_data("balanceOf", [account])
        answer = self.node.call("eth_call", {"to": self.token, "data": data}, "latest")
        return int(interface("AIT").result("balanceOf", answer)[0])

    def claim(self, claim: JSON, signer: Signer) -> str:
        """Send the provider's claim from the provider's own address; the hash of the mined transaction."""
        arguments = [claim[name] for name in ("batch_id", "index", "account", "units", "proof")]
        data = interface("Settlement").call_data("claim", arguments)
        # Gas costs ether, which a development chain gives away.
        self.node.call("anvil_setBalance", signer.address, hex(_ETHER))
        call = {"from": signer.address, "to": self.settlement, "data": data}
        fields = {
            "type": 2,
            "chainId": self.node.chain_id,
            "nonce": self.node.nonce(signer.address, "pending"),
            "gas": self.node.estimate_gas(call) * 5 // 4,
            "maxFeePerGas": _FEE,
            "maxPriorityFeePerGas": _TIP,
            "value": 0,
            "to": self.settlement,
            "data": data,
        }
        raw, tx_hash = signer.sign_transaction(fields)
        self.node.send_raw(raw)
        self.receipt(tx_hash)
        return tx_hash
