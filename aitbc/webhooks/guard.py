"""Where requests to users' addresses may go, checked on the very address that is connected to.

A name may resolve to another address each time it is asked: what was checked earlier counts for nothing.
"""

import errno
import socket
from ipaddress import ip_address, ip_network
from typing import Any, Final

from django.conf import settings

# For protocols, ways to other addresses (6to4 and its relays), or examples; Python calls them public.
_NOT_PUBLIC: Final = [ip_network(n) for n in ("192.0.0.0/24", "192.88.99.0/24", "2002::/16", "3fff::/20")]
# Outside lie mapped and compatible IPv4, NAT64, and what has been withdrawn.
_UNICAST: Final = [ip_network(n) for n in ("0.0.0.0/0", "2000::/3")]
# What can be said without asking a name server: no numeric host in any spelling (the last label begins with
# a letter), no user, no other port. In development local receivers have plain http.
_NAME: Final = r"https://([a-z0-9_-]+\.)+[a-z][a-z0-9-]*(:443)?"
_LOCAL: Final = r"|http://(127\.0\.0\.1|localhost):[0-9]+"
URL: Final = rf"(?i)^({_NAME}{_LOCAL if settings.WEBHOOK_NETWORKS else ''})([/?][!-~]*)?$"


def is_permitted(address: str, port: int) -> bool:
    """Port 443 of a public address, or anything in `WEBHOOK_NETWORKS`."""
    ip = ip_address(address.partition("%")[0])
    if any(ip in ip_network(network) for network in settings.WEBHOOK_NETWORKS):
        return True
    public = ip.is_global and not ip.is_multicast and any(ip in network for network in _UNICAST)
    return port == 443 and public and not any(ip in network for network in _NOT_PUBLIC)


def open_socket(info: tuple[Any, ...]) -> socket.socket:
    """For a result of getaddrinfo, just before the socket is connected there."""
    if not is_permitted(*info[4][:2]):
        raise PermissionError(errno.EACCES, "not port 443 of a public address")
    return socket.socket(*info[:3])
