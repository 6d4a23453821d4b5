"""The server: HTTP/1.1, HTTP/2 and WebSocket in front of the pool. Needs the extra `server`."""
