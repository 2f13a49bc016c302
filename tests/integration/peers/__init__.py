"""Independent WebSocket software, as clients and servers of the proxy."""
