"""A program's whole network, caught without its knowing: namespaces, rules, and the sockets that are handed out."""
