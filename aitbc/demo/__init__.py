"""The main job end to end on real parts: `manage.py demo`.

Works as an outside user would: over HTTP, through commands, with miner daemons in processes of their own
and the chain's own JSON-RPC. It imports no model and no service, and opens no database.
"""
