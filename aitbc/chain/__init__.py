"""The platform's side of the chain: keys, signatures, transactions, indexed blocks and logs."""
