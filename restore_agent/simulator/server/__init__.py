"""HTTP/1.1 over real sockets, with TLS."""
